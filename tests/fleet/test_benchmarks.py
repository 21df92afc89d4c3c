"""The fleet's benchmarks run, at small sizes; and what they count is as it must be."""

from __future__ import annotations

import pytest

from benchmarks import fleet, fleet_service
from benchmarks.fleet_budget import PER_HOUR, PER_MINUTE, day_of
from soak.fleet.database import postgres


@pytest.mark.timeout(300)
def test_a_pass_costs_a_call_for_two_hundred_droplets_and_none_for_each() -> None:
    with postgres() as server:
        lines = list(fleet.calls(server, (201,)))
        lines += fleet.many(server, 200, 1)
    assert "over 201 running accounts: 2 list calls, 0 other calls" in lines[0]
    assert lines[1].startswith("a pass over 200 accounts, 200 of them probed over TLS")
    assert "list calls 1, other 0" in lines[2]


@pytest.mark.parametrize("droplets", [100, 1_000, 10_000, 50_000])
def test_no_day_exceeds_the_request_budget_and_users_are_served(droplets: int) -> None:
    day = day_of(droplets, actions=120, burst=20, seconds=3 * 3600)
    assert day.most_in_hour <= PER_HOUR
    assert day.most_in_minute <= PER_MINUTE
    assert day.passes > 0
    assert len(day.waits) >= 138
    assert sorted(day.waits)[len(day.waits) // 2] < 2


def test_many_users_at_once_wait_and_the_budget_holds() -> None:
    day = day_of(10_000, actions=3_000, burst=300, seconds=4 * 3600)
    assert day.most_in_hour <= PER_HOUR
    assert day.most_in_minute <= PER_MINUTE


@pytest.mark.timeout(300)
def test_a_connect_and_a_status_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_service, "CREATE", (0.1, 0.2))
    monkeypatch.setattr(fleet_service, "LOGIN", (0.1, 0.2))
    connect, status = fleet_service.measure(1, 5)
    assert "from POST /connect to running" in connect
    assert "ratio" in status
