"""What the service trades through: connections by id. `default` is the configured broker.

Where paper and live run side by side, the other one's id is its mode: `live`, or `paper`. The rest are users'
own gateways, see `user_connections`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

import structlog
from sqlalchemy import Engine

from broker.alerts import Alerts, AlertWatch
from broker.base import BaseBroker
from broker.brokers.client_portal.acceptance import GatewayCertificate, accept, look
from broker.errors import BrokerError, ConfigurationError, NotConnected, StandBy
from broker.factory import BrokerSettings, build_broker, second_gateway
from broker.journal import Journal
from broker.market.quotes import CachedQuotes, quote_source
from broker.models import AccountInfo, Health
from broker.risk.verification import Verification, verify
from broker.risk.wiring import declared, gateway
from broker.service.eventlog import EventLog
from broker.service.lease import LeaseKeeper, LeaseStore
from broker.service.settings import Settings

log = structlog.get_logger("broker.service.connections")

#: how long running orders may take to finish before the connection is handed over, in seconds
DRAIN_SECONDS = 10.0
#: seconds between looks at whether they have
LOOK = 0.02


class Connection(ABC):
    """One broker, for any number of requests."""

    #: the only user who may trade through it; empty: whoever has the role
    owner = ""

    def __init__(self, settings: BrokerSettings, journal: Journal, market: Mapping[str, str] | None) -> None:
        """`market`: the variables that decide where quotes come from; the broker's own without them."""
        self._settings = settings
        self._journal = journal
        self._market = market or {}
        self._quotes: CachedQuotes | None = None
        self._events: EventLog | None = None
        self._running = 0

    @property
    def broker_type(self) -> str:
        """Which broker it is: alpaca, ibkr, ibeam, simulated."""
        return self._settings.broker_type

    @property
    def mode(self) -> str:
        """`paper`, or `live` where the settings don't say paper for sure."""
        return declared(self._settings).settings_mode

    @property
    @abstractmethod
    def broker(self) -> BaseBroker:
        """The broker. Raises what says why it can't be used now."""

    @abstractmethod
    async def health(self) -> Health:
        """The broker's health, or why it isn't asked."""

    async def account(self) -> AccountInfo:
        """The account's balances. Raises as `broker` does, and what it raises."""
        return await self.broker.get_account_async()

    @property
    def quotes(self) -> CachedQuotes:
        """Prices from the configured source. Raises as `broker` does, and `ConfigurationError`."""
        broker = self.broker
        if self._quotes is None:
            self._quotes = quote_source(self._market, broker)
        return self._quotes

    @contextlib.asynccontextmanager
    async def trading(self) -> AsyncIterator[BaseBroker]:
        """The broker for an order: the connection doesn't end before it is done."""
        broker = self.broker
        self._running += 1
        try:
            yield broker
        finally:
            self._running -= 1

    async def verify(self, by: str, symbol: str) -> Verification:
        """Try the gateway and enter the result, see `broker.risk.verification`. Raises as `broker` does."""
        async with self.trading() as broker:
            found = gateway(self._settings), declared(self._settings)
            return await asyncio.to_thread(verify, broker, self._journal, *found, by, symbol)

    async def certificate(self) -> GatewayCertificate:
        """Which certificate the gateway shows, and which is pinned. Raises as `acceptance.look`."""
        return await asyncio.to_thread(look, self._settings, self._journal)

    async def accept_certificate(self, sha256: str, by: str) -> GatewayCertificate:
        """Pin the certificate that the gateway shows, if it is this one. Raises as `acceptance.accept`."""
        return await asyncio.to_thread(accept, self._settings, self._journal, sha256, by)

    def events(self) -> EventLog:
        """The broker's order events. Raises `UnsupportedOperation`, and what `broker` raises."""
        broker = self.broker
        if self._events is None:
            self._events = EventLog(broker)
        return self._events

    def end_streams(self) -> None:
        """End the streams of order events, for good: their clients find another instance."""
        if self._events is not None:
            self._events.close()

    async def _drain(self, broker: BaseBroker, seconds: float) -> None:
        """Return once no call is under way, not even one whose caller has gone away, or after `seconds`."""
        deadline = time.monotonic() + seconds
        # Calls end in threads, which set no event of the loop.
        while (self._running or broker.busy) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)


