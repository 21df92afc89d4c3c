"""Policies: when an account needs no droplet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.fleet.policies import PolicyError, check_policy, parse_policy, rests
from tests.fleet.world import account

FRIDAY = datetime(2026, 11, 20, tzinfo=UTC)


def at(hours: float, day: datetime = FRIDAY) -> datetime:
    return day + timedelta(hours=hours)


def asleep(
    policy: str, now: datetime, used: datetime = FRIDAY - timedelta(days=30), **changes: object
) -> str:
    return rests(account(policy=policy, last_used_at=used, **changes), now)


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (at(14.2), "resting"),  # New York opens at 14:30 UTC in winter
        (at(14.25), ""),
        (at(20.9), ""),
        (at(21.1), "resting"),
        (at(15 + 24), "resting"),  # Saturday
        (at(15 + 6 * 24), "resting"),  # Thanksgiving
        (at(17.9 + 7 * 24), ""),  # the half day after it
        (at(18.1 + 7 * 24), "resting"),
        (at(13.3, datetime(2026, 7, 1, tzinfo=UTC)), ""),  # an hour earlier in summer
    ],
)
def test_hours_are_the_exchanges_with_a_lead(now, why):
    assert asleep("hours:XNYS", now) == why


def test_a_start_outside_of_the_hours_holds_for_an_hour():
    assert asleep("hours:XNYS", at(3), used=at(2.5)) == ""
    assert asleep("hours:XNYS", at(3.6), used=at(2.5)) == "resting"


def test_idle_counts_from_the_last_use():
    assert asleep("idle:30", at(1), used=at(0.51)) == ""
    assert asleep("idle:30", at(1), used=at(0.5)) == "idle"
    assert asleep("always", at(1)) == ""


def test_a_live_account_rests_only_knowingly():
    assert asleep("idle:30", at(1), environment="live") == ""
    assert asleep("idle:30", at(1), environment="live", unattended_live=True) == "idle"
    with pytest.raises(PolicyError, match="unattended_live"):
        check_policy("hours:XNYS", "live", False)
    check_policy("hours:XNYS", "live", True)
    check_policy("always", "live", False)
    check_policy("idle:60", "paper", False)


@pytest.mark.parametrize(
    "text", ["", "never", "hours:", "hours:NOPE", "idle:4", "idle:x", "idle:10081", "idle:-5"]
)
def test_what_isnt_a_policy_is_refused_with_what_is(text):
    with pytest.raises(PolicyError, match=r"XNYS|minutes"):
        parse_policy(text)
