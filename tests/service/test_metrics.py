"""GET /metrics: what Prometheus reads, and who may."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from broker.fleet.metrics import REFUSALS, FleetMetrics
from broker.service.metrics import ServiceMetrics
from broker.service.streams import Streams
from tests.broker.paper_gateway import ROOT
from tests.service.fleet_agents import Agents
from tests.service.fleet_fixtures import (
    PASSWORD,
    Clients,
    ada,
    agents,
    cloud,
    fleet_app,
    fleet_changes,
    fleet_environment,
    login,
    until,
    user_for,
)
from tests.service.test_bad_requests import assert_problem

__all__ = ["ada", "agents", "cloud", "fleet_app", "fleet_changes", "fleet_environment", "user_for"]
METRICS = "http://service/metrics"


def samples(text: str) -> dict[str, float]:
    """By name and labels, as Prometheus' own parser reads them."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.mark.parametrize("role", ["user", "trader"])
async def test_metrics_are_for_monitors_and_operators(
    client_for: Callable[..., httpx.AsyncClient], role: str
) -> None:
    async with client_for(role) as client:
        assert_problem(await client.get("/metrics"), 403)
    async with client_for("monitor", token="not.a.token") as client:
        assert_problem(await client.get("/metrics"), 401)
    async with client_for("operator") as client:
        assert (await client.get("/metrics")).status_code == 200
    async with client_for("monitor") as client:
        answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        found = samples(answer.text)
        assert found["api_refused_tokens_total{error=invalid_token}"] == 1
        assert found["api_request_seconds_count{status=403}"] == 1
        assert found["process_open_fds{}"] > 0
        for path in ("/api/v1/connections/default/account", "/api/v1/halt"):
            assert_problem(await client.get(path), 403)


def test_prometheus_rules_ask_for_metrics_that_there_are() -> None:
    registries = (ServiceMetrics(Streams(1, 1, 1)).registry, FleetMetrics().registry)
    found = samples("".join(generate_latest(registry).decode() for registry in registries))
    names = {name.partition("{")[0] for name in found}
    families = {family.name for registry in registries for family in registry.collect()}
    document = yaml.safe_load((ROOT / "docs/prometheus-rules.yaml").read_text())
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE)
    for rule in rules:
        asked = set(re.findall(r"\b(?:fleet|api)_\w+", rule["expr"]))
        assert asked, rule["alert"]
        # Those with labels may have no sample before the first event.
        assert all(name in names or name.removesuffix("_total") in families for name in asked), asked
        runbook = rule["annotations"].get("runbook", f"docs/runbooks.md, {headings[0]}")
        assert runbook.removeprefix("docs/runbooks.md, ") in headings
    for reason in REFUSALS:
        assert found[f"fleet_enrolments_refused_total{{reason={reason}}}"] == 0, "an increase of it is seen"


async def test_the_fleet_is_told_of_without_names_addresses_and_secrets(
    ada: httpx.AsyncClient, user_for: Clients, agents: Agents
) -> None:
    account = (await ada.post("/connect", json=login("ib-user-name"))).json()["account_id"]
    await until(lambda: ada.get(f"/accounts/{account}/status"), "running")
    refused = {"account_id": account, "token": "invented", "certificate": "none"}
    assert (await ada.post("http://service/api/v1/enrolments", json=refused)).status_code == 403
    async with user_for("prometheus", "monitor") as client:

        async def look() -> httpx.Response:
            answer = await client.get(METRICS)
            found = samples(answer.text)
            return httpx.Response(200, json={"status": found.get("fleet_accounts{reason=,status=running}")})

        await until(look, 1.0)
        text = (await client.get(METRICS)).text
    found = samples(text)
    assert found["fleet_transitions_total{reason=,status=running}"] == 1
    assert found["fleet_provisioning_seconds_count{}"] == 1
    assert found["fleet_probes_total{found=ready}"] >= 1
    assert found["fleet_enrolments_refused_total{reason=unknown_token}"] == 1
    assert found["fleet_droplets{region=nyc1,size=s-1vcpu-512mb-10gb,status=active}"] == 1
    assert found["fleet_failed_logins_total{}"] == 0
    assert 0 < found["fleet_digitalocean_calls_left{}"] < 5000
    assert found["fleet_pass_seconds_count{}"] >= 1
    assert f"fleet_running_seconds_total{{account={account}}}" in found
    for secret in ("ib-user-name", PASSWORD, '="ada"', '="127.'):
        assert secret not in text
