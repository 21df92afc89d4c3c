"""The broker interface over Alpaca's Trading API, its data API and its stream."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.brokers.alpaca.connection import Connection
from broker.brokers.alpaca.desk import LISTED, check_whole
from broker.brokers.alpaca.translation import FEES, fee_of_activity, report_of
from broker.errors import (
    BrokerError,
    BrokerFailure,
    InvalidRequest,
    NotConnected,
    OrderNotCancellable,
    OrderNotFound,
    OrderNotReplaceable,
    OrderOutcomeUnknown,
    OrderRejected,
    RateLimited,
    UnknownSymbol,
    field_problem,
)
from broker.models import (
    FINAL_STATUSES,
    Fee,
    Fill,
    Order,
    OrderEvent,
    OrderReport,
    OrderRequest,
    Status,
    Timeline,
)
from broker.placement import place, request_of
from broker.validation import check_client_order_id, check_replacement

#: what an asset is doesn't change within a day; asking at each order would halve the rate of orders
ASSET_LIFE = timedelta(hours=1)


class AlpacaBroker(Connection):
    """One account at Alpaca. An order, a cancel and a question are each one request."""

    # Orders

    def place_order(self, request: OrderRequest) -> Order:
        """See `BaseBroker.place_order`."""
        legs: list[Any] = []

        def send(order: Order, symbol: str) -> OrderReport:
            found = self._desk.send(order, symbol)
            legs.extend(found.legs or [])
            return report_of(found)

        def note(order: Order, report: OrderReport) -> Order:
            return self._records.take_legs(self._records.note(order, report), legs)

        return place(
            request,
            capabilities=self.capabilities,
            journal=self._journal,
            account=lambda: self._chosen(request.account),
            prepare=self._asset,
            send=send,
            settle=self._desk.look_up,
            note=note,
            guard=self._guard,
        )

    def replace_order(
        self,
        order_id: str,
        *,
        qty: float | None = None,
        limit_price: float | None = None,
        stop_price: float | None = None,
        time_in_force: str | None = None,
    ) -> Order:
        """See `BaseBroker.replace_order`. Alpaca makes a new order of it, so the result has an id of its own.

        Its `replaces` is the old order's id, and its client order id is a fresh one; the old order is
        `cancelled` (`broker_status` `replaced`) once it is done, and keeps its fills. The new one
        counts them too: its `qty` and `filled_qty` are the whole, so don't add the two up. It is
        journalled before it is sent, as any order. Quantities change by whole shares only.
        """
        old = self.get_order(order_id)
        if old.status in FINAL_STATUSES or old.broker_order_id is None:
            raise OrderNotReplaceable(f"the order is {old.status}", old)
        asked: dict[str, Any] = {"qty": qty, "limit_price": limit_price, "stop_price": stop_price}
        change: Any = check_replacement(old, self.capabilities, **asked, time_in_force=time_in_force)
        check_whole(old, change.get("qty"))
        wanted = replace(old, **change, client_order_id=uuid.uuid4().hex)
        if all(getattr(old, name) == value for name, value in change.items()):
            said = "or a price or time in force must differ from the order's: nothing changes"
            raise InvalidRequest([field_problem("qty", said, qty)])
        try:
            new = place(
                replace(request_of(wanted), take_profit_price=None, stop_loss_price=None),
                capabilities=self.capabilities,
                journal=self._journal,
                account=lambda: old.account_id,
                prepare=lambda _: old,
                send=lambda new, _: report_of(self._desk.send_replacement(old, new)),
                settle=self._desk.look_up,
                note=self._records.note,
                guard=self._guard,
                replaces=old.id,
                parent_id=old.parent_id,
            )
        except OrderRejected as refusal:
            raise OrderNotReplaceable(refusal.reason, self._latest(old)) from refusal
        except OrderOutcomeUnknown:
            raise
        except BrokerError:
            self._withdraw(old.account_id, wanted.client_order_id)
            raise
        self._latest(old)
        self._relink(old, new)
        return self._journal.get(new.account_id, new.id)

    def _relink(self, old: Order, new: Order) -> None:
        """The new order has the old one's place in a bracket."""
        if old.legs:
            self._journal.attach(new.id, old.legs)
        if old.parent_id is not None:
            entry = self._journal.get(old.account_id, old.parent_id)
            legs = [new.id if leg == old.id else leg for leg in entry.legs]
            self._journal.attach(entry.id, legs)

    def _latest(self, order: Order) -> Order:
        """The order as it is now, if that can be had; the stream tells it as well."""
        try:
            return self._desk.look_up(order)
        except (NotConnected, RateLimited, BrokerFailure):
            return order

    def _withdraw(self, account: str, client_order_id: str) -> None:
        """End a replacement that wasn't sent: nobody knows its id, so nobody can send it again."""
        left = self._journal.find(account, client_order_id)
        if left is not None and left.status == Status.RECORDED:
            self._records.note(left, OrderReport(Status.REJECTED, reason="it was not sent"))

    def get_order(self, order_id: str) -> Order:
        """See `BaseBroker.get_order`."""
        order = self._journal.get(self._account_id(), order_id)
        if order.status in (*FINAL_STATUSES, Status.RECORDED):
            return order
        return self._desk.look_up(order, urgent=False)

    def get_order_by_client_id(self, client_order_id: str) -> Order:
        """See `BaseBroker.get_order_by_client_id`. Orders that others placed are found, too."""
        client_order_id = check_client_order_id(client_order_id)
        order = self._journal.find(self._account_id(), client_order_id)
        found = self._desk.find(client_order_id) if order is None else self.get_order(order.id)
        if found is None:
            raise OrderNotFound(f"no order has the client order id {client_order_id!a}")
        return found

    def get_order_timeline(self, order_id: str) -> Timeline:
        """See `BaseBroker.get_order_timeline`."""
        return self._journal.timeline(self.get_order(order_id))

    def get_orders_history(self, limit: int = 50) -> list[Order]:
        """See `BaseBroker.get_orders_history`. Orders that others placed are among them."""
        account = self._account_id()
        self._desk.refresh(limit=min(limit, LISTED))
        return self._journal.recent(account, limit)

    def cancel_order(self, order_id: str) -> bool:
        """See `BaseBroker.cancel_order`. It uses requests that are kept back for it."""
        order = self._journal.get(self._account_id(), order_id)
        if order.broker_order_id is None and order.status not in FINAL_STATUSES:
            order = self.get_order(order_id)
        self._desk.cancel(order)
        return True

    def cancel_all_orders(self, *, everyones: bool = False) -> list[Order]:
        """See `BaseBroker.cancel_all_orders`. `everyones`: also those not placed through this journal."""
        self._account_id()
        working = self._desk.refresh(working=True)
        done: list[Order] = []
        for order in working if everyones else [o for o in working if self._placed_here(o)]:
            try:
                done.append(self._desk.cancel(order))
            except OrderNotCancellable as ended:
                done.append(ended.order or order)
        return done

    def _placed_here(self, order: Order) -> bool:
        return not self._journal.is_foreign(order.parent_id or order.id)

    def _resting_legs(self, symbol: str, side: str) -> list[Order]:
        return self._journal.resting_legs(self._account_id(), symbol, side)

    def get_fills(self, since: datetime | None = None, limit: int = 500) -> list[Fill]:
        """See `BaseBroker.get_fills`. Fills that others caused are among them.

        Alpaca charges no commission on US stocks (0 here). The regulatory fees are booked once a day for
        the account, not by fill: see `get_fees`. So what an order cost in all can't be told.
        """
        account = self._account_id()
        self._news.read_fills(since, limit)
        return self._journal.fills.recent(account, since, limit)

    def get_fees(self, since: datetime | None = None, limit: int = 500) -> list[Fee]:
        """See `BaseBroker.get_fees`: SEC, TAF and CAT fees, and what others charge and Alpaca passes on.

        They are booked after the trading day, for all its trades together. Paper accounts pay none
        (docs.alpaca.markets, "Regulatory Fees" and "Paper Trading").
        """
        # They have a day and no time, so the day of `since` is asked for as a whole.
        start = None if since is None else since.astimezone(UTC) - timedelta(days=2)
        account, rows = self._account_id(), self._news.activities(FEES, start, limit)
        first = "" if since is None else since.astimezone(UTC).date().isoformat()
        return [fee_of_activity(row, account) for row in rows if str(row["date"]) >= first][:limit]

    def subscribe(self, callback: Callable[[OrderEvent], None]) -> Callable[[], None]:
        """See `BaseBroker.subscribe`. After a gap follows what Alpaca shows of that time."""
        return self._records.events.subscribe(callback)

    def _asset(self, request: OrderRequest) -> str:
        now = datetime.now(UTC)
        known = self._assets.get(request.symbol)
        if known is None or now - known[1] > ASSET_LIFE:
            found = self._ask(lambda: self._wire.client.get_asset(request.symbol), missing=True)
            if found is None:
                raise UnknownSymbol(request.symbol)
            known = self._assets[request.symbol] = (str(found.symbol), now)
        return known[0]
