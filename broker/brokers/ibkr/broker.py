"""Interactive Brokers through IB Gateway, behind the broker interface."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from broker.base import BaseBroker, Capabilities
from broker.brokers.ibkr import library
from broker.brokers.ibkr.account import REQUIRED, account_info, balances, position_of
from broker.brokers.ibkr.desk import OrderDesk
from broker.brokers.ibkr.link import State, unconnected
from broker.brokers.ibkr.loop import LoopThread
from broker.brokers.ibkr.market import Market
from broker.brokers.ibkr.session import Session, SessionFailed
from broker.brokers.ibkr.supervisor import Supervisor
from broker.errors import MarketDataUnavailable, NotConnected, OrderNotCancellable
from broker.journal import Journal
from broker.market.hours import Session as MarketSession
from broker.market.hours import clock_from_calendar, clock_from_sessions
from broker.models import (
    FINAL_STATUSES,
    AccountInfo,
    Clock,
    Health,
    Order,
    OrderReport,
    OrderRequest,
    Position,
    Quote,
    Status,
    iso,
)
from broker.placement import place
from broker.validation import check_symbol

log = logging.getLogger(__name__)

T = TypeVar("T")

#: seconds to wait for the portfolio row of a position that was just opened
PORTFOLIO_WAIT = 2.0


class IBKRBroker(BaseBroker):
    """One trading connection: one gateway, one client id, one account."""

    name = "ibkr"
    capabilities = Capabilities(quotes=True, exclusive=True)

    def __init__(
        self,
        journal: Journal,
        *,
        host: str = "127.0.0.1",
        port: int = 4001,
        client_id: int = 1,
        account: str = "",
        trading_mode: str = "",
        timeout: float = 8.0,
        heartbeat: float = 30.0,
    ) -> None:
        """`trading_mode`: paper or live, must agree with the account; `timeout`: seconds per answer."""
        self._journal = journal
        self._host, self._port, self._client_id = host, port, client_id
        self._wanted_account, self._trading_mode = account, trading_mode
        self._timeout, self._heartbeat = timeout, heartbeat
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._desk = OrderDesk(journal, client_id)
        self._supervisor: Supervisor | None = None
        self._market: Market | None = None
        self._hours: list[MarketSession] = []
        self._stopped = unconnected()

    # Connecting

    def start(self) -> None:
        """Begin to connect, and go on for ever."""
        with self._lock:
            if self._thread is not None:
                return
            self._thread = LoopThread(f"ibkr-{self._client_id}")
            self._desk.start()
            self._thread.run(self._supervise())

    def connect(self) -> bool:
        """True once connected. Raises `NotConnected` after a failed attempt; others follow by themselves."""
        self.start()
        supervisor = self._running()
        if not supervisor.link.ok:
            self._call(supervisor.first_attempt.wait())
        if not supervisor.link.ok:
            raise supervisor.link.error()
        return True

    def disconnect(self) -> None:
        """Close the connection and stop reconnecting."""
        with self._lock:
            thread = self._thread
            self._thread = self._supervisor = self._market = None
            self._stopped = unconnected("disconnect() was called")
        if thread is not None:
            thread.stop()  # cancelling the supervisor closes its session
        self._desk.stop()

    async def _supervise(self) -> None:
        self._supervisor = Supervisor(
            self._open,
            self._desk.reconcile,
            self._desk.changed,
            client_id=self._client_id,
            timeout=self._timeout,
            heartbeat=self._heartbeat,
        )
        self._supervising = asyncio.create_task(self._supervisor.run(), name="supervisor")

    async def _open(self, session: Session) -> None:
        await session.open(self._host, self._port, self._wanted_account, self._check_mode)
        self._market = Market(session)
        self._hours = await self._market.hours() or self._hours

    def _check_mode(self, account: str) -> None:
        # IBKR's paper accounts begin with D (DU, DF); a wrong port must not lead to the other kind.
        is_paper = account.startswith("D")
        if self._trading_mode and is_paper != (self._trading_mode == "paper"):
            kind = "a paper" if is_paper else "a live"
            said = (
                f"{self._trading_mode} trading is configured, and the gateway is logged in to {kind} account"
            )
            raise SessionFailed(State.DISCONNECTED, said)

    # Questions

    def get_account(self) -> AccountInfo:
        """See `BaseBroker.get_account`. `last_equity` is the previous day's, where IBKR gives it."""
        return self._call(self._get_account())

    async def get_account_async(self) -> AccountInfo:
        """See `BaseBroker.get_account`."""
        return await self._wait(self._get_account())

    async def _get_account(self) -> AccountInfo:
        session = self._session()
        found = balances(session.ib.accountValues(session.account), session.account)
        if any(tag not in found for tag in REQUIRED):
            rows = await session.ask(session.ib.accountSummaryAsync(session.account))
            found |= balances(rows, session.account)
        self._session()  # the values of a connection that broke meanwhile aren't the account's
        return account_info(session.account, found)

    def get_positions(self) -> list[Position]:
        """See `BaseBroker.get_positions`."""
        return self._call(self._get_positions())

    async def get_positions_async(self) -> list[Position]:
        """See `BaseBroker.get_positions`."""
        return await self._wait(self._get_positions())

    async def _get_positions(self) -> list[Position]:
        session = self._session()
        held = [p for p in session.ib.positions(session.account) if p.position]
        items = await self._priced(session, {p.contract.conId for p in held})
        found = [await self._position(p, items.get(p.contract.conId)) for p in held]
        self._session()  # an empty answer of a dead connection isn't "none"
        return sorted(found, key=lambda p: p.symbol)

    async def _priced(self, session: Session, wanted: set[int]) -> dict[int, Any]:
        """Portfolio rows with a price by contract id; those of new positions are waited for, a moment."""
        deadline = asyncio.get_running_loop().time() + PORTFOLIO_WAIT
        while True:
            rows = session.ib.portfolio(session.account)
            found = {row.contract.conId: row for row in rows if row.marketPrice > 0}
            if wanted <= found.keys() or asyncio.get_running_loop().time() > deadline:
                return found
            updated = asyncio.ensure_future(_next(session.ib.updatePortfolioEvent))
            await asyncio.wait({updated}, timeout=0.1)
            updated.cancel()
            self._session()

    async def _position(self, held: Any, item: Any | None) -> Position:
        if item is not None:
            return position_of(held, item, float(item.marketPrice))
        quote = await self._live_market().quote(held.contract.symbol.replace(" ", "."))
        price = quote.last or quote.bid or quote.close
        if price is None:
            raise MarketDataUnavailable(f"no price of {quote.symbol}")
        return position_of(held, None, price)

    def get_position(self, symbol: str) -> Position | None:
        """See `BaseBroker.get_position`."""
        symbol = check_symbol(symbol)
        return next((p for p in self.get_positions() if p.symbol == symbol), None)

    async def get_position_async(self, symbol: str) -> Position | None:
        """See `BaseBroker.get_position`."""
        symbol = check_symbol(symbol)
        return next((p for p in await self.get_positions_async() if p.symbol == symbol), None)

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
        now = datetime.now(UTC)
        return clock_from_sessions(self._hours, now) or clock_from_calendar(now)

    # Health

    def health(self) -> Health:
        """See `BaseBroker.health`: a round trip to the gateway, and an answer from beyond it."""
        if self._supervisor is None:
            return self._described()
        return self._call(self._prove())

    async def health_async(self) -> Health:
        """See `BaseBroker.health`."""
        if self._supervisor is None:
            return self._described()
        return await self._wait(self._prove())

    async def _prove(self) -> Health:
        supervisor = self._running()
        session = supervisor.session
        if session is None or not supervisor.link.ok:
            return self._described()
        try:
            round_trip = await session.ping()
            await session.prove()
        except NotConnected as failure:
            shown = self._described()
            shown.ok, shown.reason = False, shown.reason or failure.reason
            shown.state = State.LINK_LOST if shown.state == State.CONNECTED else shown.state
            shown.doing = shown.doing or "proving the link again with the next heartbeat"
            return shown
        shown = self._described()
        shown.round_trip_ms = round(round_trip * 1000, 3)
        shown.proved_at = iso(session.proved_at)
        shown.details |= {
            "account": session.account,
            "session_since": iso(session.since),
            "troubles": sorted(session.farm_troubles.values()),
        }
        return shown

    def _described(self) -> Health:
        supervisor = self._supervisor
        link = supervisor.link if supervisor else self._stopped
        details = {
            "gateway": f"{self._host}:{self._port}",
            "client_id": self._client_id,
            "library": f"{library.NAME} {library.VERSION}",
        }
        since = link.since.isoformat()
        return Health(link.ok, link.state, since, link.reason, link.doing, details=details)

    # Orders

    def place_order(self, request: OrderRequest) -> Order:
        """See `BaseBroker.place_order`."""
        return place(
            request,
            capabilities=self.capabilities,
            journal=self._journal,
            account=lambda: self._session().account,
            prepare=lambda asked: self._call(self._contract(asked.symbol)),
            send=lambda order, contract: self._call(self._send(order, contract)),
            settle=self._look_up,
            note=self._desk.noted,
        )

    async def _contract(self, symbol: str) -> Any:
        return await self._live_market().contract(symbol)

    async def _send(self, order: Order, contract: Any) -> OrderReport:
        return await self._desk.send(self._session(), order, contract)

    def get_order(self, order_id: str) -> Order:
        """See `BaseBroker.get_order`."""
        session = self._session()
        self._desk.flush()
        order = self._journal.get(session.account, order_id)
        return self._look_up(order) if order.status == Status.UNKNOWN else order

    def _look_up(self, order: Order) -> Order:
        session = self._session()
        self._call(session.refresh_orders())
        self._call(self._desk.reconcile(session))
        return self._journal.get(session.account, order.id)

    def get_orders_history(self, limit: int = 50) -> list[Order]:
        """See `BaseBroker.get_orders_history`. Orders of the day that others placed are among them."""
        session = self._session()
        self._desk.flush()
        return self._journal.recent(session.account, limit)

    def cancel_order(self, order_id: str) -> bool:
        """See `BaseBroker.cancel_order`. TWS lets a client id cancel its own orders only."""
        order = self.get_order(order_id)
        if order.status in FINAL_STATUSES:
            raise OrderNotCancellable(f"the order is {order.status}", order)
        self._call(self._cancel(order))
        self._desk.flush()
        return True

    async def _cancel(self, order: Order) -> None:
        await self._desk.cancel(self._session(), order)

    # How calls reach the loop

    def _running(self) -> Supervisor:
        supervisor = self._supervisor
        if supervisor is None:
            raise self._stopped.error()
        return supervisor

    def _session(self) -> Session:
        supervisor = self._running()
        session = supervisor.session
        if session is None or session.lost.is_set() or not supervisor.link.ok:
            raise supervisor.link.error()
        return session

    def _live_market(self) -> Market:
        self._session()
        assert self._market is not None  # made when the session was opened
        return self._market

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        thread = self._thread
        if thread is None:
            work.close()
            raise self._stopped.error()
        return thread.run(work)

    async def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        thread = self._thread
        if thread is None:
            work.close()
            raise self._stopped.error()
        return await thread.wait(work)


async def _next(event: Any) -> None:
    await event
