"""Connections over users' own gateways: made at the first use, shared by all requests, ended when idle.

    connections = UserConnections(fleet, engine, settings, market, alerts)
    via = await connections.find("ib-paper-a1b2c3d4", who)

Any number of instances may have a connection to one gateway at once, without a lease. What makes that safe:
an order is sent by the one call whose transaction entered it in the journal, limits are decided under a lock
per account in that transaction, and news is written down by whoever hears it first (`client_portal.told`).
IBKR's limits, and the gateway's one conversation about an order, are kept by the droplet's agent, through
which all requests of a gateway go. (Without it, of two orders at one moment IBKR would forget its question
about one: that one is refused, and nothing was placed.)

Whoever asks for an account that isn't theirs, or isn't there, gets the same answer after the same work.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from broker.alerts import Alerts
from broker.base import BaseBroker
from broker.errors import AccountNotRunning, BrokerError, NotConnected
from broker.factory import BrokerSettings, build_broker
from broker.fleet.account import Account, State, Wanted
from broker.fleet.agents import PORT, Endpoint
from broker.fleet.repository import Conflict
from broker.journal import Journal
from broker.models import Health, Order
from broker.service.auth import Principal
from broker.service.connections import DRAIN_SECONDS, Connection
from broker.service.fleet import Fleet

log = structlog.get_logger("broker.service.user_connections")

#: seconds between looks at what has become of the accounts
WATCH_SECONDS = 2.0
#: seconds without a use after which a connection ends; shorter than any policy's (5 minutes), so that a
#: pass that asks the gateway for working orders is the only one that asks
IDLE_SECONDS = 240.0
#: seconds after which a use is written down again
TOUCH_SECONDS = 60.0
#: connections open at once in one instance: each has some threads
MOST_OPEN = 100
#: accounts whose orders are cancelled side by side, and the seconds that one may take
CANCELS, CANCEL_SECONDS = 8, 60.0

_ACCOUNTS = "/api/v1/brokers/interactivebrokers/accounts"


class UnknownAccount(Exception):
    """There is no such account for whoever asks."""


def runs(account: Account) -> bool:
    """Whether the account's gateway is logged in, and shall be."""
    return (account.wanted, account.status) == (Wanted.RUNNING, State.RUNNING)


def not_running(account: Account) -> AccountNotRunning:
    """What says how an account is, and what to do."""
    said = account.message
    if account.wanted == Wanted.RUNNING and account.status in (State.PROVISIONING, State.INITIALIZING):
        doing = f"what the message asks for, else it goes on by itself: GET {_ACCOUNTS}/{account.id}/status"
    elif account.status == State.ERROR:
        doing = f"mend what the message names, then POST {_ACCOUNTS}/{account.id}/start"
    else:
        doing = f"to use it, POST {_ACCOUNTS}/{account.id}/start"
    if account.status == State.RUNNING:  # it is still there, and shall not be
        said = f"The account is {account.wanted}."
    return AccountNotRunning(said, account.status, account.status_reason, account.status_since, doing)


def settings_for(account: Account, endpoint: Endpoint, base: BrokerSettings) -> BrokerSettings:
    """The broker over an account's gateway; what else the service is set to holds for it too."""
    mode = "live" if account.environment == "live" else "paper"
    return replace(
        base,
        broker_type="ibeam",
        account=account.ib_account,
        trading_mode=mode,
        ibeam_url=f"https://{endpoint.address}:{PORT}",
        ibeam_ca_file="",
        ibeam_certificate=endpoint.certificate_sha256,
        ibeam_token=endpoint.token,
        ibeam_take_over=False,
        ibeam_shared=True,
        limits=base.user_limits[mode],  # type: ignore[index]
    )


class AwayConnection(Connection):
    """An account whose gateway doesn't run."""

    def __init__(self, account: Account, base: BrokerSettings, engine: Engine) -> None:
        nowhere = Endpoint("127.0.0.1", "0" * 64)
        super().__init__(settings_for(account, nowhere, base), Journal(engine), None)
        self.owner = account.user_id
        self._why = not_running(account)

    @property
    def broker(self) -> BaseBroker:
        """Raises `AccountNotRunning`."""
        raise self._why

    async def health(self) -> Health:
        """The account's status."""
        why = self._why
        return Health(
            False,
            why.account_status,
            why.since.isoformat(),
            why.reason,
            why.doing,
            second_factor=why.account_reason == "second_factor",
        )


