"""The fleet inside the service: its parts built from settings, started, woken and stopped.

    fleet = Fleet(settings, engine, alerts)
    await fleet.start()
    account = await fleet.call(fleet.repository.get, account_id)

The parts need the database (its keys are there), so a service that starts without one has a fleet that
isn't there yet: whoever asks for a part gets `FleetAway`, and it opens by itself once the database answers.
Blocking work runs in threads of the fleet's own, so that slow droplets can't hold up orders.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar, TypeVarTuple, Unpack

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from broker.alerts import Alerts
from broker.errors import ConfigurationError
from broker.fleet.__main__ import open_wrapper
from broker.fleet.agents import Agents, TlsAgents
from broker.fleet.digitalocean import Budget, Droplets, Priority, PydoDroplets, Room, Unavailable
from broker.fleet.enrolment import Enroller
from broker.fleet.keys import FleetKeys
from broker.fleet.limits import Limits
from broker.fleet.metrics import FleetMetrics
from broker.fleet.reconciler import FleetSettings, Pass, Reconciler
from broker.fleet.repository import FleetLease, Repository
from broker.fleet.runner import Runner
from broker.fleet.spec import droplet_size
from broker.fleet.status import Statuses
from broker.fleet.user_alerts import UserAlerts
from broker.fleet.vault import Vault, VaultError
from broker.fleet.wakes import ASKED, PASSED, Wakes
from broker.service.fleet_settings import FleetEnvironment

log = structlog.get_logger("broker.service.fleet")

#: how long the start of the service waits for the database, in seconds
START_SECONDS = 5.0
#: how long a check before a create holds, and how long a connect waits for one, in seconds
ROOM_SECONDS, ROOM_WAIT = 15.0, 5.0
#: Cloud Run ends an instance 10 s after SIGTERM, and requests get 4 of them
STOP_SECONDS = 3.0
RETRY_SECONDS = 2.0

_Given = TypeVarTuple("_Given")
_T = TypeVar("_T")


def open_vault(settings: FleetEnvironment) -> Vault:
    """The vault under the wrapping key that is set. Raises ConfigurationError when that can't be used."""
    try:
        return Vault(open_wrapper(settings.wrapping_key))
    except VaultError as wrong:
        raise ConfigurationError(f"FLEET_KEY_FILE, FLEET_KMS_KEY: {wrong}") from None


class FleetAway(Exception):
    """The fleet isn't open yet: why, since when."""

    def __init__(self, reason: str, since: datetime) -> None:
        super().__init__(reason)
        self.reason = reason
        self.since = since


@dataclass(frozen=True, slots=True)
class _Parts:
    repository: Repository
    droplets: Droplets
    agents: Agents
    reconciler: Reconciler
    enroller: Enroller
    runner: Runner
    lease: FleetLease
    wakes: Wakes
    user_alerts: UserAlerts


