"""What the Health page says of each state: its mark, and what to do, for every one that there is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.alert_kinds import FLEET, Kind
from broker.brokers.link import State as Link
from broker.fleet import account as accounts
from broker.fleet.digitalocean import OutcomeUnknown, Throttled, Unauthorized, Unavailable
from broker.fleet.lease import LeaseSeen
from broker.fleet.overview_rows import Counted
from broker.models import Health
from broker.service.dashboard import health_items, remedies
from broker.service.dashboard.health_items import Item, Mark
from broker.service.dashboard.watch import Piece
from tests.fleet.world import account

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KINDS = [value for name, value in vars(Kind).items() if name.isupper()]
#: reasons of accounts that are on their way, or rest as they were told to
CALM = {
    "creating", "enrolling", "gateway_starting", "logging_in", "powering_on", "stopping", "powered_off",
    "hibernated", "resting", "idle", "no_droplet", "deleting",
}  # fmt: skip
REASONS = set(accounts._MESSAGES) - set(accounts.State)


def is_a_sentence(text: str) -> bool:
    return re.fullmatch(r"[A-Z].{8,198}[^ .]\.", text) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_alert_has_its_remedy(kind: str) -> None:
    said = remedies.of_alert(kind)
    assert is_a_sentence(said), said
    assert said != remedies.of_alert("no such kind"), "it is its own"


def test_every_reason_has_its_remedy_or_calls_for_nothing() -> None:
    assert set(remedies.ACCOUNT) == REASONS - CALM
    assert set(remedies.ACCOUNT) >= FLEET - {Kind.LIMIT, Kind.KILL_SWITCH}
    for said in (*remedies.ACCOUNT.values(), *remedies.LINK.values()):
        assert is_a_sentence(said), said


def test_every_state_of_a_link_has_its_remedy() -> None:
    states = {value for name, value in vars(Link).items() if name.isupper()} - {Link.CONNECTED}
    assert set(remedies.LINK) == states | {"stand_by", "not_configured"}


@pytest.mark.parametrize("error", [Throttled(1), Unauthorized(""), Unavailable(""), OutcomeUnknown("")])
def test_what_keeps_a_pass_from_its_work_is_digitaloceans_problem(error: Any) -> None:
    item = health_items.of_digitalocean(lease(problem=error.reason), 4000, 3)
    assert (item.mark, item.problem) == (Mark.BAD, True)
    assert is_a_sentence(item.remedy)


@pytest.mark.parametrize(
    ("health", "mark"),
    [
        (Health(True, "connected", NOW.isoformat()), Mark.GOOD),
        (Health(False, "stand_by", NOW.isoformat()), Mark.MOVING),
        (Health(False, "connecting", NOW.isoformat()), Mark.MOVING),
        (Health(False, "link_lost", NOW.isoformat(), "1100"), Mark.BAD),
        (Health(False, "not_logged_in", NOW.isoformat(), second_factor=True), Mark.LOOK),
        (Health(False, "brand_new", NOW.isoformat()), Mark.BAD),
    ],
)
def test_the_brokers_link_is_marked(health: Health, mark: Mark) -> None:
    item = health_items.of_link("ibkr", Piece(health, NOW), operator=True)
    assert (item.name, item.mark, item.since) == ("IB Gateway", mark, NOW.isoformat())
    assert is_a_sentence(item.remedy)
    if mark is Mark.LOOK:
        assert "phone" in item.remedy


def test_a_user_isnt_told_to_look_at_machines() -> None:
    lost = Piece(Health(False, "disconnected", NOW.isoformat()), NOW)
    assert "make status" in health_items.of_link("ibkr", lost, operator=True).remedy
    assert "Tell whoever runs" in health_items.of_link("ibkr", lost, operator=False).remedy
    unread = health_items.of_link("ibkr", lost.failed("no answer within 10 s"), operator=True)
    assert (unread.mark, unread.since, unread.problem) == (Mark.UNKNOWN, NOW, True)


@pytest.mark.parametrize(
    ("status", "reason", "wanted", "mark"),
    [
        ("running", "", "running", Mark.GOOD),
        ("provisioning", "creating", "running", Mark.MOVING),
        ("initializing", "second_factor", "running", Mark.LOOK),
        ("initializing", "gateway_lost", "running", Mark.LOOK),
        ("initializing", "unreachable", "running", Mark.BAD),
        ("error", "login_failed", "running", Mark.BAD),
        ("error", "unknown_droplet", "stopped", Mark.LOOK),
        ("stopped", "powered_off", "stopped", Mark.OFF),
        ("stopped", "stopping", "hibernated", Mark.MOVING),
        ("running", "", "stopped", Mark.MOVING),
        ("stopped", "resting", "running", Mark.OFF),
    ],
)
def test_a_gateway_is_marked(status: str, reason: str, wanted: str, mark: Mark) -> None:
    found = account(status=status, status_reason=reason, wanted=wanted)
    item = health_items.of_account(found)
    assert item.mark is mark
    assert item.problem == (mark in (Mark.LOOK, Mark.BAD))
    assert is_a_sentence(item.remedy)


def test_a_lost_session_behind_a_running_gateway_is_seen() -> None:
    found = account(status="running", status_reason="", wanted="running")
    lost = Health(False, "competing", NOW.isoformat(), "another login has the session")
    item = health_items.of_account(found, lost)
    assert (item.mark, item.said, item.since) == (Mark.BAD, "running: competing", NOW.isoformat())


def lease(age: float | None = 5.0, held: bool = True, **passed: Any) -> LeaseSeen:
    at = None if age is None else NOW - timedelta(seconds=age)
    return LeaseSeen(held, True, NOW, at, age, {"seconds": 2.0, "accounts": 3} | passed)


@pytest.mark.parametrize(
    ("seen", "said", "mark"),
    [
        (None, "no pass yet", Mark.MOVING),
        (lease(None), "no pass yet", Mark.MOVING),
        (lease(), "last pass", Mark.GOOD),
        (lease(301), "last pass", Mark.GOOD),
        (lease(303), "stalls", Mark.BAD),
        (lease(held=False), "nobody runs it", Mark.BAD),
    ],
)
def test_a_reconciler_that_stalls_is_seen(seen: LeaseSeen | None, said: str, mark: Mark) -> None:
    item = health_items.of_passes(seen, due=60.0)
    assert (item.said, item.mark) == (said, mark)
    assert is_a_sentence(item.remedy)


def test_the_limits_of_digitalocean_and_what_was_left_over_are_seen() -> None:
    def mark(calls: int, room: int | None) -> Mark:
        return health_items.of_digitalocean(lease(), calls, room).mark

    assert [mark(4000, None), mark(4000, 1), mark(4000, 0), mark(499, 1)] == [
        Mark.GOOD, Mark.GOOD, Mark.LOOK, Mark.LOOK,
    ]  # fmt: skip
    assert health_items.of_leftovers(lease()) == []
    found = health_items.of_leftovers(lease(quarantined=2, held_back=5))
    assert [(item.said, item.problem) for item in found] == [("2 unknown", True), ("5 held back", True)]
    assert all(is_a_sentence(item.remedy) for item in found)


def test_operators_see_who_needs_somebody_by_reason() -> None:
    counts = [
        Counted("error", "login_failed", 2, NOW),
        Counted("initializing", "second_factor", 1, NOW),
        Counted("running", "", 40, NOW),
        Counted("stopped", "hibernated", 3, NOW),
    ]
    found: list[Item] = health_items.of_troubles(counts)
    assert [(i.name, i.said, i.href) for i in found] == [
        ("login failed", "2 accounts", "/fleet?status=error&reason=login_failed"),
        ("second factor", "1 account", "/fleet?status=initializing&reason=second_factor"),
    ]
    assert all(is_a_sentence(item.remedy) for item in found)