class DefaultConnection(Connection):
    """The configured broker, with what decides whether this process may use it."""

    def __init__(
        self,
        settings: BrokerSettings,
        engine: Engine,
        lease_seconds: float,
        market: Mapping[str, str] | None = None,
        alerts: Alerts | None = None,
        name: str = "default",
    ) -> None:
        """Builds the broker; a broker that isn't configured is a connection that says so."""
        super().__init__(settings, Journal(engine), market)
        self._broker: BaseBroker | None = None
        self._unconfigured: ConfigurationError | None = None
        self._since = datetime.now(UTC)
        self._lease: LeaseKeeper | None = None
        self._beginning: asyncio.Task[None] | None = None
        try:
            alerts = alerts or Alerts()
            self._broker = build_broker(settings, self._journal, alerts)
            self._watch = AlertWatch(self._broker, alerts, connection=name)
        except ConfigurationError as missing:
            log.error("the broker isn't configured", reason=missing.message)
            self._unconfigured = missing
            return
        if self._broker.capabilities.exclusive:
            name = f"{self._broker.name}:{settings.gateway_host}:{settings.gateway_port}:{settings.client_id}"
            store = LeaseStore(engine, name[:128], uuid.uuid4().hex, lease_seconds)
            self._lease = LeaseKeeper(store, lease_seconds, self._begin, self._end)

    async def start(self) -> None:
        """Begin to connect, at once or when the lease allows it."""
        if self._lease is not None:
            self._lease.start()
        elif self._broker is not None:
            # A broker that is slow to answer must not hold up the probes.
            self._beginning = asyncio.create_task(self._begin())
            await asyncio.wait({self._beginning}, timeout=1.0)

    async def stop(self) -> None:
        """Let running orders finish, disconnect, hand over."""
        self.end_streams()
        if self._lease is not None:
            await self._lease.stop()
        elif self._broker is not None:
            if self._beginning is not None:
                await self._beginning
            await self._end()

    @property
    def broker(self) -> BaseBroker:
        """The broker. Raises `ConfigurationError` (there is none), `StandBy` (another instance has it)."""
        if self._broker is None:
            raise self._unconfigured or ConfigurationError("no broker is configured")
        if self._lease is not None and not self._lease.held:
            raise StandBy(
                "another instance holds the trading connection",
                since=self._lease.since,
                doing=self._lease.doing,
                retry_after=2,
            )
        return self._broker

    async def health(self) -> Health:
        """The broker's health, or why it isn't asked."""
        try:
            broker = self.broker
        except StandBy as other:
            return Health(False, "stand_by", other.since.isoformat(), other.reason, other.doing)
        except ConfigurationError as missing:
            return Health(False, "not_configured", self._since.isoformat(), missing.message, "nothing")
        return await broker.health_async()

    async def _begin(self) -> None:
        assert self._broker is not None
        try:
            await asyncio.to_thread(self._broker.start)
        except NotConnected as away:
            log.warning("the broker is away", reason=away.reason)
        except BrokerError as failure:
            log.error("the broker can't be started", reason=failure.message)
        self._watch.start()

    async def _end(self) -> None:
        assert self._broker is not None
        self._watch.stop()
        await self._drain(self._broker, DRAIN_SECONDS)
        await self._broker.disconnect_async()
        if self._events is not None:
            # Its clients come again, and are told who holds the connection now.
            self._events.close()
            self._events = None


def own_connections(settings: Settings, engine: Engine, alerts: Alerts) -> dict[str, DefaultConnection]:
    """The service's own connections by id, none of them started."""
    found = {"default": settings.broker}
    second = second_gateway(settings.broker)
    if second is not None:
        found[second.trading_mode] = second
    lease = settings.service.lease_seconds
    return {
        name: DefaultConnection(broker, engine, lease, settings.market, alerts, name)
        for name, broker in found.items()
    }