class Fleet:
    """One for a process. Everything is made by `start`; parts raise FleetAway until they are there."""

    def __init__(self, settings: FleetEnvironment, vault: Vault, engine: Engine, alerts: Alerts) -> None:
        """Opens nothing."""
        self.settings = settings
        self.metrics = FleetMetrics()
        self.statuses: Statuses[bytes] = Statuses()
        self.last_pass: Pass | None = None
        self.last_pass_at: datetime | None = None
        #: dollars a month by size, as DigitalOcean said lately
        self.prices: dict[str, float] = {}
        self._vault = vault
        self._budget = Budget()
        self.metrics.watch(self._budget)
        self._engine = engine
        self._alerts = alerts
        self._parts: _Parts | None = None
        self._stopped = False
        self._why = FleetAway("the fleet is being opened", datetime.now(UTC))
        self._opening: asyncio.Task[None] | None = None
        # Two kinds of threads: calls of the database are short, droplets may not answer for half a minute.
        self._quick = ThreadPoolExecutor(8, "fleet-database")
        self._slow = ThreadPoolExecutor(16, "fleet-network")
        self._rooms: dict[str, tuple[float, Room]] = {}
        self._asking = threading.Lock()

    # parts

    @property
    def _opened(self) -> _Parts:
        if self._parts is None:
            raise FleetAway(self._why.reason, self._why.since)
        return self._parts

    @property
    def repository(self) -> Repository:
        """The accounts. Raises FleetAway, as the others do."""
        return self._opened.repository

    @property
    def droplets(self) -> Droplets:
        """DigitalOcean."""
        return self._opened.droplets

    @property
    def agents(self) -> Agents:
        """The droplets' agents."""
        return self._opened.agents

    @property
    def reconciler(self) -> Reconciler:
        """What runs passes."""
        return self._opened.reconciler

    @property
    def enroller(self) -> Enroller:
        """What answers droplets that make themselves known."""
        return self._opened.enroller

    @property
    def runner(self) -> Runner:
        """What has passes run by itself."""
        return self._opened.runner

    @property
    def lease(self) -> FleetLease:
        """Whether this instance runs the passes."""
        return self._opened.lease

    @property
    def user_alerts(self) -> UserAlerts:
        """Where users are alerted of their accounts."""
        return self._opened.user_alerts

    # life

    async def start(self) -> None:
        """Opens the fleet and starts its passes; goes on with that by itself if the database is away."""
        self._opening = asyncio.create_task(self._open_until_it_works(), name="fleet-open")
        await asyncio.wait({self._opening}, timeout=START_SECONDS)

    async def stop(self) -> None:
        """No more passes; waits a few seconds for the one that runs, and gives the lease back."""
        if self._opening is not None:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._opening
        if self._parts is not None:
            await asyncio.to_thread(self._end, self._parts)
        self._stopped = True
        self._parts, self._why = None, FleetAway("this instance is shutting down", datetime.now(UTC))
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)

    def _end(self, parts: _Parts) -> None:
        parts.wakes.stop()
        if not parts.runner.stop(STOP_SECONDS):
            return  # the lease runs out by itself: a pass that still runs mustn't meet another instance's
        with contextlib.suppress(SQLAlchemyError):  # as above
            parts.lease.release()
            parts.wakes.tell(ASKED)  # another instance goes on at once

    async def _open_until_it_works(self) -> None:
        while True:
            try:
                self._parts = await asyncio.to_thread(self._open)
                self._parts.runner.start()
                self._parts.wakes.start()
                return
            except SQLAlchemyError as failure:
                reason = "the database can't be used"
                why = type(failure).__name__
            except Exception as failure:
                # Whoever asks isn't told more: the text may name keys and addresses.
                reason, why = "it can't be opened: an operator has to look at the log", str(failure)
            if reason != self._why.reason:
                log.error("the fleet isn't open", reason=reason, why=why)
                self._why = FleetAway(reason, datetime.now(UTC))
            await asyncio.sleep(RETRY_SECONDS)

    def _open(self) -> _Parts:
        settings, engine = self.settings, self._engine
        keys = FleetKeys(engine, self._vault)
        repository = Repository(engine, self._vault, keys)
        token = settings.digital_ocean_api_key.get_secret_value()
        droplets = PydoDroplets(token, settings.digital_ocean_api_url, self._budget)
        agents = TlsAgents(keys.sign)
        lease = FleetLease(engine, settings.stack)
        user_alerts = UserAlerts(engine, self._vault, settings.stack)
        reconciler = Reconciler(
            FleetSettings(settings.stack, settings.fleet_service_url, keys.push_key, settings.droplets),
            repository,
            droplets,
            agents,
            lease,
            self._alarm,
            self.metrics,
            user_alerts.tell,
        )
        runner = Runner(reconciler, self._budget, on_pass=self.passed)
        wakes = Wakes(engine, settings.stack, self._heard)
        enroller = Enroller(repository, droplets, agents, self._alarm, self.changed, self.metrics)
        return _Parts(repository, droplets, agents, reconciler, enroller, runner, lease, wakes, user_alerts)

    def _alarm(self, kind: str, text: str) -> None:
        self._alerts.notify(kind, text)

    # use

    async def call(self, work: Callable[[Unpack[_Given]], _T], *arguments: *_Given) -> _T:
        """Runs something short that blocks, such as a statement, in a thread."""
        return await self._in(self._quick, work, *arguments)

    async def ask(self, work: Callable[[Unpack[_Given]], _T], *arguments: *_Given) -> _T:
        """Runs something that may block for long, such as a droplet's answer, in a thread."""
        return await self._in(self._slow, work, *arguments)

    async def _in(
        self, threads: ThreadPoolExecutor, work: Callable[[Unpack[_Given]], _T], *given: *_Given
    ) -> _T:
        if self._stopped:
            raise FleetAway(self._why.reason, self._why.since)
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(work, *given))

    def changed(self, account_id: str = "") -> None:
        """A request has written an account: what is known of it is old, and a pass is due. Blocking.

        Without an id any may be meant. Other instances are told: one of them may be who runs passes.
        """
        self._heard(ASKED, account_id)
        self._opened.wakes.tell(ASKED, account_id)

    def passed(self, told: Pass) -> None:
        """A pass has run here. Blocking."""
        moved = bool(told.moving or (self.last_pass and self.last_pass.moving))
        if told.whole:
            self.last_pass, self.last_pass_at = told, datetime.now(UTC)
            if self._parts is not None:
                with contextlib.suppress(SQLAlchemyError):  # it is for looking at only
                    self._parts.lease.note_pass(told.figures())
        self.statuses.clear()
        if moved and self._parts is not None:
            self._parts.wakes.tell(PASSED)

    def pass_now(self) -> Pass | None:
        """A pass, as the scheduler asks for it; None if another instance runs them. Blocking."""
        told = self.reconciler.run_pass(Priority.BACKGROUND)
        if told is not None:
            self.passed(told)
        return told

    def _heard(self, what: str, account_id: str) -> None:
        if account_id:
            self.statuses.forget(account_id)
        else:
            self.statuses.clear()
        if what == ASKED:
            self.runner.wake()

    def room(self, environment: str) -> Room:
        """Whether a droplet could be made now, and for how much. Blocking; raises DigitalOceanError.

        Asked for once in some seconds and by one at a time, so that connects can use up neither
        DigitalOcean's request limit nor the threads.
        """
        size = self.size(environment)
        if not self._asking.acquire(timeout=ROOM_WAIT):
            raise Unavailable("DigitalOcean is slow to answer")
        try:
            until, room = self._rooms.get(size, (0.0, None))
            if room is None or time.monotonic() >= until:
                place = self.settings.droplets
                room = self.droplets.room(size, place.region, place.image, Priority.USER)
                self._rooms[size] = (time.monotonic() + ROOM_SECONDS, room)
                if room.price_monthly is not None:
                    self.prices[size] = room.price_monthly
            return room
        finally:
            self._asking.release()

    @property
    def calls_left(self) -> int:
        """Calls of DigitalOcean's API left in this hour."""
        return self._budget.left

    @property
    def droplets_left(self) -> int | None:
        """Droplets that could be made when DigitalOcean was asked last; None if this instance never asked."""
        return min((room.left for _, room in self._rooms.values()), default=None)

    @property
    def limits(self) -> Limits:
        """What one user may have and do."""
        return Limits(self.settings.fleet_accounts_per_user, self.settings.fleet_connects_per_hour)

    def size(self, environment: str) -> str:
        """The size of a new droplet."""
        return droplet_size(environment, self.settings.droplets)  # type: ignore[arg-type]
