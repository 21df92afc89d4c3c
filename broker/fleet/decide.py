"""What to do next for one account: a pure function of what is wanted, recorded and seen.

A pass calls `decide` for every account and carries out what it says. Each step may be carried out twice, and
a process may die before and after it: the next pass decides anew from what it sees then.

The rules that keep a user's credentials in one place:
- a droplet is ours only if it carries an enrolment id that this database gave (`known`);
- what carries our tags without one is `strange`: never touched, and while it is there for an account no
  droplet is made for it and no credentials leave for a new one;
- the credentials go to the droplet that was adopted, and to another one only after the former is gone;
- a droplet is gone when DigitalOcean says so of its id, not when a list leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from broker.fleet.account import MOST_FAILED_LOGINS, Account, State, Wanted
from broker.fleet.digitalocean import Droplet

#: why a droplet is removed that never made itself known; after some of them no more are made
NEVER_ENROLLED = "it didn't enrol in time"


class Readiness(StrEnum):
    """What a probe found."""

    READY = "ready"
    UNREACHABLE = "unreachable"
    CERTIFICATE_CHANGED = "certificate_changed"
    #: the agent has no login, or another token: it was rebooted, or never had one
    NO_CREDENTIALS = "no_credentials"
    GATEWAY_AWAY = "gateway_away"
    NOT_LOGGED_IN = "not_logged_in"
    SESSION_TAKEN = "session_taken"
    #: logged in, and the brokerage session isn't up
    NOT_ESTABLISHED = "not_established"
    #: IBKR takes no requests for a while (429), which says nothing about the login
    PACED = "paced"


class LogSays(StrEnum):
    """What the gateway's log says about a login that isn't there."""

    NOTHING = ""
    SECOND_FACTOR = "second_factor"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Probe:
    """The answer of a droplet's agent and gateway."""

    readiness: Readiness
    log: LogSays = LogSays.NOTHING


class Do(StrEnum):
    """Steps."""

    NOTHING = "nothing"
    CREATE = "create"
    ADOPT = "adopt"
    #: ask DigitalOcean for the id
    CONFIRM_GONE = "confirm_gone"
    POWER_ON = "power_on"
    SHUT_DOWN = "shutdown"
    POWER_OFF = "power_off"
    PUSH = "push"
    RESTART = "restart"
    #: all of the account's droplets are gone
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Decision:
    """A step, what the user is told meanwhile, and which droplets of ours are to be removed (and why)."""

    do: Do
    status: State
    reason: str = ""
    droplet_id: int | None = None
    remove: tuple[tuple[int, str], ...] = ()
    #: the gateway lost its login just now: time for the next one counts from here
    login_begins: bool = False
    #: one more login was refused
    login_failed: bool = False


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what may take, in seconds."""

    #: until a create that wasn't answered is taken for not made, and a read's 404 for the truth
    settle: float = 120.0
    enrol: float = 1800.0
    login: float = 300.0
    second_factor: float = 600.0
    action: float = 60.0
    #: until a gateway that has ended is started again: IBeam may do so itself within a minute
    lost: float = 120.0
    #: from one start by itself to the next
    revive: float = 3600.0
    unreachable: float = 300.0
    creates: int = 3


@dataclass(frozen=True, slots=True)
class View:
    """All that a decision goes by. `rests`: why a policy wants no droplet now (`resting`,
    `idle`); empty if it doesn't, or orders work. `holds_login`: the droplet isn't known to have enrolled, and
    has credentials all the same."""

    account: Account
    now: datetime
    known: Collection[Droplet] = ()
    strange: Collection[Droplet] = ()
    tombstones: Collection[int] = ()
    probe: Probe | None = None
    rests: str = ""
    holds_login: bool = False
    patience: Patience = field(default_factory=Patience)

    def age(self, moment: datetime | None) -> float:
        """Seconds since then; endless if never."""
        return float("inf") if moment is None else (self.now - moment).total_seconds()


_Say = Callable[..., Decision]


def decide(view: View) -> Decision:
    """The next step of an account."""
    account = view.account
    condemned = {d.id for d in view.known if d.id in view.tombstones}
    alive = [d for d in view.known if d.id not in condemned]
    remove = tuple((d, "") for d in sorted(condemned))
    if account.wanted == Wanted.DELETED:
        return _without_droplet(view, alive, remove, State.STOPPED, "deleting")
    if account.wanted == Wanted.HIBERNATED:
        return _without_droplet(view, alive, remove, State.STOPPED, "hibernated")
    if view.rests and account.wanted == Wanted.RUNNING:
        return _without_droplet(view, alive, remove, State.STOPPED, view.rests)
    kept = _kept(account, alive)
    if kept is None:
        return _missing(view, alive, remove)
    remove += tuple((d.id, "a double of another droplet") for d in alive if d.id != kept.id)
    if account.do_droplet_id != kept.id:
        return Decision(Do.ADOPT, State.PROVISIONING, "creating", kept.id, remove)
    if kept.status == "archive":
        return Decision(Do.NOTHING, State.ERROR, "droplet_archived", kept.id, remove)
    stopped = account.wanted == Wanted.STOPPED
    if kept.status == "new" and view.age(account.create_started_at) >= view.patience.enrol:
        # Its create broke down at DigitalOcean: it will never be anything else.
        said = (State.STOPPED, "stopping") if stopped else (State.PROVISIONING, "creating")
        return Decision(Do.NOTHING, *said, kept.id, (*remove, (kept.id, NEVER_ENROLLED)))
    if stopped:
        return _stop(view, kept, remove)
    if kept.status == "new":
        return Decision(Do.NOTHING, State.PROVISIONING, "creating", kept.id, remove)
    if kept.status == "off":
        return _switch(view, kept, remove, Do.POWER_ON, State.INITIALIZING, "powering_on")
    if not kept.address:
        return Decision(Do.NOTHING, State.PROVISIONING, "creating", kept.id, remove)
    if account.certificate_droplet_id != kept.id:
        return _await_enrolment(view, kept, remove)
    return _with_certificate(view, kept, remove)


def _kept(account: Account, alive: list[Droplet]) -> Droplet | None:
    """The one droplet of the account; none while it isn't clear."""
    recorded = [d for d in alive if d.id == account.do_droplet_id]
    if recorded or account.do_droplet_id is not None:
        return recorded[0] if recorded else None
    return min(alive, key=lambda d: d.id, default=None)


