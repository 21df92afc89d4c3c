"""The connection under `IBKRBroker`: making it, how it is, and how calls reach its loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import CancelledError
from datetime import UTC, datetime
from typing import Any, TypeVar

from broker.base import BaseBroker
from broker.brokers.ibkr import library
from broker.brokers.ibkr.desk import OrderDesk
from broker.brokers.ibkr.loop import LoopThread
from broker.brokers.ibkr.market import Market
from broker.brokers.ibkr.news import OrderNews
from broker.brokers.ibkr.resets import next_reset
from broker.brokers.ibkr.session import Session, SessionFailed
from broker.brokers.ibkr.signals import Shared, Signal
from broker.brokers.ibkr.supervisor import Supervisor
from broker.brokers.link import State, unconnected
from broker.errors import NotConnected
from broker.journal import Journal
from broker.market.hours import Session as MarketSession
from broker.models import Health, iso
from broker.placement import Guard, NothingKnown
from broker.risk.modes import Declared

log = logging.getLogger(__name__)

T = TypeVar("T")


class Connection(BaseBroker):
    """One gateway, one client id: connects, proves, loses and connects again by itself."""

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
        guard: Guard | None = None,
    ) -> None:
        """`trading_mode`: paper or live, must agree with the account; `timeout`: seconds per answer.

        `guard` may refuse orders (see `broker.placement.place`).
        """
        self._journal = journal
        self._host, self._port, self._client_id = host, port, client_id
        self._wanted_account, self._trading_mode = account, trading_mode
        self._timeout, self._heartbeat = timeout, heartbeat
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._desk = OrderDesk(client_id)
        self._news = OrderNews(journal, f"ibkr-{client_id}")
        self._guard = guard
        self._supervisor: Supervisor | None = None
        self._market: Market | None = None
        self._hours: list[MarketSession] = []
        self._hours_asked = Signal()
        #: asks TWS again for orders and fills, and brings the journal in line with them
        self._looking_up = Shared(self._look_all_up)
        self._stopped = unconnected()

    # Connecting

    def start(self) -> None:
        """Begin to connect, and go on for ever."""
        with self._lock:
            if self._thread is not None:
                return
            self._thread = LoopThread(f"ibkr-{self._client_id}")
            self._news.start()
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
        self._news.stop()

    async def _supervise(self) -> None:
        # Their locks belong to one loop, and each `start` makes another.
        self._desk, self._looking_up = OrderDesk(self._client_id), Shared(self._look_all_up)
        self._supervisor = Supervisor(
            self._open,
            self._news.reconcile,
            self._beside,
            self._news.new_book,
            client_id=self._client_id,
            timeout=self._timeout,
            heartbeat=self._heartbeat,
        )
        self._supervising = asyncio.create_task(self._supervisor.run(), name="supervisor")

    async def _open(self, session: Session) -> None:
        await session.open(self._host, self._port, self._wanted_account, self._check_mode)
        self._market = Market(session)

    async def _look_all_up(self) -> None:
        session = self._session()
        await session.refresh_orders()
        await self._news.settle(session)

    async def _beside(self, session: Session) -> None:
        """What goes on beside a connected session, and keeps nobody who connects waiting."""
        await asyncio.gather(self._news.watch_positions(session), self._ask_hours())

    async def _ask_hours(self) -> None:
        try:
            if self._market is not None:
                self._hours = await self._market.hours() or self._hours
        except NotConnected as failure:
            log.info("the broker's hours aren't known: %s", failure.reason)
        finally:
            self._hours_asked.set()

    def _check_mode(self, account: str) -> None:
        # IBKR's paper accounts begin with D (DU, DF); a wrong port must not lead to the other kind.
        is_paper = account.startswith("D")
        if self._trading_mode and is_paper != (self._trading_mode == "paper"):
            kind = "a paper" if is_paper else "a live"
            said = (
                f"{self._trading_mode} trading is configured, and the gateway is logged in to {kind} account"
            )
            raise SessionFailed(State.WRONG_ACCOUNT, said)

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
            "accounts": session.accounts,
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
        shown = Health(link.ok, link.state, since, link.reason, link.doing, details=details)
        shown.next_reset = iso(next_reset(datetime.now(UTC)))
        # A gateway that waits for its second factor says nothing of it: behind a forwarder (socat) it
        # looks as one that restarts, or isn't there. Only live logins need one.
        may_be_live = Declared("ibkr", self._trading_mode, port=self._port).settings_mode == "live"
        shown.second_factor = may_be_live and link.state in (State.NOT_LOGGED_IN, State.NO_API)
        return shown

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
        try:
            with self._explained():
                return thread.run(work)
        except CancelledError:  # another thread disconnected meanwhile
            raise self._stopped.error() from None

    def _call_sending(self, work: Coroutine[Any, Any, T]) -> T:
        """As `_call`, for what sends: when another thread disconnects meanwhile, nobody knows if it left."""
        thread = self._thread
        if thread is None:
            work.close()
            raise self._stopped.error()
        try:
            with self._explained():
                return thread.run(work)
        except CancelledError:
            raise NothingKnown("this process disconnected before the broker answered") from None

    async def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        thread = self._thread
        if thread is None:
            work.close()
            raise self._stopped.error()
        with self._explained():
            return await thread.wait(work)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """A connection that breaks under a call says as much as one that was down before it."""
        try:
            yield
        except NotConnected as failure:
            supervisor = self._supervisor
            link = supervisor.link if supervisor else self._stopped
            failure.since = failure.since if link.ok else link.since
            failure.doing = failure.doing or link.doing or "checking the connection"
            raise
