"""What the parts of a pass share: its settings, what it found, and the rules that all of them keep."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from broker.alert_kinds import FLEET, USERS
from broker.fleet.account import Account
from broker.fleet.agents import Agents, Endpoint
from broker.fleet.decide import Patience
from broker.fleet.digitalocean import Droplets, Priority
from broker.fleet.metrics import FleetMetrics
from broker.fleet.repository import FleetLease, Repository
from broker.fleet.spec import DropletSettings

log = logging.getLogger(__name__)


STEADY_SECONDS = 6.0
"""For how long a pass asks gateways that run how they are: with all else it stays under 10 s."""


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """`service_url` is where droplets enrol; `push_key` the public half of the signing key.

    `probes` and `steps` are threads. A pass makes at most so many `deletions`, and asks gateways that run
    how they are for `steady_seconds`.
    """

    stack: str
    service_url: str
    push_key: str
    droplets: DropletSettings
    patience: Patience = field(default_factory=Patience)
    deletions: int = 10
    probes: int = 64
    steps: int = 8
    steady_seconds: float = STEADY_SECONDS


@dataclass(slots=True)
class Pass:
    """What a pass found and did."""

    began: float = 0.0
    seconds: float = 0.0
    accounts: int = 0
    droplets: int = 0
    deleted: int = 0
    held_back: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    probes: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0
    #: accounts that aren't where they shall be
    moving: int = 0
    problem: str = ""
    #: all accounts were looked at, not only those on the way
    whole: bool = True
    #: list calls
    lists: int = 0

    def figures(self) -> dict[str, object]:
        """What its log line says."""
        return {
            "seconds": round(self.seconds, 3),
            "accounts": self.accounts,
            "droplets": self.droplets,
            "moving": self.moving,
            "whole": self.whole,
            "quarantined": self.quarantined,
            "held_back": self.held_back,
            "problem": self.problem,
        }


class LeaseLost(Exception):
    """Another instance may be running passes: this one stops where it is."""


Alarm = Callable[[str, str], None]
Tell = Callable[[Account], bool]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a reconciler works with. `tokens` keeps gateways' tokens by account and credentials' version."""

    settings: FleetSettings
    repository: Repository
    droplets: Droplets
    agents: Agents
    lease: FleetLease
    alarm: Alarm
    metrics: FleetMetrics
    tokens: dict[tuple[str, int], str]
    tell: Tell


class Work:
    """One pass at work. Usable from several threads."""

    def __init__(self, parts: Parts, priority: Priority) -> None:
        self.settings = parts.settings
        self.repository = parts.repository
        self.droplets = parts.droplets
        self.agents = parts.agents
        self.alarm = parts.alarm
        self.metrics = parts.metrics
        self.priority = priority
        self.lock = threading.Lock()
        self.told = Pass(began=time.monotonic())
        self.now = parts.repository.now()
        self.tombstones: set[int] = set()
        self._lease = parts.lease
        self._tokens = parts.tokens
        self._tell = parts.tell

    def endpoint(self, account: Account) -> Endpoint:
        """Where the account's agent is. Raises VaultError, Conflict."""
        key = (account.id, account.credentials_version)
        token = self._tokens.get(key)
        if token is None:
            token = self.repository.endpoint(account).token
            self._tokens[key] = token
        return Endpoint(account.do_ip_address or "", account.certificate_sha256 or "", token)

    def change(self, account: Account, **values: Any) -> Account:
        """Writes, and tells people of a reason that has just begun."""
        written = self.moved(account, self.repository.change(account, **values))
        reason = written.status_reason
        if reason in FLEET and reason != account.status_reason:
            told = self._tell(written)
            if not told or reason not in USERS:
                self.alarm(reason, f"account {written.id}: {written.message}")
        return written

    def moved(self, before: Account, after: Account) -> Account:
        """Counts and logs a change of status; the account after it."""
        if (before.status, before.status_reason) != (after.status, after.status_reason):
            self.metrics.moved(after)
            more = {"account_id": after.id, "status": after.status, "reason": after.status_reason}
            log.info("account moved", extra=more)
        return after

    def check_lease(self) -> None:
        """To be called right before anything that can't be taken back. Raises LeaseLost."""
        if not self._lease.held() and not self._lease.renew():
            raise LeaseLost

    def may_delete(self) -> bool:
        """Whether the pass may delete one more droplet; then it is counted."""
        with self.lock:
            if self.told.deleted >= self.settings.deletions:
                self.told.held_back += 1
                return False
            self.told.deleted += 1
            return True
