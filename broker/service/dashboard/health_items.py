"""One line of the Health page for each thing that can be well or not: pure functions of what was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from broker.alert_kinds import about
from broker.fleet.account import Account, State, Wanted
from broker.fleet.lease import LeaseSeen
from broker.fleet.overview_rows import Counted
from broker.models import Health
from broker.service.dashboard import remedies
from broker.service.dashboard.watch import Piece
from broker.service.dashboard.wording import sentence, words

BROKERS = {
    "ibkr": "IB Gateway",
    "ibeam": "IBeam gateway",
    "alpaca": "Alpaca",
    "simulated": "Simulated broker",
}
#: a pass that is this much later than it should be is one that stalls, in seconds
LATE = 240.0
#: DigitalOcean's calls of an hour below which somebody should look
FEW_CALLS = 500

_NOTHING = "Nothing has to be done."
BACK_SOON = "Nothing: it is read again every few seconds; tell whoever runs this service if it stays."
SEE_LOG = "Look at the service's log (make logs) for what keeps it from its work."
_TELL = "Tell whoever runs this service, unless it is back in some minutes."


class Mark(Enum):
    """How a thing is: a sign beside its word, since not everybody sees colours apart."""

    GOOD = "✓"
    MOVING = "…"
    LOOK = "▲"
    BAD = "✕"
    OFF = "○"
    UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing: how it is in a word or two, since when, more about it, and what to do in one sentence."""

    name: str
    mark: Mark
    said: str
    since: datetime | str | None = None
    detail: str = ""
    remedy: str = _NOTHING
    href: str = ""
    #: say how long ago, not since when
    ago: bool = False

    @property
    def problem(self) -> bool:
        """Whether somebody should look."""
        return self.mark in (Mark.LOOK, Mark.BAD, Mark.UNKNOWN)


def of_link(broker: str, health: Piece[Health], operator: bool, mode: str = "") -> Item:
    """The configured broker; with its mode where there are two."""
    name = BROKERS.get(broker, broker) + (f", {mode}" if mode else "")
    found = health.value
    if found is None or health.problem:
        if not health.problem:
            return Item(name, Mark.MOVING, "looking")
        return Item(name, Mark.UNKNOWN, "not known", health.at, _sentence(health.problem), _TELL)
    if found.ok:
        return Item(name, Mark.GOOD, "connected", found.since)
    detail = _sentence("; ".join(text.rstrip(".") for text in (found.reason, found.doing) if text))
    if found.state in ("connecting", "stand_by"):
        remedy = remedies.of_link(found.state)
        return Item(name, Mark.MOVING, words(found.state), found.since, detail, remedy)
    mark = Mark.LOOK if found.second_factor else Mark.BAD
    remedy = remedies.of_link("second_factor" if found.second_factor else found.state)
    return Item(name, mark, words(found.state), found.since, detail, remedy if operator else _TELL)


def of_account(account: Account, link: Health | None = None) -> Item:
    """A user's gateway. `link`: this instance's own connection to it, where somebody looks at it."""
    status, reason = account.status, account.status_reason
    remedy = remedies.of_account(reason)
    said = f"{status}: {words(reason)}" if reason else status
    since: datetime | str = account.status_since
    detail = account.message
    href = f"/?via={account.id}" if status == State.RUNNING else ""
    if reason in ("second_factor", "gateway_lost", "unknown_droplet", "action_failed"):
        mark = Mark.LOOK
    elif status == State.ERROR or reason == "unreachable":
        mark = Mark.BAD
    elif account.wanted != Wanted.RUNNING or reason in ("resting", "idle"):
        at_rest = status in (State.STOPPED, State.DELETED) and reason not in ("stopping", "deleting")
        mark, remedy = (Mark.OFF if at_rest else Mark.MOVING), remedy or _NOTHING
    elif status == State.RUNNING:
        mark, remedy = Mark.GOOD, _NOTHING
        if link is not None and not link.ok:
            said, since, detail = f"{status}: {words(link.state)}", link.since, _sentence(link.reason)
            mark, remedy = Mark.BAD, remedies.of_link(link.state)
    else:
        mark, remedy = Mark.MOVING, remedy or "Nothing: it takes some minutes."
    return Item(account.id, mark, said, since, detail, remedy or _NOTHING, href)


