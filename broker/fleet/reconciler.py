"""Passes: what is there is compared with what is wanted, and every account moves one step.

    reconciler = Reconciler(FleetSettings(...), repository, droplets, agents, lease)
    reconciler.run_pass()

A pass lists the droplets of the stack (one call for 200), probes the gateways, and carries out what
`decide` says, several accounts at a time. It may be killed anywhere: intent is written before a create, a
tombstone before a delete, the droplet's number before a push. An error of one account is that account's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

import structlog

from broker.fleet import policies
from broker.fleet.account import Account, State, Wanted
from broker.fleet.agents import Agents
from broker.fleet.decide import View
from broker.fleet.digitalocean import DigitalOceanError, Droplet, Droplets, Priority, passes_calls
from broker.fleet.metrics import FleetMetrics
from broker.fleet.passes import Alarm, FleetSettings, LeaseLost, Parts, Pass, Tell, Work
from broker.fleet.repository import Conflict, FleetLease, Repository
from broker.fleet.steps import Steps
from broker.fleet.vault import VaultError

__all__ = ["Alarm", "FleetSettings", "Pass", "Reconciler"]

log = logging.getLogger(__name__)

_UNATTENDED = 3600
"""Seconds without passes after which what an account was used for last says nothing: nobody could use it, or
the database was restored from a backup."""
T = TypeVar("T")


class Reconciler:
    """Runs passes, one at a time. Blocking; `run_pass` may be called from any thread."""

    def __init__(
        self,
        settings: FleetSettings,
        repository: Repository,
        droplets: Droplets,
        agents: Agents,
        lease: FleetLease,
        alarm: Alarm = lambda _kind, _text: None,
        metrics: FleetMetrics | None = None,
        tell: Tell = lambda _account: False,
    ) -> None:
        """`alarm(kind, text)` tells operators, `tell(account)` the account's user of its reason, and returns
        whether there is a way to; without one operators are told of the user's matters too. Opens nothing.
        """
        self.metrics = metrics or FleetMetrics()
        self._parts = Parts(settings, repository, droplets, agents, lease, alarm, self.metrics, {}, tell)
        self._last_pass: float | None = None
        self._last_seen: datetime | None = None
        self._droplets = 0
        self._running = threading.Lock()
        self._asked: dict[str, float] = {}

    def run_pass(self, priority: Priority = Priority.BACKGROUND, whole: bool = True) -> Pass | None:
        """One pass; None if another instance holds the lease. Raises SQLAlchemyError.

        `priority` is USER for a pass that a request has asked for. Unless it is to be a `whole` one, it looks
        only at accounts that are on the way or were written since the last whole one, if listing the droplets
        of each of them takes fewer calls than listing all.
        """
        with self._running:
            if not self._parts.lease.take():
                return None
            if self._parts.lease.unattended > _UNATTENDED:
                self._parts.repository.begin_idleness_anew()
            only = None if whole else self._on_the_way()
            one = _OnePass(self._parts, priority, self._last_pass, only, self._asked)
            told = one.run()
            if not told.problem and told.whole:
                self._last_pass, self._last_seen, self._droplets = told.began, one.began, told.droplets
            return told

    def keep_lease(self) -> None:
        """Takes the lease anew between passes further apart than it lasts. Raises SQLAlchemyError."""
        with self._running:
            self._parts.lease.take()

    def _on_the_way(self) -> list[str] | None:
        """The accounts of a pass that isn't whole; None if a whole one costs no more calls."""
        calls = passes_calls(self._droplets)
        if self._last_seen is None or calls == 1:
            return None
        found = self._parts.repository.on_the_way(self._last_seen)
        return found if len(found) < calls else None


