"""How an order goes out, the same for every broker: check, record, send once, take down the answer.

    check_order -> journal.find -> prepare -> guard
    -> journal.record -> journal.mark_sent -> send -> journal.update

A bracket is one unit: its entry and its two legs are recorded, and marked as sent, together.

A crash between any two steps leaves an order that is provably unsent (`recorded`: repeating the
call sends it) or one that is looked up (`sent`), never one that is sent twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from broker.base import Capabilities
from broker.errors import (
    BrokerError,
    InsufficientFunds,
    MarketClosed,
    OrderOutcomeUnknown,
    OrderRejected,
)
from broker.journal import Journal
from broker.models import Order, OrderReport, OrderRequest, Status
from broker.validation import STOP_LOSS, TAKE_PROFIT, check_order

log = logging.getLogger(__name__)

I = TypeVar("I")  # noqa: E741 - an instrument as the broker names it

#: refuses an order of an account by raising a `BrokerError`
Guard = Callable[[OrderRequest, str], None]

#: a repeated call waits this long for the call that is sending the same order, in seconds
SAME_ORDER_WAIT = 5.0
_POLL = 0.05


class NothingKnown(Exception):
    """The order left and no answer came. Raised by a broker's `send`; its text says what happened."""


def place(
    request: OrderRequest,
    *,
    capabilities: Capabilities,
    journal: Journal,
    account: Callable[[], str],
    prepare: Callable[[OrderRequest], I],
    send: Callable[[Order, I], OrderReport],
    settle: Callable[[Order], Order],
    note: Callable[[Order, OrderReport], Order],
    guard: Guard | None = None,
    replaces: str | None = None,
) -> Order:
    """Place one order. The callables are the broker's: `prepare` finds the instrument.

    `send` (of a bracket: the entry with its legs) returns the broker's first answer, raises
    `OrderRejected`, or `NothingKnown`. If it raises another `BrokerError`, nothing left and repeating
    the call may send it. `settle` looks an order up whose outcome is unknown, and returns what it is
    now. `note` takes the answer down in the journal. `guard` may refuse an order that isn't in the
    journal yet: limits, the kill switch.
    `replaces`: our id of the order whose place it takes.
    Raises what `BaseBroker.place_order` names.
    """
    request = check_order(request, capabilities)
    account_id = account()
    existing = journal.find(account_id, request.client_order_id)
    if existing is not None:
        journal.check_same(request, existing)
        # A leg leaves with its entry, never by itself.
        if existing.status != Status.RECORDED or existing.parent_id is not None:
            return _settled(journal, existing, settle)
    instrument = prepare(request)
    if guard is not None:
        guard(request, account_id)
    order = journal.record(account_id, request, replaces=replaces, legs=legs_of(request))
    if not journal.mark_sent(order.id):
        return _settled(journal, order, settle)
    try:
        report = send(replace(order, status=Status.SENT), instrument)
    except OrderRejected as refusal:
        refusal.order = _noted(note, order, _refused(refusal))
        raise
    except NothingKnown as silence:
        return _unknown(journal, order, silence)
    except BrokerError:
        journal.mark_unsent(order.id)
        raise
    return _noted(note, order, report)


def legs_of(request: OrderRequest) -> list[OrderRequest]:
    """A bracket's take-profit and stop-loss as orders of their own, their ids derived from the entry's.

    They have the entry's time in force, as Alpaca's brackets have it: `gtc` for one that lasts.
    """
    if request.take_profit_price is None or request.stop_loss_price is None:
        return []
    leg = replace(
        request,
        side="sell" if request.side == "buy" else "buy",
        limit_price=None,
        take_profit_price=None,
        stop_loss_price=None,
    )
    name, gain, loss = request.client_order_id, request.take_profit_price, request.stop_loss_price
    return [
        replace(leg, order_type="limit", limit_price=gain, client_order_id=name + TAKE_PROFIT),
        replace(leg, order_type="stop", stop_price=loss, client_order_id=name + STOP_LOSS),
    ]


def request_of(order: Order) -> OrderRequest:
    """The request that an order would come from: what a guard judges when the order is replaced."""
    return OrderRequest(
        symbol=order.symbol,
        side=order.side,
        qty=order.qty,
        order_type=order.order_type,
        limit_price=order.limit_price,
        time_in_force=order.time_in_force,
        client_order_id=order.client_order_id,
        stop_price=order.stop_price,
        notional=order.notional,
        trail_amount=order.trail_amount,
        trail_percent=order.trail_percent,
        take_profit_price=order.take_profit_price,
        stop_loss_price=order.stop_loss_price,
        account=order.account_id,
        extended_hours=order.extended_hours,
    )


def failure_of(order: Order) -> BrokerError | None:
    """The error that placing this order ended in, so that repeating the call gives the same answer."""
    reason = order.reason or order.status
    if order.status == Status.UNKNOWN:
        return OrderOutcomeUnknown(reason, order)
    if order.status == Status.REJECTED:
        return rejection(reason, order.reason_code, order)
    return None


def rejection(reason: str, code: int | str | None = None, order: Order | None = None) -> OrderRejected:
    """The kind of refusal that the broker's words tell of."""
    words = reason.lower()
    # IBKR: "Available Funds are in sufficient"; Alpaca: "insufficient buying power"
    # and "your equity with loan value must exceed the initial margin"
    poor = ("insufficient", "in sufficient", "buying power", "equity with loan value", "margin requirement")
    if any(mark in words for mark in poor):
        return InsufficientFunds(reason, code=code, order=order)
    if "market is closed" in words or "exchange is closed" in words:
        return MarketClosed(reason, code=code, order=order)
    return OrderRejected(reason, code=code, order=order)


def _unknown(journal: Journal, order: Order, silence: NothingKnown) -> Order:
    """The order's state if reconciliation has found it meanwhile, else `OrderOutcomeUnknown`."""
    try:
        journal.mark_unknown(order.id, str(silence))
        order = journal.get(order.account_id, order.id)
    except BrokerError:
        log.exception("order %s has no answer, and the journal couldn't take that down", order.id)
        raise OrderOutcomeUnknown(str(silence), replace(order, status=Status.UNKNOWN)) from silence
    failure = failure_of(order)
    if failure is not None:
        raise failure from silence
    return order


def _refused(refusal: OrderRejected) -> OrderReport:
    code = None if refusal.code is None else str(refusal.code)
    return OrderReport(Status.REJECTED, reason=refusal.reason, reason_code=code)


def _noted(note: Callable[[Order, OrderReport], Order], order: Order, report: OrderReport) -> Order:
    """Take down what the broker said. If the journal is away, reconciliation writes it later."""
    try:
        return note(order, report)
    except BrokerError:
        log.exception("order %s was answered, and the journal couldn't take it down", order.id)
        return replace(
            order,
            status=report.status,
            filled_qty=report.filled_qty,
            filled_price=report.filled_price,
            reason=report.reason,
            reason_code=report.reason_code,
            broker_order_id=report.broker_order_id,
            permanent_id=report.permanent_id,
        )


def _settled(journal: Journal, order: Order, settle: Callable[[Order], Order]) -> Order:
    """The order that another call sent or is sending, once that call has its answer."""
    waited = threading.Event()
    for _ in range(int(SAME_ORDER_WAIT / _POLL)):
        order = journal.get(order.account_id, order.id)
        if order.status not in (Status.RECORDED, Status.SENT):
            break
        waited.wait(_POLL)
    if order.status in (Status.SENT, Status.UNKNOWN):
        order = settle(order)
    failure = failure_of(order)
    if failure is not None:
        raise failure
    return order
