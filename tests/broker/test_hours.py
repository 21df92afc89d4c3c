"""Market hours: the cases where fixed UTC hours, the migration plan's idea, are wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.market.hours import clock_from_calendar, clock_from_sessions, parse_liquid_hours


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "is_open", "why"),
    [
        ("2026-01-15T14:30", True, "the opening bell in winter is 14:30 UTC"),
        ("2026-01-15T14:29", False, "a minute before it"),
        ("2026-07-15T13:30", True, "in summer it is 13:30 UTC: the plan's hours start at 14"),
        ("2026-07-15T20:00", False, "the closing bell in summer is 20:00 UTC"),
        ("2026-01-15T20:59", True, "in winter it is 21:00 UTC"),
        ("2026-11-26T16:00", False, "Thanksgiving"),
        ("2026-11-27T17:59", True, "the half day after it"),
        ("2026-11-27T18:00", False, "which ends at 13:00 in New York"),
        ("2026-07-03T15:00", False, "Independence Day falls on a Saturday, so Friday is off"),
        ("2026-03-09T13:30", True, "the first Monday of daylight saving"),
        ("2026-11-21T16:00", False, "a Saturday"),
    ],
)
def test_the_calendar_knows_daylight_saving_holidays_and_half_days(
    moment: str, is_open: bool, why: str
) -> None:
    assert clock_from_calendar(utc(moment)).is_open is is_open, why


def test_the_calendar_tells_the_next_bells() -> None:
    clock = clock_from_calendar(utc("2026-11-27T18:30"))
    assert clock.next_open == "2026-11-30T14:30:00+00:00"
    assert clock.next_close == "2026-11-30T21:00:00+00:00"


HOURS = "20261127:0930-20261127:1300;20261128:CLOSED;20261129:CLOSED;20261130:0930-20261130:1600"


@pytest.mark.parametrize(("moment", "is_open"), [("2026-11-27T15:00", True), ("2026-11-27T18:00", False)])
def test_the_brokers_hours_are_in_the_exchanges_time(moment: str, is_open: bool) -> None:
    clock = clock_from_sessions(parse_liquid_hours(HOURS, "US/Eastern"), utc(moment))
    assert clock is not None
    assert clock.is_open is is_open
    assert clock.source == "broker"
    assert clock.next_open == "2026-11-30T14:30:00+00:00"


def test_hours_that_have_ended_or_name_no_zone_say_nothing() -> None:
    assert clock_from_sessions(parse_liquid_hours(HOURS, "US/Eastern"), utc("2026-12-01T15:00")) is None
    assert parse_liquid_hours(HOURS, "Nowhere/Else") == []
    assert parse_liquid_hours("", "US/Eastern") == []


def test_a_market_that_never_closes_is_one_session() -> None:
    always = "20261127:0000-20261127:2359;20261128:0000-20261128:2359"
    clock = clock_from_sessions(parse_liquid_hours(always, "US/Eastern"), utc("2026-11-27T23:00"))
    assert clock is not None
    assert clock.is_open
    assert clock.next_close == "2026-11-29T05:00:00+00:00"
    assert clock.next_open is None