class UserConnection(Connection):
    """The broker over one account's gateway."""

    def __init__(
        self,
        account: Account,
        settings: BrokerSettings,
        engine: Engine,
        market: Mapping[str, str],
        alerts: Alerts,
    ) -> None:
        """Opens nothing."""
        super().__init__(settings, Journal(engine), market)
        self.owner = account.user_id
        #: the account as it was seen last
        self.known = account
        self._broker = build_broker(settings, self._journal, alerts)
        self._unsubscribe = self._broker.subscribe(alerts.order_event)
        self.used_at = time.monotonic()
        self.touched_at = -math.inf

    @property
    def broker(self) -> BaseBroker:
        """The broker. Raises `AccountNotRunning`."""
        if not runs(self.known):
            raise not_running(self.known)
        self.used_at = time.monotonic()
        return self._broker

    async def health(self) -> Health:
        """The link to the gateway."""
        self.used_at = time.monotonic()
        return await self._broker.health_async()

    async def open(self) -> None:
        """Wait for the first attempt to connect; others follow by themselves."""
        with contextlib.suppress(NotConnected):
            await self._broker.connect_async()

    async def cancel_all(self) -> list[Order]:
        """Cancel all working orders. Raises what `broker` does, and `BrokerError`."""
        async with self.trading() as broker:
            return await broker.cancel_all_orders_async()

    @property
    def followed(self) -> bool:
        """Whether somebody listens to its events."""
        return self._events is not None and self._events.followed

    @property
    def resting(self) -> bool:
        """Whether nobody would miss it."""
        return not (self.followed or self._running or self._broker.busy)

    def still_of(self, account: Account) -> bool:
        """Whether it leads to the gateway that the account has now."""
        return _gateway(account) == _gateway(self.known)

    async def end(self, seconds: float) -> None:
        """End the streams, let what is under way finish, and disconnect."""
        self.end_streams()
        await self._drain(self._broker, seconds)
        self._unsubscribe()
        await self._broker.disconnect_async()


def _gateway(account: Account) -> tuple[object, ...]:
    """What a connection is made of."""
    return (
        account.do_droplet_id,
        account.do_ip_address,
        account.certificate_sha256,
        account.credentials_version,
        account.ib_account,
    )


