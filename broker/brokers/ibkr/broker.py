"""Interactive Brokers through IB Gateway, behind the broker interface."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from broker.base import Capabilities
from broker.brokers.ibkr.account import REQUIRED, account_info, balances, position_of
from broker.brokers.ibkr.connection import Connection
from broker.brokers.ibkr.order_types import TWS_TYPES
from broker.brokers.ibkr.session import Session
from broker.brokers.ibkr.signals import first
from broker.errors import (
    BrokerError,
    InvalidRequest,
    MarketDataUnavailable,
    OrderNotCancellable,
    OrderNotFound,
    OrderNotReplaceable,
    OrderOutcomeUnknown,
    field_problem,
)
from broker.journal_rows import reported
from broker.market.hours import clock_from_calendar, clock_from_sessions
from broker.models import (
    ACKNOWLEDGED_STATUSES,
    FINAL_STATUSES,
    AccountInfo,
    Clock,
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
from broker.placement import NothingKnown, judged_change, place
from broker.validation import check_client_order_id, check_order, check_symbol


class IBKRBroker(Connection):
    """One trading connection: one gateway, one client id, one account of its own, and the login's others."""

    name = "ibkr"
    capabilities = Capabilities(
        order_types=frozenset(TWS_TYPES),
        times_in_force=frozenset({"day", "gtc", "ioc", "fok"}),
        quotes=True,
        exclusive=True,
        replace=True,
        preview=True,
        fills=True,
        stream=True,
        several_accounts=True,
        bracket=True,
        extended_hours=True,
    )

    # Questions

    def get_accounts(self) -> list[str]:
        """See `BaseBroker.get_accounts`."""
        session = self._session()
        return [session.account, *(a for a in session.accounts if a != session.account)]

    def get_account(self, *, account: str = "") -> AccountInfo:
        """See `BaseBroker.get_account`. `last_equity` is the previous day's, where IBKR gives it.

        `account`: another one of the login's than the connection's own.
        """
        return self._call(self._get_account(account))

    async def get_account_async(self, *, account: str = "") -> AccountInfo:
        """See `BaseBroker.get_account`."""
        return await self._wait(self._get_account(account))

    async def _get_account(self, asked: str) -> AccountInfo:
        session = self._session()
        account = _chosen(session, asked)
        # Account updates come for one account, the connection's own.
        found = balances(session.ib.accountValues(account), account) if account == session.account else {}
        if any(tag not in found for tag in REQUIRED):
            rows = await session.ask(session.ib.accountSummaryAsync(account))
            found |= balances(rows, account)
        self._session()  # the values of a connection that broke meanwhile aren't the account's
        return account_info(account, found)

    def get_positions(self, *, account: str = "") -> list[Position]:
        """See `BaseBroker.get_positions`. `account`: another one of the login's."""
        session = self._session()
        if _chosen(session, account) == session.account:
            kept = session.holdings.kept()
            if kept is not None:
                self._session()  # what a connection that broke meanwhile keeps isn't the account's
                return kept
        return self._call(self._get_positions(account))

    async def get_positions_async(self, *, account: str = "") -> list[Position]:
        """See `BaseBroker.get_positions`."""
        return await self._wait(self._get_positions(account))

    async def _get_positions(self, asked: str) -> list[Position]:
        session = self._session()
        account = _chosen(session, asked)
        if account == session.account:
            found, bare = await session.holdings.read(session)
        else:  # the portfolio, which knows prices, is the connection's own account's only
            found, bare = [], [p for p in session.ib.positions(account) if p.position]
        found += [await self._quoted(held) for held in bare]
        self._session()  # an empty answer of a dead connection isn't "none"
        return sorted(found, key=lambda p: p.symbol)

    async def _quoted(self, held: Any) -> Position:
        quote = await self._live_market().quote(held.contract.symbol.replace(" ", "."))
        price = quote.last or quote.bid or quote.close
        if price is None:
            raise MarketDataUnavailable(f"no price of {quote.symbol}")
        return position_of(held, None, price)

    def get_position(self, symbol: str, *, account: str = "") -> Position | None:
        """See `BaseBroker.get_position`."""
        symbol = check_symbol(symbol)
        return next((p for p in self.get_positions(account=account) if p.symbol == symbol), None)

    async def get_position_async(self, symbol: str, *, account: str = "") -> Position | None:
        """See `BaseBroker.get_position`."""
        symbol = check_symbol(symbol)
        found = await self.get_positions_async(account=account)
        return next((p for p in found if p.symbol == symbol), None)

    def get_quote(self, symbol: str) -> Quote:
        """See `BaseBroker.get_quote`; delayed prices where live ones aren't subscribed."""
        return self._call(self._get_quote(check_symbol(symbol)))

    async def get_quote_async(self, symbol: str) -> Quote:
        """See `BaseBroker.get_quote`."""
        return await self._wait(self._get_quote(check_symbol(symbol)))

    async def _get_quote(self, symbol: str) -> Quote:
        return await self._live_market().quote(symbol)

    def clock(self) -> Clock:
        """The broker's own hours where it gave them, else the exchange's calendar. Needs no connection."""
        supervisor = self._supervisor
        if supervisor is not None and supervisor.link.ok and not self._hours_asked.is_set():
            self._call(self._hours_known())  # it was asked for when the connection came up
        now = datetime.now(UTC)
        return clock_from_sessions(self._hours, now) or clock_from_calendar(now)

    async def _hours_known(self) -> None:
        await first(self._hours_asked, timeout=self._timeout)

    # Orders

    def place_order(self, request: OrderRequest) -> Order:
        """See `BaseBroker.place_order`."""
        if self._guard is not None:
            self._news.flush()  # the limits count what has filled
        return place(
            request,
            capabilities=self.capabilities,
            journal=self._journal,
            account=lambda: _chosen(self._session(), request.account),
            prepare=lambda asked: self._known_contract(asked.symbol),
            send=lambda order, contract: self._call_sending(
                self._send(order, contract, self._journal.legs_of(order))
            ),
            settle=self._look_up,
            note=self._noted,
            guard=self._guard,
        )

    def _known_contract(self, symbol: str) -> Any:
        return self._live_market().known(symbol) or self._call(self._contract(symbol))

    async def _contract(self, symbol: str) -> Any:
        return await self._live_market().contract(symbol)

    async def _send(self, order: Order, contract: Any, legs: list[Order]) -> OrderReport:
        return await self._desk.send(self._session(), order, contract, legs)

    def _noted(self, order: Order, report: OrderReport) -> Order:
        # What TWS said is on its way to the journal already. If the process dies before it is there, the
        # next one finds the order at TWS, unless it was refused: TWS may not tell of that again.
        if report.status != Status.REJECTED and not order.legs:
            return reported(order, report)
        self._news.flush()
        for leg in order.legs:  # one that TWS said nothing of
            self._journal.mark_unknown(leg, "its entry was answered, and the leg wasn't")
        return self._journal.get(order.account_id, order.id)

    def get_order(self, order_id: str) -> Order:
        """See `BaseBroker.get_order`."""
        session = self._session()
        self._news.flush()
        order = self._of_any_account(session, order_id)
        return self._look_up(order) if order.status == Status.UNKNOWN else order

    def get_order_by_client_id(self, client_order_id: str) -> Order:
        """See `BaseBroker.get_order_by_client_id`; the connection's own account's first."""
        client_order_id = check_client_order_id(client_order_id)
        session = self._session()
        self._news.flush()
        for account in self.get_accounts():
            order = self._journal.find(account, client_order_id)
            if order is not None:
                return self._look_up(order) if order.status == Status.UNKNOWN else order
        self._session()
        raise OrderNotFound(f"no order of {session.account} has the client order id {client_order_id!a}")

    def _of_any_account(self, session: Session, order_id: str) -> Order:
        for account in session.accounts:
            if account != session.account:
                try:
                    return self._journal.get(account, order_id)
                except OrderNotFound:
                    pass  # it may be another account's
        return self._journal.get(session.account, order_id)

    def _look_up(self, order: Order) -> Order:
        self._session()
        self._call(self._looking_up())
        return self._journal.get(order.account_id, order.id)

    def get_order_timeline(self, order_id: str) -> Timeline:
        """See `BaseBroker.get_order_timeline`."""
        return self._journal.timeline(self.get_order(order_id))

    def get_orders_history(self, limit: int = 50) -> list[Order]:
        """See `BaseBroker.get_orders_history`. Orders of the day that others placed are among them."""
        self._news.flush()
        found = [self._journal.recent(account, limit) for account in self.get_accounts()]
        return list(heapq.merge(*found, key=lambda o: o.created_at or "", reverse=True))[:limit]

    def cancel_order(self, order_id: str) -> bool:
        """See `BaseBroker.cancel_order`. TWS lets a client id cancel its own orders only."""
        order = self.get_order(order_id)
        if order.status in FINAL_STATUSES:
            raise OrderNotCancellable(f"the order is {order.status}", order)
        self._call(self._cancel(order))
        self._news.flush()
        return True

    async def _cancel(self, order: Order) -> None:
        await self._desk.cancel(self._session(), order)

    def cancel_all_orders(self, *, everyones: bool = False) -> list[Order]:
        """See `BaseBroker.cancel_all_orders`.

        `everyones`: the orders of other client ids and of people at their screens, too. The result
        holds those that the journal knows.
        """
        session = self._session()
        self._news.flush()
        working = [
            order
            for account in session.accounts
            for order in self._journal.unsettled(account)
            if order.status in ACKNOWLEDGED_STATUSES
        ]
        mine = [o for o in working if self._placed_here(session, o)]
        self._call(self._desk.cancel_all(session, working if everyones else mine, everyones=everyones))
        self._news.flush()
        return [self._journal.get(o.account_id, o.id) for o in (working if everyones else mine)]

    def _placed_here(self, session: Session, order: Order) -> bool:
        tracked = session.book.by_journal_id(order.id)
        return tracked is not None and tracked.client_id == self._client_id

    def replace_order(
        self,
        order_id: str,
        *,
        qty: float | None = None,
        limit_price: float | None = None,
        stop_price: float | None = None,
        time_in_force: str | None = None,
    ) -> Order:
        """See `BaseBroker.replace_order`. TWS changes an order in place, for the client id that placed it."""
        order = self.get_order(order_id)
        if order.status in FINAL_STATUSES:
            raise OrderNotReplaceable(f"the order is {order.status}", order)
        wanted, change = judged_change(
            order,
            self.capabilities,
            self._guard,
            qty=qty,
            limit_price=limit_price,
            stop_price=stop_price,
            time_in_force=time_in_force,
        )
        contract = self._known_contract(order.symbol)
        self._journal.begin_change(order.id, change)
        try:
            self._call_sending(self._change(wanted, contract, change))
        except NothingKnown as silence:
            # Which of the two it works as is told by its next status; until then the change stays open.
            said = f"the change may have arrived: {silence}"
            raise OrderOutcomeUnknown(said, self._journal.get(order.account_id, order.id)) from silence
        except OrderNotReplaceable as refusal:
            self._news.flush()
            refusal.order = self._journal.end_change(order.id, f"a change was refused: {refusal.message}")
            raise
        except BrokerError:
            self._journal.end_change(order.id)
            raise
        self._news.flush()
        return self._journal.end_change(order.id)

    async def _change(self, wanted: Order, contract: Any, change: dict[str, float | str]) -> None:
        await self._desk.replace(self._session(), wanted, contract, change)

    def _resting_legs(self, symbol: str, side: str) -> list[Order]:
        return self._journal.resting_legs(self._session().account, symbol, side)

    def get_fills(self, since: datetime | None = None, limit: int = 500) -> list[Fill]:
        """See `BaseBroker.get_fills`. Fills of the day that others caused are among them."""
        session = self._session()
        self._news.flush()
        found = [self._journal.fills.recent(account, since, limit) for account in session.accounts]
        return list(heapq.merge(*found, key=lambda f: f.time, reverse=True))[:limit]

    def preview_order(self, request: OrderRequest) -> OrderPreview:
        """See `BaseBroker.preview_order`: TWS's what-if."""
        request = check_order(request, self.capabilities)
        return self._call(self._preview(request))

    async def _preview(self, request: OrderRequest) -> OrderPreview:
        session = self._session()
        _chosen(session, request.account)
        contract = await self._live_market().contract(request.symbol)
        price = request.limit_price or request.stop_price
        if price is None:
            try:
                quote = await self._live_market().quote(request.symbol)
            except MarketDataUnavailable:
                pass  # the margins are worth knowing without it
            else:
                price = (quote.ask if request.side == "buy" else quote.bid) or quote.last or quote.close
        return await self._desk.preview(session, request, contract, price)

    def subscribe(self, callback: Callable[[OrderEvent], None]) -> Callable[[], None]:
        """See `BaseBroker.subscribe`. Events of the time before a reconnection follow after a gap."""
        return self._news.events.subscribe(callback)


def _chosen(session: Session, account: str) -> str:
    """The account asked for, or the connection's own. Raises `InvalidRequest`."""
    if account and account not in session.accounts:
        said = f"must be one of the login's accounts: {', '.join(session.accounts)}"
        raise InvalidRequest([field_problem("account", said, account)])
    return account or session.account
