"""Alerts and IBKR's planned absences: none of them pages, and none keeps a page back while markets are
open.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from components.alert_rules import GATEWAY, CountRule, MetricRule, SilenceRule, fleet
from components.planned import WINDOWS, unless_planned
from tests.stacks.probe import program

NEW_YORK = ZoneInfo("America/New_York")
# A day of each week of a year, and both changes of New York's clocks.
NOONS = [datetime(2026, 1, 1, 12, tzinfo=NEW_YORK) + timedelta(days=days) for days in range(366)]


def quiet(at: datetime) -> bool:
    return any(window.covers(at) for window in WINDOWS)


def quiet_by_query(at: datetime) -> bool:
    """What the PromQL of the windows says, worked out from its own text."""
    found = re.findall(
        r"vector\((?:\(time\(\) - (\d+)\)|time\(\)) % (\d+)\) >= (\d+) < (\d+)", unless_planned("up")
    )
    assert len(found) == len(WINDOWS)
    return any(
        int(begins) <= (int(at.timestamp()) - int(origin or 0)) % int(period) < int(ends)
        for origin, period, begins, ends in found
    )


def planned(noon: datetime) -> list[datetime]:
    """Each 5 minutes of the reset that begins in the night after this noon (IBKR's system status page)."""
    friday = noon.weekday() == 4
    begins = noon.replace(hour=23, minute=0 if friday else 45)
    minutes = 240 if friday else 60
    return [(begins.astimezone(UTC) + timedelta(minutes=m)) for m in range(0, minutes + 1, 5)]


def test_no_minute_of_a_planned_reset_pages() -> None:
    loud = [at for noon in NOONS for at in planned(noon) if not quiet(at)]
    # On the nights in which clocks change, IBKR's hours and UTC's differ by the hour that is lost or won.
    assert not loud, loud[:5]


def test_the_query_and_the_windows_say_the_same() -> None:
    start = datetime(2026, 3, 6, tzinfo=UTC)
    moments = [start + timedelta(minutes=7 * step) for step in range(8 * 24 * 60 // 7)]
    assert [quiet(at) for at in moments] == [quiet_by_query(at) for at in moments]
    assert 0 < sum(map(quiet, moments)) < len(moments) / 5


def test_while_american_exchanges_trade_nothing_is_kept_quiet() -> None:
    for noon in (day for day in NOONS if day.weekday() < 5):
        opens = noon.replace(hour=4)  # the first premarket session, until the end of the last one at 20:00
        assert not any(quiet(opens + timedelta(minutes=m)) for m in range(0, 16 * 60, 5)), noon


def test_the_watchdog_lies_within_the_same_windows() -> None:
    watchdog = program("watchdog")
    settings = {
        "time_zone": "America/New_York",
        "auto_restart_time": "11:45 PM",
        "cold_restart_time": "13:00",
    }
    for noon in NOONS[:14]:
        night = noon.replace(hour=22)
        for minutes in range(0, 6 * 60, 5):
            at = night + timedelta(minutes=minutes)
            assert quiet(at) or not watchdog.is_quiet(at, settings), at


@pytest.mark.parametrize("rule", [rule for rule in GATEWAY if getattr(rule, "quiet_by_plan", False)])
def test_the_gateways_own_restarts_end_before_anybody_is_paged(rule: MetricRule | SilenceRule) -> None:
    soft_restart, login = 90, 180  # seconds: ib-gateway.md; and IBC's LoginDialogDisplayTimeout
    assert rule.minutes * 60 > 2 * (soft_restart + login), "the daily and the Sunday restart are no failure"


def test_logins_that_time_out_in_a_reset_page_nobody() -> None:
    [rule] = [rule for rule in fleet(5) if isinstance(rule, CountRule)]
    assert rule.quiet_by_plan
    assert "login_timeout" in rule.filter


def test_what_a_person_must_do_is_never_kept_quiet() -> None:
    loud = {rule.name for rule in GATEWAY if not getattr(rule, "quiet_by_plan", False)}
    assert {"gateway-second-factor", "gateway-session-taken"} <= loud
