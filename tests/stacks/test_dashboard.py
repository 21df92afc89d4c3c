"""The dashboard: that each name it asks for is really published, that it fits, and that Google takes it.

Google's own metrics (Cloud Run, Cloud SQL, the Ops Agent) can't be looked up here: `GOOGLES` has them as
their lists have them (cloud.google.com/monitoring/api/metrics_gcp, /metrics_opsagent).
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from broker.service.told_metrics import EVERY_SECONDS, TOLD
from components.log_metrics import LOG_METRICS, ORDERS, REQUESTS
from components.observability import series, service_lines
from localcloud.providers.gcp.logfilter import compiled
from localcloud.providers.gcp.monitoring import METRIC, POLICY
from localcloud.providers.gcp.watching import DASHBOARD, UPTIME_CHECK
from tests.providers.conftest import Declared, cloud, declared, machines
from tests.stacks.inventory import ALPACA, FLEET
from tests.stacks.plan import Plan, plan_of, settings_of
from tests.stacks.probe import published

__all__ = ["cloud", "declared", "machines"]
GOOGLES = {
    "run_googleapis_com": {
        "request_count",
        "container_instance_count",
        "container_cpu_utilizations_bucket",
        "container_memory_utilizations_bucket",
        "container_max_request_concurrencies_bucket",
    },
    "cloudsql_googleapis_com": {
        "database_cpu_utilization",
        "database_memory_utilization",
        "database_disk_utilization",
        "database_postgresql_num_backends",
        "database_up",
    },
    "agent_googleapis_com": {"memory_percent_used", "swap_percent_used"},
    "monitoring_googleapis_com": {"uptime_check_check_passed"},
}


@pytest.fixture(scope="module")
def full() -> Plan:
    emails = {"ibkr:alerts": {"emails": ["ann@trader.test"]}, "ibkr:api.public": True}
    return plan_of(settings_of("staging", {**FLEET, **emails}))


def document(plan: Plan) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(plan.one("Dashboard").inputs["dashboardJson"])
    return made


def queries(plan: Plan) -> list[str]:
    text = plan.one("Dashboard").inputs["dashboardJson"]
    return re.findall(r'"prometheusQuery": "((?:[^"\\]|\\.)*)"', text)


def test_what_the_service_tells_is_asked_for_by_its_own_names(full: Plan) -> None:
    text = "\n".join(queries(full)).replace("\\", "")
    asked = set(re.findall(r'\{name="(\w+)"\}', text))
    assert asked, "the service's own metrics are shown"
    assert asked <= TOLD.keys(), "nothing is told under this name"
    labelled = set(re.findall(r'sum by \(label\)\(increase\(\w+:\w+\{name="(\w+)"', text))
    assert all(TOLD[name] for name in labelled), "told without a label"
    windows = {int(minutes) for minutes in re.findall(r'\{name="\w+"\}\[(\d+)m\]', text)}
    assert min(windows) * 60 >= 2 * EVERY_SECONDS, "one line may be late"


def test_the_gateways_metrics_are_those_that_its_probe_publishes(full: Plan) -> None:
    asked = set(re.findall(r"(custom_googleapis_com:\w+)", "\n".join(queries(full))))
    assert asked
    assert {name.replace(":", "_") for name in asked} <= published()


def test_log_based_metrics_are_the_declared_ones_and_googles_exist(full: Plan) -> None:
    declared_names = {series(found.inputs["name"]) for found in full.of(METRIC)}
    for query in queries(full):
        for domain, name in re.findall(r"(\w+_googleapis_com):(\w+)", query):
            if domain == "logging_googleapis_com":
                assert f"{domain}:{re.sub('_(sum|count|bucket)$', '', name)}" in declared_names
            elif domain != "custom_googleapis_com":
                assert name in GOOGLES[domain], f"{domain}:{name}"


def test_every_part_has_its_panels(full: Plan) -> None:
    tiles = document(full)["mosaicLayout"]["tiles"]
    headings = [tile["widget"]["title"] for tile in tiles if "sectionHeader" in tile["widget"]]
    assert headings == [
        "Gateway",
        "Connections",
        "Orders and latencies",
        "Fleet",
        "Reconciler",
        "Cloud Run",
        "Database",
    ]
    titles = {tile["widget"]["title"] for tile in tiles}
    assert {"Accounts by status", "DigitalOcean calls left", "Reached from outside"} <= titles


def test_without_gateway_and_fleet_there_are_no_panels_of_them() -> None:
    text = plan_of(settings_of("staging", ALPACA)).one("Dashboard").inputs["dashboardJson"]
    assert "ibkr_gateway" not in text
    assert "fleet_" not in text


def line(**payload: Any) -> dict[str, Any]:
    resource = {"type": "cloud_run_revision", "labels": {"service_name": "ibkr-api"}}
    return {"resource": resource, "jsonPayload": payload}


@pytest.mark.parametrize(
    ("method", "path", "counted"),
    [
        ("POST", "/api/v1/connections/default/orders", {"orders", "requests"}),
        ("POST", "/orders/default", {"orders", "requests"}),
        ("GET", "/api/v1/connections/default/orders", {"requests"}),
        ("POST", "/orders/default/0f3c/cancel", {"requests"}),
        ("GET", "/api/v1/connections/default/events", set()),
        ("GET", "/live/default", set()),
    ],
)
def test_streams_count_as_no_request_and_orders_are_told_apart(
    method: str, path: str, counted: set[str]
) -> None:
    entry = line(event="request", method=method, path=path, ms=12.5, status=200)
    found = {
        metric.name
        for metric in (ORDERS, REQUESTS)
        if compiled(service_lines("ibkr-api", metric.filter))(entry)
    }
    assert found == counted


async def test_google_takes_dashboard_metrics_and_uptime_check(full: Plan, declared: Declared) -> None:
    assert len(full.of(METRIC)) == len(LOG_METRICS) + 3, "and three that count lines for alerts"
    for token in (METRIC, UPTIME_CHECK, DASHBOARD):
        for resource in full.of(token):
            handler = declared.handler(token)
            assert list(declared.provider.check(handler, dict(resource.inputs))) == []
            await declared(token, **resource.inputs | {"project": "local"})


def test_the_uptime_check_asks_the_public_health_path_and_its_alert_names_it(full: Plan) -> None:
    check = full.one("UptimeCheckConfig").inputs
    assert check["httpCheck"] == {"path": "/health", "port": 443, "useSsl": True, "validateSsl": True}
    assert check["monitoredResource"]["labels"]["host"] == "ibkr-api-abc-uw.a.run.app"
    policy = full.one(POLICY, "service-away").inputs
    [condition] = policy["conditions"]
    assert 'check_id="' in condition["conditionThreshold"]["filter"]
    assert policy["notificationChannels"]


def test_a_service_that_is_not_public_is_not_asked_from_outside() -> None:
    plan = plan_of(settings_of("staging", {"ibkr:api.public": False}))
    assert plan.of(UPTIME_CHECK) == []
