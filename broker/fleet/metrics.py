"""What Prometheus reads about the fleet.

No label holds a user's name, an address or a secret; `account` is the opaque id.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from broker.fleet.account import Account
from broker.fleet.digitalocean import Budget

#: accounts with a series of their own for what they used; the others are told as one
_ACCOUNTS_SHOWN = 1000
#: why an enrolment is refused. From the start there is a series of each: Prometheus sees no increase in one
#: that begins with its first event
REFUSALS = (
    "unknown_token",
    "used_token",
    "expired_token",
    "other_droplet",
    "condemned_droplet",
    "other_certificate",
)
_PROVISIONING = (15, 30, 60, 90, 120, 180, 240, 300, 420, 600, 900, 1800)


class FleetMetrics:
    """The fleet's metrics in one registry. Usable from any thread."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """`registry`: one of its own unless given."""
        made = self.registry = registry or CollectorRegistry()
        self.droplets = Gauge(
            "fleet_droplets", "Droplets of accounts", ("status", "region", "size"), registry=made
        )
        self.accounts = Gauge("fleet_accounts", "Accounts", ("status", "reason"), registry=made)
        self.transitions = Counter(
            "fleet_transitions", "Changes of an account's status", ("status", "reason"), registry=made
        )
        self.provisioning = Histogram(
            "fleet_provisioning_seconds",
            "From a connect or a start without a droplet to running",
            buckets=_PROVISIONING,
            registry=made,
        )
        self.probes = Counter("fleet_probes", "Probes by what they found", ("found",), registry=made)
        self.failed_logins = Counter("fleet_failed_logins", "Logins that IBKR refused", registry=made)
        self.calls_left = Gauge("fleet_digitalocean_calls_left", "API calls left in this hour", registry=made)
        self.passes = Histogram("fleet_pass_seconds", "Duration of a pass", registry=made)
        self.problems = Counter(
            "fleet_pass_problems", "Passes that DigitalOcean kept from their work", ("reason",), registry=made
        )
        self.enrolments_refused = Counter(
            "fleet_enrolments_refused", "Enrolments that were refused", ("reason",), registry=made
        )
        self.quarantined = Gauge(
            "fleet_quarantined", "Droplets with our tags that nobody knows", registry=made
        )
        self.held_back = Gauge(
            "fleet_deletions_held_back", "Deletions beyond what one pass may do", registry=made
        )
        self.used = Counter(
            "fleet_running_seconds", "Seconds an account had a droplet", ("account",), registry=made
        )

        for reason in REFUSALS:
            self.enrolments_refused.labels(reason)
        self._provisioned: dict[str, int] = {}
        self._shown: set[str] = set()

    def watch(self, budget: Budget) -> None:
        """Asks a budget for the calls left whenever Prometheus asks."""
        self.calls_left.set_function(lambda: budget.left)

    def moved(self, account: Account) -> None:
        """An account's status or reason has just changed to this."""
        self.transitions.labels(account.status, account.status_reason).inc()
        if account.status == "deleted":
            self._provisioned.pop(account.id, None)
            if account.id in self._shown:
                self._shown.discard(account.id)
                self.used.remove(account.id)
        if account.status_reason in ("login_failed", "login_locked"):
            self.failed_logins.inc()
        if account.status == "running" and account.create_started_at is not None:
            took = (account.status_since - account.create_started_at).total_seconds()
            # Later it is a new login of the same droplet, perhaps seen by a new process.
            first = self._provisioned.get(account.id) != account.generation
            self._provisioned[account.id] = account.generation
            if first and took <= _PROVISIONING[-1]:
                self.provisioning.observe(took)

    def _label(self, account_id: str) -> str:
        """Prometheus keeps each series: so many accounts have their own, the others are one, `other`."""
        if account_id not in self._shown and len(self._shown) >= _ACCOUNTS_SHOWN:
            return "other"
        self._shown.add(account_id)
        return account_id

    def looked(self, accounts: Iterable[Account], sizes: dict[str, str], seconds: float) -> None:
        """After a pass: what there is now. `sizes` by account; `seconds` since the last pass."""
        droplets: Count[tuple[str, str, str]] = Count()
        states: Count[tuple[str, str]] = Count()
        for account in accounts:
            states[account.status, account.status_reason] += 1
            if account.do_droplet_id is not None:
                state, region = account.do_server_status or "unknown", account.do_region or "unknown"
                droplets[state, region, sizes.get(account.id, "unknown")] += 1
                self.used.labels(self._label(account.id)).inc(seconds)
        _set(self.accounts, states)
        _set(self.droplets, droplets)


def _set(gauge: Gauge, counted: Mapping[Any, int]) -> None:
    """The counts, and nothing of what is no more."""
    gauge.clear()
    for labels, number in counted.items():
        gauge.labels(*labels).set(number)