def _held_elsewhere(account: Account, droplet_id: int | None) -> int | None:
    """Another droplet than this one that may hold the credentials."""
    held = account.credentials_droplet_id
    return held if held is not None and held != droplet_id else None


def _without_droplet(
    view: View, alive: list[Droplet], remove: tuple[tuple[int, str], ...], status: State, reason: str
) -> Decision:
    """Removes all droplets, and comes to rest once they are gone for sure."""
    account = view.account
    remove += tuple((d.id, reason) for d in alive)
    waiting = "deleting" if reason == "deleting" else "stopping"
    seen = {d.id for d in view.known}
    for droplet_id in (account.do_droplet_id, account.credentials_droplet_id):
        if droplet_id is not None and droplet_id not in seen and not _too_new(view, droplet_id):
            return Decision(Do.CONFIRM_GONE, status, waiting, droplet_id, remove)
    if remove or view.age(account.create_started_at) < view.patience.settle:
        return Decision(Do.NOTHING, status, waiting, None, remove)
    if account.wanted == Wanted.DELETED:
        return Decision(Do.FORGET, State.DELETED)
    return Decision(Do.FORGET, status, reason)


def _too_new(view: View, droplet_id: int) -> bool:
    """Whether a read of it may say 404 although it exists: not after it was seen."""
    account = view.account
    young = view.age(account.create_started_at) < view.patience.settle
    seen = account.do_server_status not in (None, "new") or droplet_id in view.tombstones
    return young and not seen


def _missing(view: View, alive: list[Droplet], remove: tuple[tuple[int, str], ...]) -> Decision:
    """There is no droplet to keep: is it gone, still to be seen, or never made?"""
    account = view.account
    running = account.wanted == Wanted.RUNNING
    status = State.PROVISIONING if running else State.STOPPED
    pending = ("creating" if remove else "create_unknown") if running else "stopping"
    seen = {d.id for d in view.known}
    for droplet_id in (account.do_droplet_id, account.credentials_droplet_id):
        if droplet_id is not None:
            # One that is seen and still here is condemned: its delete is on the way.
            ask = droplet_id not in seen and not _too_new(view, droplet_id)
            waiting = "creating" if running else "stopping"
            return Decision(Do.CONFIRM_GONE if ask else Do.NOTHING, status, waiting, droplet_id, remove)
    if remove or view.age(account.create_started_at) < view.patience.settle:
        return Decision(Do.NOTHING, status, pending, None, remove)
    if not running:
        return Decision(Do.FORGET, State.STOPPED, "no_droplet", None, remove)
    if view.strange:
        return Decision(Do.NOTHING, State.ERROR, "unknown_droplet", None, remove)
    if _refused_for_good(account):
        return Decision(Do.NOTHING, State.ERROR, "login_locked", None, remove)
    if account.create_attempts >= view.patience.creates:
        return Decision(Do.NOTHING, State.ERROR, "enrolment_timeout", None, remove)
    if account.retry_at is not None and view.now < account.retry_at:
        return Decision(Do.NOTHING, State(account.status), account.status_reason, None, remove)
    return Decision(Do.CREATE, State.PROVISIONING, "creating", None, remove)


