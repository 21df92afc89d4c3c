"""Interactive Brokers through a Client Portal gateway, behind the broker interface."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.brokers.client_portal.account import account_info, as_order, position_of, preview_of, symbol_of
from broker.brokers.client_portal.answers import number
from broker.brokers.client_portal.connection import Connection, Running
from broker.brokers.client_portal.entry import order_body
from broker.errors import (
    BrokerError,
    OrderNotCancellable,
    OrderNotFound,
    OrderNotReplaceable,
    OrderOutcomeUnknown,
)
from broker.models import (
    FINAL_STATUSES,
    AccountInfo,
    Fill,
    Order,
    OrderEvent,
    OrderPreview,
    OrderReport,
    OrderRequest,
    Position,
    Quote,
    Status,
    Timeline,
)
from broker.placement import NothingKnown, place, rejection, request_of
from broker.validation import check_client_order_id, check_order, check_replacement, check_symbol

log = logging.getLogger(__name__)

BASE_PATH = "/v1/api"
#: seconds that `connect` waits for its first attempt
CONNECT_WAIT = 30.0


class ClientPortalBroker(Connection):
    """One gateway, one login, its accounts. Several processes must not trade through one gateway at once."""

    # Questions

    def get_accounts(self) -> list[str]:
        """See `BaseBroker.get_accounts`."""
        return list(self._ready().session.accounts)

    def get_account(self, *, account: str = "") -> AccountInfo:
        """See `BaseBroker.get_account`. `last_equity` is the previous day's, where IBKR gives it."""
        session = self._ready().session
        account = self._one_of(session.accounts, account)
        return account_info(account, session.portfolio(lambda w: w.portfolio_summary(account)))

    def get_positions(self, *, account: str = "") -> list[Position]:
        """See `BaseBroker.get_positions`: from the path that isn't cached."""
        parts = self._ready()
        account = self._one_of(parts.session.accounts, account)
        rows = parts.session.portfolio(lambda w: w.get(f"portfolio2/{account}/positions"))
        held = [row for row in rows or [] if number(row.get("position"))]
        positions = [position_of(row, self._price_for(parts, row)) for row in held]
        return sorted(positions, key=lambda p: p.symbol)

    def _price_for(self, parts: Running, row: dict[str, Any]) -> float | None:
        """A price for a position that was just opened, which has none yet."""
        if number(row.get("marketPrice")):
            return None
        quote = parts.market.quote(symbol_of(row))
        return quote.last or quote.bid or quote.close

    def get_position(self, symbol: str, *, account: str = "") -> Position | None:
        """See `BaseBroker.get_position`."""
        symbol = check_symbol(symbol)
        return next((p for p in self.get_positions(account=account) if p.symbol == symbol), None)

    def get_quote(self, symbol: str) -> Quote:
        """See `BaseBroker.get_quote`; delayed prices where live ones aren't subscribed."""
        symbol = check_symbol(symbol)
        return self._ready().market.quote(symbol)

    # Orders

    def place_order(self, request: OrderRequest) -> Order:
        """See `BaseBroker.place_order`. A question that isn't in the list of confirmed ones refuses it."""
        return place(
            request,
            capabilities=self.capabilities,
            journal=self._journal,
            account=lambda: self._one_of(self._ready().session.accounts, request.account),
            prepare=lambda asked: self._ready().market.conid(asked.symbol),
            send=lambda order, conid: self._ready().entry.send(order, conid, self._journal.legs_of(order)),
            settle=lambda order: self._ready().book.settle(order),
            note=self._noted,
            guard=self._guard,
        )

    def _noted(self, order: Order, report: OrderReport) -> Order:
        noted = self._running().book.note(order, report)
        for leg in order.legs:  # one that IBKR took, and that can't be told from others
            self._journal.mark_unknown(leg, "its entry was answered, and the leg isn't found")
        return noted

    def get_order(self, order_id: str) -> Order:
        """See `BaseBroker.get_order`; read from IBKR while the order isn't final."""
        parts = self._ready()
        order = self._find(parts, lambda account: self._journal.get(account, order_id))
        return self._current(parts, order)

    def get_order_by_client_id(self, client_order_id: str) -> Order:
        """See `BaseBroker.get_order_by_client_id`."""
        wanted = check_client_order_id(client_order_id)
        parts = self._ready()

        def find(account: str) -> Order:
            found = self._journal.find(account, wanted)
            if found is None:
                raise OrderNotFound(f"no order has the client order id {wanted!a}")
            return found

        return self._current(parts, self._find(parts, find))

    def _find(self, parts: Running, find: Callable[[str], Order]) -> Order:
        missing: OrderNotFound | None = None
        for account in parts.session.accounts:
            try:
                return find(account)
            except OrderNotFound as nothing:
                missing = missing or nothing
        raise missing or OrderNotFound("this login has no account")

    def _current(self, parts: Running, order: Order) -> Order:
        if order.status in FINAL_STATUSES or order.status == Status.RECORDED:
            return order
        if order.status == Status.SENT and not order.permanent_id:
            return order  # the call that sends it has the conversation; it isn't lost yet
        return parts.book.settle(order)

    def get_order_timeline(self, order_id: str) -> Timeline:
        """See `BaseBroker.get_order_timeline`."""
        return self._journal.timeline(self.get_order(order_id))

    def get_orders_history(self, limit: int = 50) -> list[Order]:
        """See `BaseBroker.get_orders_history`. Orders of the session that others placed are among them."""
        parts = self._ready()
        if not parts.watcher.live:
            parts.book.whole_orders()
        found = [o for account in parts.session.accounts for o in self._journal.recent(account, limit)]
        return sorted(found, key=lambda o: o.created_at or "", reverse=True)[:limit]

    def cancel_order(self, order_id: str) -> bool:
        """See `BaseBroker.cancel_order`."""
        parts = self._ready()
        order = self._find(parts, lambda account: self._journal.get(account, order_id))
        if order.status not in FINAL_STATUSES and not order.permanent_id:
            order = parts.book.settle(order)
        if order.status in FINAL_STATUSES:
            raise OrderNotCancellable(f"the order is {order.status}", order)
        if not order.permanent_id:
            raise OrderNotCancellable("the broker doesn't show this order, so it can't be cancelled", order)
        parts.entry.cancel(order)
        return True

    def cancel_all_orders(self) -> list[Order]:
        """See `BaseBroker.cancel_all_orders`: of all accounts, those that others placed too."""
        parts = self._ready()
        parts.book.whole_orders()
        asked = [order for account in parts.session.accounts for order in self._journal.unsettled(account)]
        done = []
        for order in asked:
            try:
                self.cancel_order(order.id)
            except OrderNotCancellable as late:
                log.info("order %s isn't cancelled: %s", order.id, late.message)
            done.append(self._journal.get(order.account_id, order.id))
        return done

    def replace_order(
        self,
        order_id: str,
        *,
        qty: float | None = None,
        limit_price: float | None = None,
        stop_price: float | None = None,
        time_in_force: str | None = None,
    ) -> Order:
        """See `BaseBroker.replace_order`. IBKR changes an order in place: its id stays."""
        parts = self._ready()
        order = self.get_order(order_id)
        change = check_replacement(
            order,
            self.capabilities,
            qty=qty,
            limit_price=limit_price,
            stop_price=stop_price,
            time_in_force=time_in_force,
        )
        if order.status in FINAL_STATUSES:
            raise OrderNotReplaceable(f"the order is {order.status}", order)
        if not order.permanent_id:
            raise OrderNotReplaceable("the broker doesn't show this order, so it can't be changed", order)
        conid = parts.market.conid(order.symbol)
        wanted = replace(order, **change)  # type: ignore[arg-type]
        if self._guard is not None:
            self._guard(request_of(wanted), order.account_id)
        self._journal.begin_change(order.id, dict(change))
        try:
            report = parts.entry.replace(order, wanted, conid)
        except NothingKnown as silence:
            raise OrderOutcomeUnknown(str(silence), order) from silence
        except OrderNotReplaceable as refusal:
            refusal.order = self._journal.end_change(order.id, f"a change was refused: {refusal.message}")
            raise
        except BrokerError:
            self._journal.end_change(order.id)
            raise
        noted = parts.book.note(order, replace(report, **change))  # type: ignore[arg-type]
        return noted if noted.status in FINAL_STATUSES else self._journal.end_change(order.id)

    def preview_order(self, request: OrderRequest) -> OrderPreview:
        """See `BaseBroker.preview_order`."""
        request = check_order(request, self.capabilities)
        parts = self._ready()
        account = self._one_of(parts.session.accounts, request.account)
        conid = parts.market.conid(request.symbol)
        parts.market.start_data(conid)
        body = order_body(as_order(request, account), conid)
        path = f"iserver/account/{account}/orders/whatif"
        answer = parts.session.read(lambda w: w.post(path, params={"orders": [body]}))
        if not isinstance(answer, dict) or answer.get("error"):
            said = answer.get("error") if isinstance(answer, dict) else answer
            raise rejection(str(said)[:500])
        return preview_of(request, answer)

    def _resting_legs(self, symbol: str, side: str) -> list[Order]:
        return self._journal.resting_legs(self._ready().session.account, symbol, side)

    def get_fills(self, since: datetime | None = None, limit: int = 500) -> list[Fill]:
        """See `BaseBroker.get_fills`. IBKR itself tells those of seven days."""
        parts = self._ready()
        if not parts.watcher.live or not self._fills_complete(parts):
            parts.book.trades.get()
        fills = self._journal.fills
        found = [f for account in parts.session.accounts for f in fills.recent(account, since, limit)]
        return sorted(found, key=lambda f: f.time, reverse=True)[:limit]

    def _fills_complete(self, parts: Running) -> bool:
        """True if the fills that are known make up what recent orders say is filled."""
        now = datetime.now(UTC)
        for account in parts.session.accounts:
            for order in self._journal.changed_since(account, now - timedelta(days=1), 500):
                known = sum(fill.qty for fill in self._journal.fills.of_order(order.id))
                if order.filled_qty > known + 1e-6:
                    return False
        return True

    def subscribe(self, callback: Callable[[OrderEvent], None]) -> Callable[[], None]:
        """See `BaseBroker.subscribe`: by websocket, by polling while there is none."""
        return self._events.subscribe(callback)