class _OnePass:
    def __init__(
        self,
        parts: Parts,
        priority: Priority,
        last: float | None,
        only: list[str] | None,
        asked: dict[str, float],
    ) -> None:
        """`asked`: when which gateway was asked last, kept from pass to pass."""
        work = self._work = Work(parts, priority)
        self._settings = work.settings
        self._repository = work.repository
        self._droplets = work.droplets
        self._agents = work.agents
        self._steps = Steps(self._work)
        self._last = last
        self._only = only
        self._asked = asked
        self._steady: set[str] = set()
        self._steady_since: float | None = None
        self.began = work.now

    def run(self) -> Pass:
        told = self._work.told
        try:
            listed = self._list()
        except DigitalOceanError as error:
            told.problem = error.reason
            self._say_waiting(error)
            return self._end()
        ours = [d for d in listed if "manager:service" in d.tags]
        told.droplets = len(ours)
        known, strange = self._sort(ours)
        accounts = self._repository.to_reconcile(known, self._only)
        told.accounts = len(accounts)
        accounts = self._note_seen(accounts, known)
        self._delete_condemned(strange)
        strange = {a: [d for d in ds if d.id not in self._work.tombstones] for a, ds in strange.items()}
        new = self._repository.quarantine(d for ds in strange.values() for d in ds)
        told.quarantined = sum(map(len, strange.values()))
        for droplet in new:
            self._work.alarm(
                "unknown_droplet", f"droplet {droplet.id} ({droplet.name}) has our tags and is unknown"
            )
        views = [
            View(
                account, self._work.now, known.get(account.id, ()), strange.get(account.id, ()),
                self._work.tombstones, patience=self._settings.patience,
            )
            for account in self._in_turn(accounts)
        ]  # fmt: skip
        views = _each(views, _noted(self._looked_at), self._settings.probes)
        _each(views, _noted(self._steps.move), self._settings.steps)
        self._repository.note_checked(a.id for a in accounts)
        sizes = {d.tag("account"): d.size for d in ours}
        since = 0.0 if self._last is None else told.began - self._last
        if told.whole:
            self._work.metrics.looked(accounts, sizes, since)
        return self._end()

    def _in_turn(self, accounts: list[Account]) -> list[Account]:
        """Those of which something is wanted first, then those that run, who was asked longest ago first."""
        self._steady = {account.id for account in accounts if _is_steady(account)}
        if self._only is None:
            for gone in self._asked.keys() - self._steady:
                del self._asked[gone]
        return sorted(
            accounts,
            key=lambda account: self._asked.get(account.id, 0.0) if account.id in self._steady else -1.0,
        )

    def _may_wait(self, account: Account) -> bool:
        """Whether a gateway that runs is asked by a later pass: users wait for the next, so none lasts long.

        Counted from the first of them, so that some are asked however long all before took.
        """
        if account.id not in self._steady:
            return False
        now = time.monotonic()
        if self._steady_since is None:
            self._steady_since = now
        if now > self._steady_since + self._settings.steady_seconds:
            return True
        self._asked[account.id] = now
        return False

    def _list(self) -> list[Droplet]:
        """The stack's droplets, or those of the accounts that are on the way."""
        told, stack = self._work.told, f"stack:{self._settings.stack}"
        if self._only is None:
            listed = self._droplets.list_by_tag(stack, self._work.priority)
            told.lists = passes_calls(len(listed))
            return listed
        told.whole, told.lists = False, len(self._only)
        of_each = (self._droplets.list_by_tag(f"account:{a}", self._work.priority) for a in self._only)
        return [droplet for found in of_each for droplet in found if stack in droplet.tags]

    def _end(self) -> Pass:
        told, metrics = self._work.told, self._work.metrics
        told.seconds = time.monotonic() - told.began
        metrics.passes.observe(told.seconds)
        log.log(logging.WARNING if told.problem else logging.INFO, "fleet pass", extra=told.figures())
        if told.problem:
            metrics.problems.labels(told.problem).inc()
            return told
        for found, count in told.probes.items():
            metrics.probes.labels(found).inc(count)
        if told.whole:
            metrics.quarantined.set(told.quarantined)
            metrics.held_back.set(told.held_back)
        return told

    def _sort(self, ours: list[Droplet]) -> tuple[dict[str, list[Droplet]], dict[str, list[Droplet]]]:
        """Droplets by account: those that this database knows, and the others."""
        given = self._repository.known_enrolments({d.tag("enrolment") for d in ours} - {""})
        self._work.tombstones = self._repository.tombstones()
        known: dict[str, list[Droplet]] = defaultdict(list)
        strange: dict[str, list[Droplet]] = defaultdict(list)
        for droplet in ours:
            account = droplet.tag("account")
            mine = bool(account) and given.get(droplet.tag("enrolment")) == account
            (known if mine else strange)[account].append(droplet)
        return known, strange

    def _note_seen(self, accounts: list[Account], known: dict[str, list[Droplet]]) -> list[Account]:
        changed: dict[str, Droplet] = {}
        found = []
        for account in accounts:
            for droplet in known.get(account.id, ()):
                if droplet.id == account.do_droplet_id:
                    address = droplet.address or account.do_ip_address
                    if (droplet.status, address) != (account.do_server_status, account.do_ip_address):
                        changed[account.id] = droplet
                        account = replace(account, do_server_status=droplet.status, do_ip_address=address)
            found.append(account)
        self._repository.note_seen(changed)
        return found

    def _delete_condemned(self, strange: dict[str, list[Droplet]]) -> None:
        """An operator may condemn an unknown droplet; nothing else is done to one."""
        for droplet in [d for ds in strange.values() for d in ds if d.id in self._work.tombstones]:
            try:
                self._steps.delete(droplet.id)
            except DigitalOceanError as error:
                log.warning("droplet %s can't be deleted yet: %s", droplet.id, error.reason)
            except LeaseLost:
                return

    def _say_waiting(self, error: DigitalOceanError) -> None:
        """DigitalOcean doesn't list: whoever waits for it is told."""
        for account in self._repository.to_reconcile():
            if _waits(account) and account.status_reason != error.reason:
                try:
                    self._repository.change(account, status_reason=error.reason, status_detail="")
                except Conflict:
                    continue

    def _looked_at(self, view: View) -> View:
        """With the probe's answer, for what is up and enrolled; nothing else costs a connection."""
        account = view.account
        address = next(
            (d.address for d in view.known if d.id == account.do_droplet_id and d.status == "active"), ""
        )
        up = bool(address)
        enrolled = up and account.certificate_droplet_id == account.do_droplet_id is not None
        why = policies.rests(account, self._work.now) if account.wanted == Wanted.RUNNING else ""
        if account.wanted != Wanted.RUNNING or not enrolled or account.do_droplet_id in view.tombstones:
            late = up and not enrolled and view.age(account.create_started_at) >= view.patience.enrol
            return replace(view, rests=why, holds_login=late and self._agents.holds_login(address))
        if not why and self._may_wait(account):
            return view  # before its token is unsealed, which costs as much as a handshake
        try:
            endpoint = self._work.endpoint(account)
        except (VaultError, Conflict):
            return view
        if why and account.credentials_droplet_id is not None:
            why = why if self._agents.working_orders(endpoint) is False else ""
        probe = None if why else self._agents.probe(endpoint)
        with self._work.lock:
            if probe is not None:
                self._work.told.probes[probe.readiness] += 1
        return replace(view, probe=probe, rests=why)