def _stop(view: View, kept: Droplet, remove: tuple[tuple[int, str], ...]) -> Decision:
    """`shutdown`, some time, and then `power_off`."""
    if kept.status == "off":
        return Decision(Do.NOTHING, State.STOPPED, "powered_off", kept.id, remove)
    tried = view.account.action_kind in (Do.SHUT_DOWN, Do.POWER_OFF)
    step = Do.POWER_OFF if tried else Do.SHUT_DOWN
    return _switch(view, kept, remove, step, State.STOPPED, "stopping")


def _switch(
    view: View, kept: Droplet, remove: tuple[tuple[int, str], ...], step: Do, status: State, reason: str
) -> Decision:
    """An action, unless one is running."""
    account = view.account
    same_way = {Do.POWER_ON: (Do.POWER_ON,)}.get(step, (Do.SHUT_DOWN, Do.POWER_OFF))
    if account.action_kind in same_way and view.age(account.action_since) < view.patience.action:
        # What failed is tried again then, and said until it works.
        said = "action_failed" if account.status_reason == "action_failed" else reason
        return Decision(Do.NOTHING, status, said, kept.id, remove)
    if kept.locked or kept.status == "new":
        return Decision(Do.NOTHING, status, reason, kept.id, remove)
    if account.retry_at is not None and view.now < account.retry_at:
        return Decision(Do.NOTHING, State(account.status), account.status_reason, kept.id, remove)
    return Decision(step, status, reason, kept.id, remove)


def _await_enrolment(view: View, kept: Droplet, remove: tuple[tuple[int, str], ...]) -> Decision:
    account = view.account
    if view.age(account.create_started_at) < view.patience.enrol:
        return Decision(Do.NOTHING, State.INITIALIZING, "enrolling", kept.id, remove)
    if view.holds_login:
        # Nobody else pushes any, so this database was restored from a time before.
        return Decision(Do.NOTHING, State.ERROR, "unknown_droplet", kept.id, remove)
    never = (kept.id, NEVER_ENROLLED)
    return Decision(Do.NOTHING, State.PROVISIONING, "creating", kept.id, (*remove, never))


def _refused_for_good(account: Account) -> bool:
    return account.failed_logins >= MOST_FAILED_LOGINS and _is_pushed(account)


def _is_pushed(account: Account) -> bool:
    return account.pushed_version >= account.credentials_version


def _with_certificate(view: View, kept: Droplet, remove: tuple[tuple[int, str], ...]) -> Decision:
    """The droplet is up and enrolled: credentials, login, readiness."""
    account, probe = view.account, view.probe

    def say(
        do: Do, status: State, reason: str = "", login_begins: bool = False, failed: bool = False
    ) -> Decision:
        return Decision(do, status, reason, kept.id, remove, login_begins, failed)

    elsewhere = _held_elsewhere(account, kept.id)
    if elsewhere is not None:
        return Decision(Do.CONFIRM_GONE, State.INITIALIZING, "gateway_starting", elsewhere, remove)
    if probe is None or probe.readiness is Readiness.PACED:
        return say(Do.NOTHING, State(account.status), account.status_reason)
    if probe.readiness is Readiness.CERTIFICATE_CHANGED:
        return say(Do.NOTHING, State.ERROR, "certificate_changed")
    if probe.readiness is Readiness.UNREACHABLE:
        return _unreachable(view, say)
    if view.strange and account.credentials_droplet_id != kept.id:
        return say(Do.NOTHING, State.ERROR, "unknown_droplet")
    if not _is_pushed(account) or probe.readiness is Readiness.NO_CREDENTIALS:
        return _push(view, say)
    if account.restart_wanted_at is not None:
        if _refused_for_good(account):
            return say(Do.NOTHING, State.ERROR, "login_locked")
        if account.retry_at is None or view.now >= account.retry_at:
            return say(Do.RESTART, State.INITIALIZING, "gateway_starting")
    if probe.readiness is Readiness.READY:
        return say(Do.NOTHING, State.RUNNING)
    if probe.readiness is Readiness.SESSION_TAKEN:
        return say(Do.NOTHING, State.ERROR, "session_taken")
    return _not_ready(view, probe, say)