def of_database(why: str, since: datetime | None) -> Item:
    """The database; `why` it can't be used, if it can't."""
    if not why:
        return Item("Database", Mark.GOOD, "answers", since)
    remedy = "Look whether it runs and whether the migration job has run; orders wait until it is back."
    return Item("Database", Mark.BAD, "away", since, _sentence(why), remedy)


def of_passes(seen: LeaseSeen | None, due: float) -> Item:
    """The reconciler; `due`: seconds from one whole pass to the next."""
    name = "Reconciler"
    if seen is None or seen.passed_at is None or seen.pass_age is None:
        return Item(name, Mark.MOVING, "no pass yet", detail="The first pass is on its way.")
    who = "this instance" if seen.ours else "another instance"
    accounts, droplets, moving = (seen.passed.get(name, 0) for name in ("accounts", "droplets", "moving"))
    took = float(seen.passed.get("seconds", 0))
    said = f"It took {took:.1f} s for {accounts} accounts and {droplets} droplets, {moving} of them moving."
    if not seen.held:
        detail = f"{said} No instance holds the lease."
        return Item(name, Mark.BAD, "nobody runs it", seen.until, detail, SEE_LOG)
    if seen.pass_age > due + took + LATE:
        return Item(name, Mark.BAD, "stalls", seen.passed_at, f"{said} Run by {who}.", SEE_LOG)
    return Item(name, Mark.GOOD, "last pass", seen.passed_at, f"{said} Run by {who}.", ago=True)


def of_digitalocean(seen: LeaseSeen | None, calls_left: int, room: int | None) -> Item:
    """DigitalOcean's answers, its request budget and droplet limit. `room`: droplets left when last asked."""
    problem = str(seen.passed.get("problem", "")) if seen else ""
    since = seen.passed_at if seen else None
    detail = f"{calls_left} calls are left to this instance in this hour."
    if room is not None:
        detail += f" {room} droplets could be made when it was asked last."
    if problem:
        remedy = remedies.of_account(problem) or remedies.of_account("digitalocean_away")
        return Item("DigitalOcean", Mark.BAD, words(problem), since, detail, remedy)
    if calls_left < FEW_CALLS:
        remedy = "Find out what else uses this token; passes get fewer meanwhile, and users come first."
        return Item("DigitalOcean", Mark.LOOK, "few calls left", since, detail, remedy)
    if room == 0:
        remedy = remedies.of_account("quota_reached")
        return Item("DigitalOcean", Mark.LOOK, "droplet limit reached", since, detail, remedy)
    return Item("DigitalOcean", Mark.GOOD, "answers", since, detail)


def of_leftovers(seen: LeaseSeen | None) -> list[Item]:
    """Droplets that nobody knows, and deletions that were held back, if there are any."""
    found = []
    passed: Mapping[str, object] = seen.passed if seen else {}
    since = seen.passed_at if seen else None
    if passed.get("quarantined"):
        said = f"{passed['quarantined']} unknown"
        detail = "Droplets with our tags that this database can't explain."
        remedy = remedies.of_alert("unknown_droplet")
        found.append(Item("Quarantine", Mark.LOOK, said, since, detail, remedy, "/fleet#quarantine"))
    if passed.get("held_back"):
        said = f"{passed['held_back']} held back"
        detail = "More droplets were to be deleted than one pass may delete."
        remedy = "Nothing if that was meant, the rest follows; if not, set FLEET_ENABLED to false at once."
        found.append(Item("Deletions", Mark.LOOK, said, since, detail, remedy))
    return found


def of_troubles(counts: Iterable[Counted]) -> list[Item]:
    """Everybody's accounts that need somebody, by reason."""
    found = []
    for count in counts:
        status, reason, number = count.status, count.reason, count.accounts
        if status != State.ERROR and reason not in ("second_factor", "gateway_lost", "unreachable"):
            continue
        known = about(reason)
        accounts = "1 account" if number == 1 else f"{number} accounts"
        detail = known.title if known.title != reason else ""
        remedy = remedies.of_account(reason) or remedies.of_account("login_timeout")
        mark = Mark.LOOK if reason in ("second_factor", "gateway_lost") else Mark.BAD
        href = f"/fleet?status={status}" + (f"&reason={reason}" if reason else "")
        found.append(
            Item(words(reason) or status, mark, accounts, count.since, _sentence(detail), remedy, href)
        )
    return found


def _sentence(text: str) -> str:
    text = sentence(text.strip())
    return text if not text or text[-1] in ".!?" else f"{text}."
