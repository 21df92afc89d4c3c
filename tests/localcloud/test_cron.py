"""Schedules: when a job runs next."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.cron import parse


@pytest.mark.parametrize(
    ("text", "zone", "moment", "following"),
    [
        ("* * * * *", "Etc/UTC", "2026-11-21T10:00:30+00:00", "2026-11-21T10:01:00+00:00"),
        ("*/15 * * * *", "Etc/UTC", "2026-11-21T10:45:00+00:00", "2026-11-21T11:00:00+00:00"),
        ("5/20 3-4 * * *", "Etc/UTC", "2026-11-21T04:45:00+00:00", "2026-11-22T03:05:00+00:00"),
        ("30 9 * * mon-fri", "America/New_York", "2026-11-21T10:00:00+00:00", "2026-11-23T14:30:00+00:00"),
        ("0 12 * * 7", "Etc/UTC", "2026-11-21T10:00:00+00:00", "2026-11-22T12:00:00+00:00"),
        ("0 0 1 jan,jul *", "Etc/UTC", "2026-11-21T10:00:00+00:00", "2027-01-01T00:00:00+00:00"),
        # crontab(5): the 13th, or a Friday.
        ("0 0 13 * fri", "Etc/UTC", "2026-11-21T10:00:00+00:00", "2026-11-27T00:00:00+00:00"),
        ("0 0 29 2 *", "Etc/UTC", "2026-11-21T10:00:00+00:00", "2028-02-29T00:00:00+00:00"),
        # The hour that comes twice: the minute after 1:59 EDT is 1:00 EST.
        ("* * * * *", "America/New_York", "2026-11-01T05:59:00+00:00", "2026-11-01T06:00:00+00:00"),
        # The hour that is left out: 2:30 doesn't come on that day.
        ("30 2 * * *", "America/New_York", "2026-03-08T05:00:00+00:00", "2026-03-09T06:30:00+00:00"),
    ],
)
def test_the_next_time(text: str, zone: str, moment: str, following: str) -> None:
    assert parse(text, zone).after(datetime.fromisoformat(moment)) == datetime.fromisoformat(following)


@pytest.mark.parametrize(
    ("text", "zone", "says"),
    [
        ("* * * *", "Etc/UTC", "five fields"),
        ("every 5 minutes", "Etc/UTC", "five fields"),
        ("60 * * * *", "Etc/UTC", "goes from 0 to 59"),
        ("* * 0 * *", "Etc/UTC", "goes from 1 to 31"),
        ("* * * nov-jan *", "Etc/UTC", "goes from 1 to 12"),
        ("*/0 * * * *", "Etc/UTC", "isn't a minute"),
        ("* x * * *", "Etc/UTC", "isn't a hour"),
        ("* * * * *", "Mars/Olympus", "no time zone 'Mars/Olympus'"),
    ],
)
def test_what_is_no_schedule_is_said(text: str, zone: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(text, zone)


def test_a_date_that_never_comes_is_an_error_and_not_an_endless_search() -> None:
    with pytest.raises(ValueError, match="never comes"):
        parse("0 0 31 2 *").after(datetime(2026, 11, 21, tzinfo=UTC))


@given(
    st.integers(1, 59),
    st.sampled_from(["Etc/UTC", "America/New_York", "Asia/Kolkata"]),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_the_next_time_is_the_first_that_fits(step: int, zone: str, moment: datetime) -> None:
    schedule = parse(f"*/{step} * * * *", zone)
    found = schedule.after(moment)
    assert found > moment
    assert found.astimezone(ZoneInfo(zone)).minute % step == 0
    assert (found - moment).total_seconds() <= 3600
