"""Passes: what is there is compared with what is wanted, and every account moves one step.

    reconciler = Reconciler(FleetSettings(...), repository, droplets, agents, lease)
    reconciler.run_pass()

A pass lists the droplets of the stack (one call for 200), probes the gateways, and carries out what
`decide` says, several accounts at a time. It may be killed anywhere: intent is written before a create, a
tombstone before a delete, the droplet's number before a push. An error of one account is that account's.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from broker.fleet import policies
from broker.fleet.account import Account, State, Wanted
from broker.fleet.agents import Agents, AgentUnreachable, CertificateChanged, Endpoint, PushRefused
from broker.fleet.cloud_init import TemplateError
from broker.fleet.decide import NEVER_ENROLLED, Decision, Do, Patience, View, decide
from broker.fleet.digitalocean import (
    DigitalOceanError,
    Droplet,
    Droplets,
    Locked,
    NotFound,
    OutcomeUnknown,
    Priority,
    QuotaReached,
    Refused,
    Room,
    Throttled,
    Unauthorized,
)
from broker.fleet.metrics import FleetMetrics
from broker.fleet.repository import Conflict, FleetLease, NewEnrolment, Repository
from broker.fleet.spec import DropletSettings, DropletSpec, Enrolment, SpecError, droplet_size, droplet_spec
from broker.fleet.vault import VaultError

log = logging.getLogger(__name__)

_TOLD = {
    "second_factor",
    "second_factor_timeout",
    "login_failed",
    "login_locked",
    "session_taken",
    "certificate_changed",
    "unknown_droplet",
    "enrolment_timeout",
    "push_refused",
    "quota_reached",
    "vault",
}
"""Reasons that people are told of when they begin."""

_AGAIN = {"quota_reached": 300, "digitalocean_token": 600, "digitalocean_refused": 600}
"""Seconds until a create is tried again."""

_FIRST_LOGIN_PAUSE = 300
"""Seconds after a refused login in which a start doesn't log in again; doubled each time."""


_ON_THE_WAY = (State.PROVISIONING, State.INITIALIZING)


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """`service_url` is where droplets enrol; `push_key` the public half of the signing key."""

    stack: str
    service_url: str
    push_key: str
    droplets: DropletSettings
    patience: Patience = field(default_factory=Patience)
    deletions: int = 10
    probes: int = 64
    steps: int = 8


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


class LeaseLost(Exception):
    """Another instance may be running passes: this one stops where it is."""


Alarm = Callable[[str, str], None]


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
    ) -> None:
        """`alarm(kind, text)` tells people. Opens nothing."""
        self.metrics = metrics or FleetMetrics()
        self._last_pass: float | None = None
        self._settings = settings
        self._repository = repository
        self._droplets = droplets
        self._agents = agents
        self._lease = lease
        self._alarm = alarm
        self._running = threading.Lock()
        self._tokens: dict[tuple[str, int], str] = {}

    def run_pass(self, priority: Priority = Priority.BACKGROUND) -> Pass | None:
        """One pass; None if another instance holds the lease. Raises SQLAlchemyError.

        `priority` is USER for a pass that a request has asked for.
        """
        with self._running:
            if not self._lease.take():
                return None
            return _OnePass(self, priority).run()

    def room_settings(self, environment: str) -> tuple[str, str, str]:
        """Size, region and image of a new droplet."""
        given = self._settings.droplets
        return droplet_size(environment, given), given.region, given.image  # type: ignore[arg-type]