def _each(views: Sequence[View], step: Callable[[View], T], threads: int) -> list[T]:
    """The step of each view, in their order, by some threads. Raises what a step raises, once all have ended.

    They take one view after the other: a future for each would cost more than a step with nothing to do.
    """
    done: dict[int, T] = {}
    waiting = iter(range(len(views)))  # its `next` is one step of the interpreter, so it needs no lock

    def take() -> None:
        for number in waiting:
            done[number] = step(views[number])

    with ThreadPoolExecutor(threads) as pool:
        ended = [pool.submit(take) for _ in range(min(threads, len(views)))]
    for one in ended:
        one.result()
    return [done[number] for number in range(len(views))]


def _noted(step: Callable[[View], T]) -> Callable[[View], T]:
    """The step for another thread: its log lines carry the account's id, and what the pass's carry."""
    context = structlog.contextvars.get_contextvars()

    def with_context(view: View) -> T:
        with structlog.contextvars.bound_contextvars(**context, account_id=view.account.id):
            return step(view)

    return with_context


def _is_steady(account: Account) -> bool:
    """Whether it was found running, and nobody has asked for anything since."""
    return (
        (account.wanted, account.status, account.status_reason) == (Wanted.RUNNING, State.RUNNING, "")
        and account.restart_wanted_at is None
        and account.pushed_version >= account.credentials_version
    )


def _waits(account: Account) -> bool:
    """Whether it isn't where DigitalOcean shall bring it."""
    said = (account.status, account.status_reason)
    match account.wanted:
        case Wanted.RUNNING:
            rests = account.status_reason in ("resting", "idle")
            return account.status == State.PROVISIONING or (account.status == State.STOPPED and not rests)
        case Wanted.STOPPED:
            return said not in ((State.STOPPED, "powered_off"), (State.STOPPED, "no_droplet"))
        case Wanted.HIBERNATED:
            return said != (State.STOPPED, "hibernated")
        case _:
            return account.status != State.DELETED
