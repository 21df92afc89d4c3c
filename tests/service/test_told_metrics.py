"""Metrics in the log: that there are such, what is told of them, and that it is a number."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from broker.fleet.metrics import FleetMetrics
from broker.models import Health
from broker.service.metrics import ServiceMetrics
from broker.service.streams import Streams
from broker.service.told_metrics import TOLD, ToldMetrics


@pytest.fixture
def own() -> ServiceMetrics:
    return ServiceMetrics(Streams(10, 10, 10))


def told(metrics: ToldMetrics) -> dict[tuple[str, str], Any]:
    with capture_logs() as lines:
        metrics.tell()
    assert {line["event"] for line in lines} <= {"metric"}
    return {(line["name"], line["label"]): line["value"] for line in lines}


def test_what_is_told_is_what_prometheus_reads(own: ServiceMetrics) -> None:
    fleet = FleetMetrics()
    own.looked("ibkr", Health(True, "connected", "now"))
    fleet.accounts.labels("running", "").set(1)
    fleet.droplets.labels("active", "nyc1", "s").set(1)
    fleet.problems.labels("busy").inc()
    found = {
        sample.name: set(sample.labels)
        for registry in (own.registry, fleet.registry)
        for family in registry.collect()
        for sample in family.samples
    }
    for name, label in TOLD.items():
        assert name in found, f"no metric is called {name}: the dashboard would be empty there"
        assert not label or label in found[name], f"{name} has no label {label}"


def test_a_gauge_is_told_as_it_is_and_a_counter_as_what_was_added() -> None:
    registry = CollectorRegistry()
    refused = Counter("api_refused_tokens", "", ("error",), registry=registry)
    metrics = ToldMetrics([registry])
    refused.labels("no_token").inc(3)
    assert told(metrics) == {("api_refused_tokens_total", "no_token"): 3}
    assert told(metrics) == {}, "nothing was added"
    refused.labels("no_token").inc()
    assert told(metrics) == {("api_refused_tokens_total", "no_token"): 1}


def test_only_who_has_run_a_pass_tells_of_the_fleet() -> None:
    fleet = FleetMetrics()
    metrics = ToldMetrics([fleet.registry])
    fleet.accounts.labels("error", "login_failed").set(1)
    fleet.accounts.labels("error", "quota_reached").set(2)
    assert told(metrics) == {}
    fleet.passes.observe(2.5)
    found = told(metrics)
    assert found["fleet_accounts", "error"] == 3, "added up over the reasons"
    assert (found["fleet_pass_seconds_sum", ""], found["fleet_pass_seconds_count", ""]) == (2.5, 1)
    assert told(metrics) == {}, "another instance runs them now, and knows better"


def test_an_instance_that_stands_by_tells_nothing_of_the_broker(own: ServiceMetrics) -> None:
    metrics = ToldMetrics([own.registry])
    own.looked("ibkr", Health(False, "disconnected", "now"))
    assert told(metrics)["broker_connected", "ibkr"] == 0
    own.looked("ibkr", Health(False, "stand_by", "now"))
    assert ("broker_connected", "ibkr") not in told(metrics)
