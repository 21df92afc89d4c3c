"""Placing, replacing, cancelling and looking up: what is sent once, and what is asked again.

Whether an order exists is decided by Alpaca's word only. An answer that got lost is looked up by the
client order id; a look-up that finds nothing proves nothing. A refusal because the id "must be
unique" says that an order of that id is there: ours, if the body agrees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker.brokers.alpaca.records import Records
from broker.brokers.alpaca.translation import body_of, report_of, same_order
from broker.brokers.alpaca.wire import NeverLeft, Refused, Wire
from broker.errors import (
    BrokerFailure,
    InvalidRequest,
    NotAuthenticated,
    NotConnected,
    OrderNotCancellable,
    RateLimited,
    field_problem,
)
from broker.journal import Journal
from broker.models import FINAL_STATUSES, Order, OrderReport, Status
from broker.placement import NothingKnown, rejection

#: Alpaca's words (code 40010001) for a client order id that an order has already
NOT_UNIQUE = "client_order_id must be unique"
#: the longest list that Alpaca gives
LISTED = 500


class Desk:
    """One account's orders at Alpaca. Safe to use from any thread."""

    def __init__(self, wire: Wire, records: Records, journal: Journal) -> None:
        self._wire = wire
        self._records = records
        self._journal = journal
        #: called when an order left and nobody knows what became of it
        self.unanswered: Callable[[], None] = lambda: None

    def send(self, order: Order, symbol: str) -> Any:
        """Place an order: Alpaca's order. Raises `OrderRejected`, `NothingKnown`; others: nothing left."""
        asked = body_of(order, symbol)
        return self._once(order, lambda: self._wire.client.submit_order(asked))

    def send_replacement(self, old: Order, new: Order) -> Any:
        """Replace an order by another: Alpaca's new order. Raises as `send`."""
        from alpaca.trading.enums import TimeInForce
        from alpaca.trading.requests import ReplaceOrderRequest

        asked = ReplaceOrderRequest(
            qty=int(new.qty) if new.qty != old.qty else None,
            limit_price=new.limit_price if new.limit_price != old.limit_price else None,
            stop_price=new.stop_price if new.stop_price != old.stop_price else None,
            time_in_force=TimeInForce(new.time_in_force) if new.time_in_force != old.time_in_force else None,
            client_order_id=new.client_order_id,
        )
        number = old.broker_order_id or ""
        return self._once(new, lambda: self._wire.client.replace_order_by_id(number, asked))

    def _once(self, order: Order, request: Any) -> Any:
        try:
            return self._wire.ask(request)
        except Refused as refusal:
            if NOT_UNIQUE in refusal.message:
                return self._ours_already(order, refusal)
            raise rejection(refusal.message, refusal.code) from None
        except (NotAuthenticated, RateLimited, NeverLeft):
            raise  # at the door, or before it: no order came of it
        except (NotConnected, BrokerFailure) as failure:
            found = self._found(order)
            if found is None:  # no proof that there is none: it may still be on its way
                self.unanswered()
                raise NothingKnown(f"Alpaca didn't answer: {failure.message}") from failure
            return found

    def _ours_already(self, order: Order, refusal: Refused) -> Any:
        found = self._found(order)
        if found is None:
            self.unanswered()
            raise NothingKnown(
                "Alpaca has an order of this client order id, and doesn't show it"
            ) from refusal
        known = self._records.known(found)
        if not same_order(order, found) or (known is not None and known.id != order.id):
            said = f"{refusal.message}: another order has it"
            raise rejection(said, refusal.code) from None
        return found

    def _found(self, order: Order) -> Any:
        try:
            return self._by_client_id(order.client_order_id)
        except (NotConnected, RateLimited, BrokerFailure):
            return None

    def _by_client_id(self, client_order_id: str, urgent: bool = True) -> Any:
        client = self._wire.client
        return self._wire.ask(
            lambda: client.get_order_by_client_id(client_order_id), missing=True, urgent=urgent
        )

    def find(self, client_order_id: str) -> Order | None:
        """An order by its client order id, or None. It is taken down."""
        found = self._by_client_id(client_order_id)
        return None if found is None else self._records.take(found)

    def look_up(self, order: Order, *, urgent: bool = True) -> Order:
        """An order as Alpaca shows it now. One that isn't found is unknown, unless it can't be there."""
        from alpaca.trading.requests import GetOrderByIdRequest

        number, client = order.broker_order_id, self._wire.client
        if number is None and order.parent_id is not None and order.replaces is None:
            return self._look_up_leg(order)
        if number is None:
            found = self._by_client_id(order.client_order_id, urgent)
        else:
            nested = GetOrderByIdRequest(nested=True)
            found = self._wire.ask(
                lambda: client.get_order_by_id(number, nested), missing=True, urgent=urgent
            )
        if found is not None and (number is not None or same_order(order, found)):
            noted = self._records.note(order, report_of(found, order.parent_id is not None))
            return self._records.take_legs(noted, found.legs or [])
        if number is not None:
            raise BrokerFailure("Alpaca doesn't show an order that it has taken")
        said = "Alpaca shows no order of this client order id; that doesn't prove that there is none"
        if order.replaces is not None and self._never_replaced(order.replaces):
            said = "the order that it was to replace ended without a replacement"
            return self._records.note(order, OrderReport(Status.REJECTED, reason=said))
        self._journal.mark_unknown(order.id, said)
        return self._journal.get(order.account_id, order.id)

    def _look_up_leg(self, leg: Order) -> Order:
        """Alpaca knows no id of ours for a leg: it is shown within its entry."""
        self.look_up(self._journal.get(leg.account_id, leg.parent_id or ""))
        self._journal.mark_unknown(leg.id, "Alpaca doesn't show this leg of its bracket")
        return self._journal.get(leg.account_id, leg.id)

    def _never_replaced(self, order_id: str) -> bool:
        old = self._journal.get(self._records.account, order_id)
        old = old if old.status in FINAL_STATUSES else self.look_up(old)
        return old.status in FINAL_STATUSES and old.broker_status != "replaced"

    def listed(self, *, working: bool = False, limit: int = LISTED) -> list[Any]:
        """Alpaca's newest orders, newest first, legs within their entries."""
        from alpaca.trading.enums import QueryOrderStatus
        from alpaca.trading.requests import GetOrdersRequest

        status = QueryOrderStatus.OPEN if working else QueryOrderStatus.ALL
        asked = GetOrdersRequest(status=status, limit=min(max(limit, 1), LISTED), nested=True)
        return self._wire.ask(lambda: self._wire.client.get_orders(asked), urgent=working) or []

    def refresh(self, *, working: bool = False, limit: int = LISTED) -> list[Order]:
        """Take those down, the oldest first, so that a replacement comes after what it replaced."""
        return [self._records.take(found) for found in reversed(self.listed(working=working, limit=limit))]

    def cancel(self, order: Order) -> Order:
        """Cancel an order; the order afterwards.

        Raises `OrderNotCancellable` (it had ended), `NotConnected` (call again: a cancel may be repeated).
        """
        number = order.broker_order_id
        if order.status in FINAL_STATUSES:
            raise OrderNotCancellable(f"the order is {order.status}", order)
        if number is None:
            raise OrderNotCancellable("nobody knows whether the order is at Alpaca", order)
        self._journal.cancel_asked(order.id)
        try:
            self._wire.ask(lambda: self._wire.client.cancel_order_by_id(number), urgent=True)
        except Refused as refusal:
            self._journal.cancel_not_sent(order.id)
            order = self.look_up(order)
            if order.status != Status.PENDING_CANCEL:
                raise OrderNotCancellable(refusal.message, order) from None
            return order
        except (NotAuthenticated, RateLimited, NeverLeft):
            self._journal.cancel_not_sent(order.id)
            raise
        except (NotConnected, BrokerFailure) as failure:
            order = self.look_up(order)
            if order.status in (Status.CANCELLED, Status.PENDING_CANCEL):
                return order
            if order.status in FINAL_STATUSES:
                raise OrderNotCancellable(f"the order is {order.status}", order) from None
            said = f"the cancel may not have arrived: {failure.message}"
            raise NotConnected(said, since=self._wire.since, doing="nothing: cancel again") from failure
        try:
            return self.look_up(order)
        except (NotConnected, RateLimited, BrokerFailure):  # Alpaca has taken the cancel all the same
            return self._records.note(order, OrderReport(Status.PENDING_CANCEL))


def check_whole(old: Order, qty: object) -> None:
    """Alpaca changes quantities of whole shares only ("You can only patch full shares for now")."""
    whole = isinstance(qty, float) and qty.is_integer() and old.qty.is_integer()
    if qty is not None and not whole:
        said = "must be a whole number: Alpaca changes no fractions of shares"
        raise InvalidRequest([field_problem("qty", said, qty)])