class UserConnections:
    """The connections of one instance. To be used on one event loop."""

    def __init__(
        self,
        fleet: Fleet,
        engine: Engine,
        base: BrokerSettings,
        market: Mapping[str, str],
        alerts: Alerts,
    ) -> None:
        """`base`: what the service's own broker is set to."""
        self._fleet, self._engine, self._base = fleet, engine, base
        self._market, self._alerts = market, alerts
        self._open: dict[str, UserConnection] = {}
        self._opening: dict[str, asyncio.Task[UserConnection]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look at what becomes of the accounts."""
        self._watching = asyncio.create_task(self._watch(), name="user-connections")

    async def stop(self) -> None:
        """End all connections: orders under way get some seconds."""
        if self._watching is not None:
            self._watching.cancel()
        for opening in list(self._opening.values()):
            opening.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        for name in list(self._open):
            self._close(name, "the instance ends", DRAIN_SECONDS)
        if self._ending:  # among them those that ended before, and wait for an order
            await asyncio.wait(self._ending, timeout=DRAIN_SECONDS + 1)

    @property
    def open_connections(self) -> int:
        """How many gateways are connected to."""
        return len(self._open)

    def end_streams(self) -> None:
        """End all streams of order events: their clients find another instance."""
        for via in self._open.values():
            via.end_streams()

    async def find(self, account_id: str, who: Principal) -> Connection:
        """The connection of an account that `who` may see: its user's own, any for an operator.

        A use by its user is written down (`Repository.touch`). Raises `UnknownAccount`, `FleetAway`,
        `NotConnected` (no more connections here), `VaultError`, SQLAlchemyError.
        """
        via = self._open.get(account_id)
        if via is not None and _may_see(via.known, who):
            account: Account | None = via.known
        else:
            # The same statement whatever the reason is not to know it.
            asked = account_id if account_id.isprintable() else ""
            account = await self._fleet.call(self._fleet.repository.get, asked)
        if account is None or not _may_see(account, who):
            raise UnknownAccount(account_id)
        structlog.contextvars.bind_contextvars(account_id=account.id)
        if not runs(account):
            return AwayConnection(account, self._base, self._engine)
        via = await self._opened(account)
        if who.user == account.user_id:
            await self._touch(via)
        if not runs(via.known):
            return AwayConnection(via.known, self._base, self._engine)
        if self._open.get(account.id) is not via:
            raise _changed()
        return via

    async def cancel_all(self) -> AsyncIterator[tuple[str, list[Order] | str]]:
        """Cancel all working orders of all accounts: the orders, or why they aren't cancelled, by account."""
        free = asyncio.Semaphore(CANCELS)

        async def cancel(account: Account) -> tuple[str, list[Order] | str]:
            async with free:
                try:
                    async with asyncio.timeout(CANCEL_SECONDS):
                        via = await self._opened(account)
                        return account.id, await asyncio.shield(via.cancel_all())
                except BrokerError as failure:
                    return account.id, failure.message
                except TimeoutError:
                    return account.id, f"it wasn't done within {CANCEL_SECONDS:g} s"
                except Exception as failure:
                    # One account that can't be reached mustn't keep the others' orders working.
                    log.exception("an account's orders can't be cancelled", account_id=account.id)
                    return account.id, f"it failed: {type(failure).__name__}"

        found = await self._fleet.call(self._fleet.repository.to_reconcile)
        for account in found:
            if not runs(account):
                yield (
                    account.id,
                    f"orders at IBKR, if it has any, go on working: {not_running(account).reason}",
                )
        running = [asyncio.create_task(cancel(account)) for account in found if runs(account)]
        for done in asyncio.as_completed(running):
            yield await done

    # opening

    async def _opened(self, account: Account) -> UserConnection:
        """The open connection, or a new one, for all who wait for it."""
        via = self._open.get(account.id)
        if via is not None:
            return via
        opening = self._opening.get(account.id)
        if opening is None:
            await self._make_room()
            opening = self._opening.get(account.id)
        if opening is None:
            opening = asyncio.create_task(self._make(account), name=f"open-{account.id}")
            self._opening[account.id] = opening
            opening.add_done_callback(lambda _done: self._opening.pop(account.id, None))
        # One who goes away mustn't end it for the others.
        return await asyncio.shield(opening)

    async def _make(self, account: Account) -> UserConnection:
        try:
            endpoint = await self._fleet.ask(self._fleet.repository.endpoint, account)
        except Conflict:
            raise _changed() from None
        settings = settings_for(account, endpoint, self._base)
        made = UserConnection(account, settings, self._engine, self._market, self._alerts)
        try:
            await made.open()
        except BaseException:
            await asyncio.shield(made.end(0))
            raise
        self._open[account.id] = made
        log.info("connected to an account's gateway", account_id=account.id, open=len(self._open))
        return made

    async def _make_room(self) -> None:
        if len(self._open) + len(self._opening) < MOST_OPEN:
            return
        unused = sorted((via for via in self._open.values() if via.resting), key=lambda via: via.used_at)
        if not unused:
            raise NotConnected(
                f"this instance has as many connections to gateways as it may have ({MOST_OPEN})",
                doing="nothing: ask again in a moment",
                retry_after=5,
            )
        self._close(unused[0].known.id, "another account needs its place")

    async def _touch(self, via: UserConnection) -> None:
        """Write down that it is used, once in a while: a pass that wants to end its droplet sees it."""
        if time.monotonic() - via.touched_at < TOUCH_SECONDS:
            return
        via.touched_at = time.monotonic()
        try:
            account = await self._fleet.call(self._fleet.repository.touch, via.known.id)
        except SQLAlchemyError:
            via.touched_at = -math.inf
            raise
        if account is not None:
            self._seen(via, account)

    # ending

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self._look()
            except Exception as failure:
                log.warning("accounts can't be looked at now", reason=type(failure).__name__)

    async def _look(self) -> None:
        if not self._open:
            return
        known = await self._fleet.call(self._fleet.repository.several, list(self._open))
        now = time.monotonic()
        for name, via in list(self._open.items()):
            account = known.get(name)
            if self._open.get(name) is not via or (account and not self._seen(via, account)):
                continue
            if account is None:
                self._close(name, "the account is gone")
            elif via.followed:
                via.used_at = now
                await self._touch(via)
            elif via.resting and now - via.used_at > IDLE_SECONDS:
                self._close(name, "nobody uses it")

    def _seen(self, via: UserConnection, account: Account) -> bool:
        """Take over what an account is now; whether its connection stays."""
        name = account.id
        if self._open.get(name) is not via:
            return False
        if account.wanted != Wanted.RUNNING or account.status in (State.STOPPED, State.DELETED):
            via.known = account
            self._close(name, f"the account is {account.wanted}, its gateway {account.status}")
            return False
        if account.status_reason == "certificate_changed" or not via.still_of(account):
            via.known = account
            self._close(name, "the gateway, certificate, credentials or IBKR account are others now")
            return False
        via.known = account
        return True

    def _close(self, name: str, why: str, seconds: float = math.inf) -> None:
        """From now on a request gets a new connection; this one ends once nothing is under way."""
        via = self._open.pop(name)
        log.info("the connection to an account's gateway ends", account_id=name, reason=why)
        ending = asyncio.create_task(via.end(seconds), name=f"end-{name}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


def _changed() -> NotConnected:
    return NotConnected("the account's gateway has just changed", doing="nothing: ask again", retry_after=1)


def _may_see(account: Account, who: Principal) -> bool:
    if account.wanted == Wanted.DELETED or account.status == State.DELETED:
        return False
    return account.user_id == who.user or "operator" in who.roles
