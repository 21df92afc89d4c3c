"""One process of the service, as far as the fleet goes: it may be killed, freeze, and lose its database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from broker.fleet.agents import TlsAgents
from broker.fleet.digitalocean import Budget, PydoDroplets
from broker.fleet.enrolment import Enroller
from broker.fleet.keys import FleetKeys
from broker.fleet.reconciler import FleetSettings, Pass, Reconciler
from broker.fleet.repository import FleetLease, Repository
from broker.fleet.spec import DropletSettings
from broker.fleet.vault import Vault
from soak.fleet.boundary import Boundary, Killed
from soak.fleet.clock import Clock
from soak.fleet.team import STACK, Team

#: a pass that takes longer hangs, in real seconds
HANGS = 120.0

#: what a mutant does to the parts of a process before it starts
Mutate = Callable[["Instance"], None]


class ClockedLease(FleetLease):
    """The lease of a process whose clock is the soak's."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        super().__init__(engine, STACK)
        self._now = clock.read

    def take(self, clock: Callable[[], float] | None = None) -> bool:
        """See FleetLease."""
        return super().take(clock or self._now)

    def held(self, clock: Callable[[], float] | None = None) -> bool:
        """See FleetLease."""
        return super().held(clock or self._now)


class Instance:
    """A process from its start to its end."""

    def __init__(
        self, engine: Engine, vault: Vault, team: Team, alarms: list[tuple[str, str]], mutate: Mutate
    ) -> None:
        keys = FleetKeys(engine, vault)
        self.boundary = Boundary()
        self.repository: Any = Repository(engine, vault, keys)
        self.budget = Budget(clock=team.clock.read)
        self.droplets: Any = PydoDroplets(team.token, team.url, self.budget, 10, team.clock.read)
        self.agents: Any = TlsAgents(keys.sign, timeout=5, port=team.agent_port)
        mutate(self)
        settings = FleetSettings(
            STACK,
            "https://service.example",
            keys.push_key,
            DropletSettings("203.0.113.9"),
            probes=4,
            steps=2,
        )

        def alarm(kind: str, said: str) -> None:
            alarms.append((kind, said))

        self.reconciler = Reconciler(
            settings,
            self.boundary.around(self.repository),
            self.boundary.around(self.droplets),
            self.boundary.around(self.agents),
            ClockedLease(engine, team.clock),
            alarm,
        )
        self.enroller = Enroller(self.repository, self.droplets, self.agents, alarm)
        self._thread: threading.Thread | None = None
        self.told: Pass | None = None
        self.failed: BaseException | None = None

    def frozen(self) -> bool:
        """Whether a pass hangs in the middle."""
        return self.boundary.frozen.is_set()

    def run_pass(self, kill: int = 0, freeze: int = 0, only: str = "") -> Pass | None:
        """A pass until it ends, is killed, or freezes at that point (see Boundary); what it told, if it did.

        Raises what isn't a process's end or a database that is away, and TimeoutError.
        """
        self.told = self.failed = None
        self.boundary.end_at(kill, freeze, only)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self._wait()

    def go_on(self) -> Pass | None:
        """A frozen process wakes up and goes on with its pass."""
        self.boundary.wake()
        return self._wait()

    def _run(self) -> None:
        try:
            self.told = self.reconciler.run_pass()
        except BaseException as failure:
            self.failed = failure

    def _wait(self) -> Pass | None:
        assert self._thread is not None
        waited = 0.0
        while self._thread.is_alive() and not self.frozen():
            self._thread.join(0.02)
            waited += 0.02
            if waited > HANGS:
                raise TimeoutError("a pass hangs")
        if self.failed is not None and not isinstance(self.failed, Killed | SQLAlchemyError):
            raise self.failed
        return self.told

    def end(self) -> None:
        """The process is killed, if it isn't dead yet."""
        self.boundary.kill()
        if self._thread is not None:
            self._thread.join(HANGS)
