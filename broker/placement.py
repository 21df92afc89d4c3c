"""How an order goes out, the same for every broker: check, enter, send once, take down the answer.

    check_order -> prepare -> guard -> journal.enter -> send -> note

`journal.enter` is one transaction: kill switch, limits, the order as `sent`. Of a crash before its
commit nothing is left, and nothing was sent. After it the order is looked up at the broker, never
sent again. What the broker answers may be written behind the caller's back: a crash then is the
same as one before the answer.

A bracket is one unit: its entry and its two legs are entered together.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from broker.base import Capabilities
from broker.errors import (
    BrokerError,
    InsufficientFunds,
    MarketClosed,
    OrderOutcomeUnknown,
    OrderRejected,
)
from broker.journal import Admit, Journal
from broker.journal_rows import reported
from broker.models import Order, OrderReport, OrderRequest, Status
from broker.validation import STOP_LOSS, TAKE_PROFIT, check_order, check_replacement

log = logging.getLogger(__name__)

I = TypeVar("I")  # noqa: E741 - an instrument as the broker names it

#: enters an order in the journal, with a guard's work in the same transaction; `Journal.enter`'s answer
Enter = Callable[[Admit | None], tuple[Order, bool]]


class Guard(Protocol):
    """Refuses orders of an account by raising a `BrokerError`."""

    def __call__(self, request: OrderRequest, account_id: str) -> None:
        """Judge the change of an order; return if it may leave."""

    def admitting(self, request: OrderRequest, account_id: str, enter: Enter) -> tuple[Order, bool]:
        """Judge a new order, and what `enter` returns if it may leave."""


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
    parent_id: str | None = None,
) -> Order:
    """Place one order. The callables are the broker's: `prepare` finds the instrument.

    `send` (of a bracket: the entry with its legs) returns the broker's first answer, raises
    `OrderRejected`, or `NothingKnown`. If it raises another `BrokerError`, nothing left and repeating
    the call may send it. `settle` looks an order up whose outcome is unknown, and returns what it is
    now. `note` takes the answer down in the journal. `guard` may refuse an order that isn't in the
    journal yet: limits, paper and live.
    `replaces`: our id of the order whose place it takes; `parent_id`: of the bracket's entry, if that
    order is a leg.
    Raises what `BaseBroker.place_order` names.
    """
    request = check_order(request, capabilities)
    account_id = account()
    legs = legs_of(request)

    def enter(admit: Admit | None = None) -> tuple[Order, bool]:
        linked = {"parent_id": parent_id, "replaces": replaces}
        return journal.enter(account_id, request, **linked, legs=legs, admit=admit)

    # A guard asks the broker, and people are told of its refusals: a repeated call has been judged.
    order = _sent_before(journal, account_id, request) if guard is not None else None
    if order is not None:
        return _settled(journal, order, settle)
    try:
        instrument = prepare(request)
        if guard is None:
            order, mine = enter()
        else:
            judged = replace(request, replaces=replaces or "")
            order, mine = guard.admitting(judged, account_id, enter)
    except BrokerError:
        # A repeated call gets its order's answer, whatever stands against a new order by now.
        order = _sent_before(journal, account_id, request)
        if order is None:
            raise
        return _settled(journal, order, settle)
    if not mine:
        return _settled(journal, order, settle)
    try:
        report = send(order, instrument)
    except OrderRejected as refusal:
        refusal.order = _noted(note, order, _refused(refusal))
        raise
    except NothingKnown as silence:
        return _unknown(journal, order, silence)
    except BrokerError:
        journal.mark_unsent(order.id)
        raise
    return _noted(note, order, report)


def _sent_before(journal: Journal, account_id: str, request: OrderRequest) -> Order | None:
    """The order of an earlier call that has sent it, or is sending it."""
    known = journal.find(account_id, request.client_order_id)
    if known is None:
        return None
    journal.check_same(request, known)
    # A leg leaves with its entry, never by itself.
    return None if known.status == Status.RECORDED and known.parent_id is None else known


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


def judged_change(
    order: Order,
    capabilities: Capabilities,
    guard: Guard | None,
    *,
    qty: float | None,
    limit_price: float | None,
    stop_price: float | None,
    time_in_force: str | None,
) -> tuple[Order, dict[str, float | str]]:
    """A working order as it is to be, and what changes of it: checked, and let pass by the guard.

    Raises `InvalidRequest`, and what a guard raises.
    """
    change = check_replacement(
        order,
        capabilities,
        qty=qty,
        limit_price=limit_price,
        stop_price=stop_price,
        time_in_force=time_in_force,
    )
    wanted: Order = replace(order, **change)  # type: ignore[arg-type]  # names and types were checked
    if guard is not None:
        guard(request_of(wanted), order.account_id)
    return wanted, change


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
        return reported(order, report)


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