class _OnePass:
    def __init__(self, reconciler: Reconciler, priority: Priority) -> None:
        self._of = reconciler
        self._settings = reconciler._settings
        self._repository = reconciler._repository
        self._droplets = reconciler._droplets
        self._agents = reconciler._agents
        self._priority = priority
        self._lock = threading.Lock()
        self._rooms: dict[tuple[str, str, str], Room] = {}
        self._created = 0
        self._tombstones: set[int] = set()
        self._told = Pass(began=time.monotonic())
        self._now = self._repository.now()

    def run(self) -> Pass:
        told = self._told
        try:
            listed = self._droplets.list_by_tag(f"stack:{self._settings.stack}", self._priority)
        except DigitalOceanError as error:
            told.problem = error.reason
            self._say_waiting(error)
            return self._end()
        ours = [d for d in listed if "manager:service" in d.tags]
        told.droplets = len(ours)
        known, strange = self._sort(ours)
        accounts = self._repository.to_reconcile(also=known)
        told.accounts = len(accounts)
        accounts = self._note_seen(accounts, known)
        self._delete_condemned(strange)
        strange = {a: [d for d in ds if d.id not in self._tombstones] for a, ds in strange.items()}
        new = self._repository.quarantine(d for ds in strange.values() for d in ds)
        told.quarantined = sum(map(len, strange.values()))
        for droplet in new:
            self._of._alarm(
                "unknown_droplet", f"droplet {droplet.id} ({droplet.name}) has our tags and is unknown"
            )
        views = [
            View(
                account, self._now, known.get(account.id, ()), strange.get(account.id, ()), self._tombstones,
                patience=self._settings.patience,
            )
            for account in accounts
        ]  # fmt: skip
        with ThreadPoolExecutor(self._settings.probes) as threads:
            views = list(threads.map(self._looked_at, views, chunksize=1))
        with ThreadPoolExecutor(self._settings.steps) as threads:
            list(threads.map(self._move, views))
        self._repository.note_checked(a.id for a in accounts)
        sizes = {d.tag("account"): d.size for d in ours}
        last = self._of._last_pass
        since = 0.0 if last is None else told.began - last
        self._of._last_pass = told.began
        self._of.metrics.looked(accounts, sizes, since)
        return self._end()

    def _end(self) -> Pass:
        told, metrics = self._told, self._of.metrics
        told.seconds = time.monotonic() - told.began
        metrics.passes.observe(told.seconds)
        if told.problem:
            metrics.problems.labels(told.problem).inc()
            return told
        for found, count in told.probes.items():
            metrics.probes.labels(found).inc(count)
        metrics.quarantined.set(told.quarantined)
        metrics.held_back.set(told.held_back)
        return told

    def _sort(self, ours: list[Droplet]) -> tuple[dict[str, list[Droplet]], dict[str, list[Droplet]]]:
        """Droplets by account: those that this database knows, and the others."""
        given = self._repository.known_enrolments({d.tag("enrolment") for d in ours} - {""})
        self._tombstones = self._repository.tombstones()
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
        for droplet in [d for ds in strange.values() for d in ds if d.id in self._tombstones]:
            try:
                self._delete(droplet.id)
            except DigitalOceanError as error:
                log.warning("droplet %s can't be deleted yet: %s", droplet.id, error.reason)

    def _say_waiting(self, error: DigitalOceanError) -> None:
        """DigitalOcean doesn't list: whoever waits for a droplet is told."""
        for account in self._repository.to_reconcile():
            if account.status == State.PROVISIONING and account.status_reason != error.reason:
                try:
                    self._repository.change(account, status_reason=error.reason, status_detail="")
                except Conflict:
                    continue

    # looking

    def _looked_at(self, view: View) -> View:
        """With the probe's answer, for what is up and enrolled; nothing else costs a connection."""
        account = view.account
        up = any(d.id == account.do_droplet_id and d.status == "active" and d.address for d in view.known)
        enrolled = up and account.certificate_droplet_id == account.do_droplet_id is not None
        why = policies.rests(account, self._now) if account.wanted == Wanted.RUNNING else ""
        if account.wanted != Wanted.RUNNING or not enrolled or account.do_droplet_id in view.tombstones:
            return replace(view, rests=why)
        try:
            endpoint = self._endpoint(account)
        except (VaultError, Conflict):
            return view
        if why and account.credentials_droplet_id is not None:
            why = why if self._agents.working_orders(endpoint) is False else ""
        probe = None if why else self._agents.probe(endpoint)
        with self._lock:
            if probe is not None:
                self._told.probes[probe.readiness] += 1
        return replace(view, probe=probe, rests=why)

    def _endpoint(self, account: Account) -> Endpoint:
        key = (account.id, account.credentials_version)
        token = self._of._tokens.get(key)
        if token is None:
            token = self._repository.endpoint(account).token
            self._of._tokens[key] = token
        return Endpoint(account.do_ip_address or "", account.certificate_sha256 or "", token)

    # moving

    def _move(self, view: View) -> None:
        decision = decide(view)
        said = (decision.status, decision.reason)
        rests = decision.do in (Do.NOTHING, Do.FORGET) and said == (
            view.account.status,
            view.account.status_reason,
        )
        with self._lock:
            self._told.steps[decision.do] += 1
            self._told.moving += not rests or bool(decision.remove) or decision.status in _ON_THE_WAY
            self._told.moving += rests and decision.reason in ("stopping", "deleting")
        try:
            account = self._remove(view.account, decision)
            self._carry_out(account, view, decision)
        except (Conflict, LeaseLost, Locked):
            return  # the next pass sees what has become of it
        except NotFound:
            return
        except DigitalOceanError as error:
            self._say_problem(view, decision, error)
        except VaultError as error:
            log.error("credentials of %s can't be opened: %s", view.account.id, error)
            self._say_again(view.account, decision, State.ERROR, "vault")
        except SQLAlchemyError:
            raise
        except Exception:
            log.exception("account %s can't be moved", view.account.id)

    def _say_problem(self, view: View, decision: Decision, error: DigitalOceanError) -> None:
        reason = "digitalocean_away" if isinstance(error, OutcomeUnknown) else error.reason
        self._say_again(view.account, decision, decision.status, reason)

    def _say_again(self, account: Account, decision: Decision, status: State, reason: str) -> None:
        found = self._repository.get(account.id)
        if found is not None and (found.status, found.status_reason) != (status, reason):
            try:
                self._change(found, status=status, status_reason=reason, status_detail="")
            except Conflict:
                return

    def _change(self, account: Account, **values: Any) -> Account:
        """Writes, and tells people of a reason that has just begun."""
        written = self._moved(account, self._repository.change(account, **values))
        if written.status_reason in _TOLD and written.status_reason != account.status_reason:
            self._of._alarm(written.status_reason, f"account {written.id}: {written.message}")
        return written

    def _moved(self, before: Account, after: Account) -> Account:
        if (before.status, before.status_reason) != (after.status, after.status_reason):
            self._of.metrics.moved(after)
        return after

    def _check_lease(self) -> None:
        if not self._of._lease.held() and not self._of._lease.take():
            raise LeaseLost

    def _remove(self, account: Account, decision: Decision) -> Account:
        for droplet_id, reason in decision.remove:
            if droplet_id not in self._tombstones:
                if not self._may_delete():
                    continue
                self._repository.condemn(account.id, droplet_id, reason)
                if reason == NEVER_ENROLLED:
                    account = self._repository.change(account, create_attempts=account.create_attempts + 1)
                self._tombstones = self._tombstones | {droplet_id}
                self._delete(droplet_id, counted=True)
            else:
                self._delete(droplet_id)
        return account

    def _may_delete(self) -> bool:
        with self._lock:
            if self._told.deleted >= self._settings.deletions:
                self._told.held_back += 1
                return False
            self._told.deleted += 1
            return True

    def _delete(self, droplet_id: int, counted: bool = False) -> None:
        """Deletes what is condemned, within the pass's limit."""
        if counted or self._may_delete():
            self._check_lease()
            try:
                self._droplets.delete(droplet_id, self._priority)
            except Locked:
                return

    def _carry_out(self, account: Account, view: View, decision: Decision) -> None:
        match decision.do:
            case Do.CREATE:
                self._create(account, decision)
            case Do.ADOPT:
                droplet = next(d for d in view.known if d.id == decision.droplet_id)
                self._moved(account, self._repository.adopt(account, droplet))
            case Do.CONFIRM_GONE:
                assert decision.droplet_id is not None
                self._confirm_gone(account, decision, decision.droplet_id)
            case Do.POWER_ON | Do.SHUT_DOWN | Do.POWER_OFF:
                assert decision.droplet_id is not None
                self._act(account, decision, decision.droplet_id)
            case Do.PUSH | Do.RESTART:
                self._push(account, decision)
            case Do.FORGET if account.wanted == Wanted.DELETED:
                self._moved(account, self._repository.forget(account))
            case Do.FORGET | Do.NOTHING:
                self._say(account, decision)

    def _say(self, account: Account, decision: Decision) -> None:
        values: dict[str, Any] = {}
        if (decision.status, decision.reason) != (account.status, account.status_reason):
            values |= {"status": decision.status, "status_reason": decision.reason, "status_detail": ""}
        if decision.do is Do.FORGET and account.create_started_at is not None:
            values |= {"create_started_at": None}
        if decision.login_begins:
            values |= {"login_since": self._now}
        if decision.login_failed:
            pause = _FIRST_LOGIN_PAUSE * 2**account.failed_logins
            values |= {
                "failed_logins": account.failed_logins + 1,
                "retry_at": self._now + timedelta(seconds=pause),
                "restart_wanted_at": None,
            }
        if decision.status is State.RUNNING and (account.failed_logins or account.retry_at):
            values |= {"failed_logins": 0, "retry_at": None}
        if values:
            self._change(account, **values)

    def _create(self, account: Account, decision: Decision) -> None:
        size, region, image = self._of.room_settings(account.environment)
        room = self._take_room(size, region, image)
        if room.problem:
            self._not_made(account, room.reason, 600, room.problem)
            return
        if room.left <= 0:
            self._not_made(account, "quota_reached", _AGAIN["quota_reached"])
            return
        if account.create_started_at is not None and self._made_after_all(account):
            return
        before = account
        account, enrolment = self._repository.begin_create(account)
        self._moved(before, account)
        try:
            spec = self._spec(account, enrolment)
            self._check_lease()
            droplet = self._droplets.create(spec, self._priority)
        except (SpecError, TemplateError) as error:
            self._not_made(account, "spec", 600, str(error))
        except Throttled as error:
            self._not_made(account, error.reason, error.wait)
        except (QuotaReached, Refused, Unauthorized) as error:
            self._not_made(account, error.reason, _AGAIN[error.reason], error.message)
        except OutcomeUnknown:
            self._change(account, status_reason="create_unknown", status_detail="")
        else:
            details = {"size": size, "image": image, "price_monthly": room.price_monthly}
            self._repository.adopt(account, droplet, json.dumps(details))

    def _made_after_all(self, account: Account) -> bool:
        """Whether a create that went unanswered made a droplet that the list by tag doesn't show."""
        name = f"{account.username}-ib-{account.environment}-{account.username_index}"
        found = self._droplets.find_by_name(name, self._priority)
        given = self._repository.known_enrolments({d.tag("enrolment") for d in found} - {""})
        return account.id in given.values()

    def _take_room(self, size: str, region: str, image: str) -> Room:
        """The check before creates, once in a pass for each kind; `left` counts those of this pass too."""
        key = (size, region, image)
        with self._lock:
            if key not in self._rooms:
                found = self._droplets.room(size, region, image, self._priority)
                self._rooms[key] = replace(found, left=found.left + self._created)
            room = self._rooms[key]
            left = room.left - self._created
            self._created += 1
            return replace(room, left=left)

    def _spec(self, account: Account, enrolment: NewEnrolment) -> DropletSpec:
        settings = self._settings
        login = Enrolment(settings.service_url, enrolment.token, account.id, settings.push_key)
        spec = droplet_spec(
            settings.stack,
            account.username,
            account.environment,  # type: ignore[arg-type]  # the database's check
            account.username_index,
            settings.droplets,
            login,
            "service",
        )
        return replace(spec, tags=(*spec.tags, f"enrolment:{enrolment.id}"))

    def _not_made(self, account: Account, reason: str, wait: float, detail: str = "") -> None:
        """Nothing was made for sure: says why, and when it is tried again."""
        busy = reason == "digitalocean_busy"
        self._change(
            account,
            status=State.PROVISIONING if busy else State.ERROR,
            status_reason=reason,
            status_detail=detail,
            create_started_at=None,
            retry_at=self._now + timedelta(seconds=wait),
        )

    def _confirm_gone(self, account: Account, decision: Decision, droplet_id: int) -> None:
        try:
            self._droplets.get(droplet_id, self._priority)
        except NotFound:
            self._repository.gone(account, droplet_id)
            return
        if droplet_id in self._tombstones:
            self._delete(droplet_id)
        self._say(account, decision)

    def _act(self, account: Account, decision: Decision, droplet_id: int) -> None:
        if account.action_kind == decision.do and account.action_id is not None:
            outcome = self._outcome(droplet_id, account.action_id)
            if outcome == "in-progress":
                self._repository.change(account, action_since=self._now)
                return
            if outcome == "errored":
                self._repository.note(
                    account, "action_failed", f"{decision.do} of droplet {droplet_id} failed"
                )
        self._check_lease()
        action = self._droplets.act(droplet_id, decision.do, self._priority)
        self._change(
            account,
            status=decision.status,
            status_reason=decision.reason,
            status_detail="",
            action_kind=decision.do,
            action_id=action,
            action_since=self._now,
        )

    def _outcome(self, droplet_id: int, action_id: int) -> str:
        try:
            return self._droplets.action_status(droplet_id, action_id, self._priority)
        except NotFound:
            return ""

    def _push(self, account: Account, decision: Decision) -> None:
        """Credentials, or a restart. Either begins a login."""
        login, version = self._repository.login(account)
        account, sequence, now = self._repository.begin_push(account)
        endpoint = self._endpoint(account)
        self._check_lease()
        try:
            if decision.do is Do.PUSH:
                self._agents.push(endpoint, account.id, login, sequence, int(now.timestamp()))
            else:
                self._agents.restart(endpoint, account.id, sequence, int(now.timestamp()))
        except AgentUnreachable:
            self._say(account, replace(decision, do=Do.NOTHING))
            return
        except CertificateChanged:
            self._change(account, status=State.ERROR, status_reason="certificate_changed", status_detail="")
            return
        except PushRefused:
            again = self._now + timedelta(seconds=60)
            self._change(
                account, status=State.ERROR, status_reason="push_refused", status_detail="", retry_at=again
            )
            return
        pushed = {"pushed_version": version} if decision.do is Do.PUSH else {}
        self._change(
            account,
            status=decision.status,
            status_reason=decision.reason,
            status_detail="",
            login_since=now,
            restart_wanted_at=None,
            **pushed,
        )
