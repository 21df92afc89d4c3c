"""One gateway's connection, as the broker interface sees it: start, stop, clock, health."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

from broker.base import BaseBroker, Capabilities
from broker.brokers.client_portal.book import OrderBook
from broker.brokers.client_portal.entry import OrderEntry
from broker.brokers.client_portal.market import Market
from broker.brokers.client_portal.pacing import Limits
from broker.brokers.client_portal.questions import Policy
from broker.brokers.client_portal.session import Session, check_mode
from broker.brokers.client_portal.stream import Watcher
from broker.brokers.client_portal.tls import Pin, check_url, context_for
from broker.brokers.client_portal.told import Told
from broker.brokers.client_portal.wire import OrderWire, Wire
from broker.brokers.link import State, unconnected
from broker.errors import (
    BrokerError,
)
from broker.journal import Journal
from broker.market.hours import clock_from_calendar, clock_from_sessions
from broker.models import (
    Clock,
    Health,
)
from broker.placement import Guard
from broker.stream import EventStream

log = logging.getLogger(__name__)

BASE_PATH = "/v1/api"
#: seconds that `connect` waits for its first attempt
CONNECT_WAIT = 30.0


class Running:
    """What exists from `start` to `disconnect`."""

    def __init__(self, session: Session, book: OrderBook, entry: OrderEntry, watcher: Watcher) -> None:
        self.session, self.book, self.entry, self.watcher = session, book, entry, watcher
        self.market = Market(session)

    def start(self, name: str) -> None:
        """Start the two threads: one keeps the session, one watches orders."""
        for work, what in ((self.session.run, "session"), (self.watcher.run, "watcher")):
            threading.Thread(target=work, name=f"{name}-{what}", daemon=True).start()

    def stop(self, reason: str) -> None:
        """End both."""
        self.watcher.stop()
        self.session.stop(reason)


class Connection(BaseBroker):
    """What `ClientPortalBroker` is built on."""

    name = "ibeam"
    capabilities = Capabilities(
        order_types=frozenset({"market", "limit", "stop", "stop_limit", "trailing_stop"}),
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

    def __init__(
        self,
        journal: Journal,
        *,
        url: str,
        ca_file: str = "",
        pin: Pin | None = None,
        token: str = "",
        account: str = "",
        trading_mode: str = "",
        confirm: frozenset[str] | None = None,
        take_over: bool = False,
        shared: bool = False,
        timeout: float = 15.0,
        heartbeat: float = 60.0,
        limits: Limits | None = None,
        websocket: bool = True,
        guard: Guard | None = None,
    ) -> None:
        """`url`: https://host:port; `ca_file`: PEM of its certificate or CA; `token`: for a proxy.

        `pin`: the one certificate that it may show, in place of `ca_file`.

        `confirm`: ids of the questions that are confirmed (see `questions`); `take_over`: take the session
        from another login of the user; `shared`: other processes use this gateway, too, with the same
        journal; `timeout` and `heartbeat` in seconds. Raises `ConfigurationError`.
        """
        check_url(url)
        self._context = context_for(ca_file, pin)
        check_mode(trading_mode)
        base = url.rstrip("/")
        self._url = base if base.endswith(BASE_PATH) else base + BASE_PATH
        self._journal, self._token = journal, token
        self._account, self._trading_mode = account, trading_mode
        self._policy, self._take_over, self._shared = Policy(confirm), take_over, shared
        self._timeout, self._heartbeat = timeout, heartbeat
        self._limits, self._websocket, self._guard = limits or Limits(), websocket, guard
        self._events = EventStream("ibeam-events")
        self._lock = threading.Lock()
        self._parts: Running | None = None
        self._stopped = unconnected()

    # Connecting

    def start(self) -> None:
        """Begin to connect, and go on for ever."""
        with self._lock:
            if self._parts is not None:
                return
            session = Session(
                Wire(self._url, self._context, token=self._token, timeout=self._timeout),
                OrderWire(self._url, self._context, token=self._token, timeout=self._timeout),
                account=self._account,
                trading_mode=self._trading_mode,
                limits=self._limits,
                heartbeat=self._heartbeat,
                take_over=self._take_over,
                # A gateway that is shared is a user's own, who can't change the service's settings.
                choose="PUT .../accounts/{account_id}/ib-account" if self._shared else "IBEAM_ACCOUNT_ID",
            )
            told = Told(self._journal, self._events, shared=self._shared)
            book = OrderBook(session, self._journal, told, self._limits)
            entry = OrderEntry(session, book, self._policy, self._journal)
            watcher = Watcher(session, book, websocket=self._websocket)
            self._parts = Running(session, book, entry, watcher)
            self._parts.start(self.name)

    def connect(self) -> bool:
        """True once connected. Raises `NotConnected` after a failed attempt; others follow by themselves."""
        self.start()
        session = self._running().session
        if not session.link.ok:
            session.attempted.wait(CONNECT_WAIT)
        session.require()
        return True

    def disconnect(self) -> None:
        """Stop asking and reconnecting. The gateway stays logged in, and orders stay as they are."""
        with self._lock:
            parts, self._parts = self._parts, None
            self._stopped = unconnected("disconnect() was called")
        if parts is not None:
            parts.stop("disconnect() was called")

    def _running(self) -> Running:
        parts = self._parts
        if parts is None:
            raise self._stopped.error()
        return parts

    def _ready(self) -> Running:
        parts = self._running()
        parts.session.require()
        return parts

    def clock(self) -> Clock:
        """The broker's own hours where it gives them, else the exchange's calendar. Needs no connection."""
        now, parts = datetime.now(UTC), self._parts
        if parts is not None and parts.session.link.ok:
            try:
                told = clock_from_sessions(parts.market.hours(), now)
            except BrokerError as failure:
                log.info("the broker's hours can't be read now: %s", failure.message)
            else:
                return told or clock_from_calendar(now)
        return clock_from_calendar(now)

    def health(self) -> Health:
        """See `BaseBroker.health`: tickle for the gateway, and the account's balances from beyond it."""
        parts = self._parts
        if parts is None:
            link = self._stopped
            return Health(
                False,
                link.state,
                link.since.isoformat(),
                link.reason,
                link.doing,
                details={"gateway": self._url},
            )
        session, proved = parts.session, None
        if session.link.ok:
            try:
                session.tickle.get()
                account = session.account
                session.portfolio(lambda w: w.portfolio_summary(account))
                proved = datetime.now(UTC).isoformat()
            except BrokerError as failure:
                log.info("the link can't be proved: %s", failure.message)
                if session.link.ok:
                    return self._described(parts, State.LINK_LOST, failure.message)
        return self._described(parts, proved_at=proved)

    def _described(
        self, parts: Running, state: str = "", reason: str = "", proved_at: str | None = None
    ) -> Health:
        link = parts.session.link
        return Health(
            ok=link.ok and not state,
            state=state or link.state,
            since=link.since.isoformat(),
            reason=reason or link.reason,
            doing=link.doing,
            proved_at=proved_at,
            round_trip_ms=round(parts.session.round_trip * 1000, 3) if proved_at else None,
            second_factor=link.state == State.SECOND_FACTOR,
            details={
                "gateway": self._url,
                "accounts": list(parts.session.accounts),
                "websocket": parts.watcher.live,
            },
        )