def _unreachable(view: View, say: _Say) -> Decision:
    account = view.account
    known_since = view.age(account.status_since) < view.patience.unreachable
    if account.status_reason != "unreachable":
        starting = account.status == State.INITIALIZING and known_since
        reason = account.status_reason if starting else "unreachable"
        return say(Do.NOTHING, State.INITIALIZING, reason)
    waiting = account.status == State.INITIALIZING and known_since
    return say(Do.NOTHING, State.INITIALIZING if waiting else State.ERROR, "unreachable")


def _push(view: View, say: _Say) -> Decision:
    """A push begins a login, so the same refused credentials aren't pushed for ever."""
    account = view.account
    if _is_pushed(account) and account.failed_logins and account.restart_wanted_at is None:
        locked = account.failed_logins >= MOST_FAILED_LOGINS
        return say(Do.NOTHING, State.ERROR, "login_locked" if locked else "login_failed")
    if _refused_for_good(account):
        return say(Do.NOTHING, State.ERROR, "login_locked")
    if account.retry_at is not None and view.now < account.retry_at:
        return say(Do.NOTHING, State(account.status), account.status_reason)
    return say(Do.PUSH, State.INITIALIZING, "gateway_starting")


def _not_ready(view: View, probe: Probe, say: _Say) -> Decision:
    """The gateway isn't logged in: wait, or say why it won't be."""
    account = view.account
    live = account.environment == "live"
    lost = _has_ended(account, probe)
    if account.status == State.RUNNING:
        reason = "gateway_lost" if lost else "second_factor" if live else "logging_in"
        return say(Do.NOTHING, State.INITIALIZING, reason, login_begins=True)
    if probe.log is LogSays.REFUSED:
        if account.status_reason in ("login_failed", "login_locked"):
            return say(Do.NOTHING, State.ERROR, account.status_reason)
        locked = account.failed_logins + 1 >= MOST_FAILED_LOGINS
        return say(Do.NOTHING, State.ERROR, "login_locked" if locked else "login_failed", failed=True)
    if lost and not live and _may_revive(view, probe):
        return say(Do.RESTART, State.INITIALIZING, "gateway_starting")
    factor = probe.log is LogSays.SECOND_FACTOR or (live and probe.readiness is Readiness.NOT_LOGGED_IN)
    allowed = view.patience.second_factor if live or factor else view.patience.login
    if live and lost:
        allowed = view.patience.lost  # nobody but its user starts it
    if view.age(account.login_since) >= allowed:
        return say(Do.NOTHING, State.ERROR, "second_factor_timeout" if factor else "login_timeout")
    if account.status == State.ERROR and account.status_reason in ("login_failed", "login_locked"):
        return say(Do.NOTHING, State.ERROR, account.status_reason)
    if factor:
        return say(Do.NOTHING, State.INITIALIZING, "second_factor")
    if lost:
        return say(Do.NOTHING, State.INITIALIZING, "gateway_lost")
    starting = probe.readiness is Readiness.GATEWAY_AWAY
    return say(Do.NOTHING, State.INITIALIZING, "gateway_starting" if starting else "logging_in")


def _has_ended(account: Account, probe: Probe) -> bool:
    """Whether a gateway that was up isn't any more; one that starts (its image is pulled, say) wasn't yet."""
    was_up = account.status == State.RUNNING or account.status_reason in (
        "logging_in", "second_factor", "gateway_lost",
    )  # fmt: skip
    return probe.readiness is Readiness.GATEWAY_AWAY and was_up


def _may_revive(view: View, probe: Probe) -> bool:
    """Whether a gateway that has ended is started by itself.

    That is a login, so it is done once, and once in an hour: a second loss waits for a person. Never after a
    refused login, and never of a live account: each is a push to somebody's phone.
    """
    account = view.account
    return (
        (account.status, account.status_reason) == (State.INITIALIZING, "gateway_lost")
        and view.age(account.status_since) >= view.patience.lost
        and view.age(account.action_since) >= view.patience.revive
        and account.failed_logins == 0
        and probe.log is LogSays.NOTHING
    )
