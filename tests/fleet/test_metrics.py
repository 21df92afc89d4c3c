"""What Prometheus is told, by passes over a real database."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from broker.fleet.account import Wanted
from broker.fleet.decide import LogSays, Probe, Readiness
from broker.fleet.digitalocean import Budget, Priority, Unavailable
from tests.fleet.model import Fleet


@pytest.fixture
def fleet(engine, vault):
    return Fleet(engine, vault)


def value(fleet, name, **labels):
    return fleet.reconciler.metrics.registry.get_sample_value(name, labels)


def test_a_life_in_figures(fleet):
    account = fleet.connect(user="user-name", name="ib-user-name")
    fleet.passes(5)
    place = {"region": "nyc1", "size": "s-1vcpu-512mb-10gb"}
    assert value(fleet, "fleet_droplets", status="active", **place) == 1
    assert value(fleet, "fleet_accounts", status="running", reason="") == 1
    assert value(fleet, "fleet_transitions_total", status="running", reason="") == 1
    assert value(fleet, "fleet_probes_total", found="ready") >= 1
    assert value(fleet, "fleet_provisioning_seconds_count") == 1
    assert value(fleet, "fleet_pass_seconds_count") == 5
    assert value(fleet, "fleet_running_seconds_total", account=account) > 0
    fleet.world.readiness[account] = Probe(Readiness.NOT_LOGGED_IN, LogSays.REFUSED)
    fleet.passes(3)
    assert value(fleet, "fleet_failed_logins_total") == 1
    del fleet.world.readiness[account]
    fleet.passes(2)
    assert value(fleet, "fleet_provisioning_seconds_count") == 1, "a login later isn't provisioning"
    fleet.world.add_foreign("stack:test", "manager:service")
    fleet.repository.want(fleet.of(account), Wanted.DELETED, "ada")
    fleet.passes(4)
    assert value(fleet, "fleet_quarantined") == 1
    assert value(fleet, "fleet_droplets", status="active", **place) is None, "what is gone isn't told"
    fleet.world.fail["list"] = [Unavailable("")]
    fleet.pass_()
    assert value(fleet, "fleet_pass_problems_total", reason="digitalocean_away") == 1
    told = generate_latest(fleet.reconciler.metrics.registry).decode()
    for secret in ("user-name", "secret", "10.0.0."):
        assert secret not in told


def test_the_calls_left_are_the_budgets(fleet):
    budget = Budget(per_hour=100)
    fleet.reconciler.metrics.watch(budget)
    budget.take(Priority.USER)
    assert value(fleet, "fleet_digitalocean_calls_left") == 99
