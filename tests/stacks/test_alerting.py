"""The alert policies that a stack declares: which, over whose lines, to whom, and that Google takes them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from components.alert_rules import (
    GATEWAY,
    OUTSIDE,
    RUNBOOKS,
    SERVICE,
    CountRule,
    MatchRule,
    MetricRule,
    SilenceRule,
    fleet,
)
from components.log_metrics import LOG_METRICS, metric_name
from localcloud.providers.gcp.logfilter import compiled
from localcloud.providers.gcp.monitoring import CHANNEL, METRIC, POLICY
from stacks.problems import SettingsError
from tests.providers.conftest import Declared, cloud, declared, machines
from tests.stacks.inventory import FLEET
from tests.stacks.plan import ROOT, Plan, plan_of, settings_of
from tests.stacks.probe import published

__all__ = ["cloud", "declared", "machines"]
EMAILS = {"ibkr:alerts": {"emails": ["ann@trader.test", "bo@trader.test"]}}


@pytest.fixture(scope="module")
def watched() -> Plan:
    return plan_of(settings_of("staging", {**FLEET, **EMAILS}))


def policies(plan: Plan) -> dict[str, dict[str, Any]]:
    return {found.name: found.inputs for found in plan.of(POLICY)}


def test_nobody_to_mail_alerts_nobody() -> None:
    plan = plan_of(settings_of("staging"))
    assert [found for kind in (POLICY, CHANNEL) for found in plan.of(kind)] == []


def test_there_is_a_policy_a_rule_and_everybody_is_mailed(watched: Plan) -> None:
    rules = {f"ibkr-alerts-{rule.name}" for rule in (*SERVICE, *GATEWAY, *fleet(5))}
    assert policies(watched).keys() == rules
    for inputs in policies(watched).values():
        assert len(inputs["notificationChannels"]) == 2
        assert inputs["documentation"]["content"]
        assert inputs["severity"] in ("CRITICAL", "ERROR", "WARNING")


def test_rules_are_those_of_what_there_is() -> None:
    alone = plan_of(settings_of("staging", {"ibkr:digitaloceanToken": None, **EMAILS}))
    assert "ibkr-alerts-gateway-silent" in policies(alone)
    assert "ibkr-alerts-droplet-error" not in policies(alone)
    assert "ibkr-alerts-reconcile-stalled" not in policies(alone)


def test_filters_look_at_the_declared_service(watched: Plan) -> None:
    service = watched.one("cloudrunv2/service:Service").inputs["name"]
    for rule in (*SERVICE, *fleet(5)):
        if not isinstance(rule, MatchRule):
            continue
        [condition] = policies(watched)[f"ibkr-alerts-{rule.name}"]["conditions"]
        text = condition["conditionMatchedLog"]["filter"]
        assert rule.filter in text
        entry = {"resource": {"type": "cloud_run_revision", "labels": {"service_name": service}}}
        assert compiled(text.partition(" AND (")[0])(entry)


def test_lines_are_counted_in_a_metric_of_their_own(watched: Plan) -> None:
    metrics = {found.inputs["name"]: found.inputs for found in watched.of(METRIC)}
    silent = [rule for rule in (*GATEWAY, *fleet(5)) if isinstance(rule, (CountRule, SilenceRule))]
    shown = {metric_name("ibkr", metric) for metric in LOG_METRICS}
    assert metrics.keys() - shown == {f"ibkr-alerts-{rule.name}" for rule in silent}
    for rule in silent:
        [condition] = policies(watched)[f"ibkr-alerts-{rule.name}"]["conditions"]
        query = condition["conditionPrometheusQueryLanguage"]["query"]
        assert f"user_ibkr_alerts_{rule.name.replace('-', '_')}{{" in query
        assert f"[{rule.minutes}m]" in query


def test_metrics_are_those_that_the_gateway_machine_publishes() -> None:
    for rule in GATEWAY:
        if isinstance(rule, MetricRule):
            asked = re.findall(r"(\w+_com):(\w+)", rule.query)
            assert {f"{domain}_{name}" for domain, name in asked} <= published()
            assert asked, rule.name


def test_runbooks_go_on_where_a_rule_says_so() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE)
    assert set(RUNBOOKS.values()) <= set(headings)
    assert RUNBOOKS.keys() <= {rule.name for rule in (*SERVICE, *GATEWAY, *OUTSIDE, *fleet(5))}


@pytest.mark.parametrize("minutes", [1, 5, 30])
def test_a_pass_may_be_missed_before_the_fleet_counts_as_stalled(minutes: int) -> None:
    [stalled] = [rule for rule in fleet(minutes) if isinstance(rule, SilenceRule)]
    assert stalled.minutes >= 3 * minutes


async def test_google_takes_them(watched: Plan, declared: Declared) -> None:
    channel = await declared(CHANNEL, **watched.of(CHANNEL)[0].inputs)
    for token in (METRIC, POLICY):
        for resource in watched.of(token):
            more = {"notificationChannels": [channel.id]} if token == POLICY else {}
            inputs = {**resource.inputs, **more}
            assert list(declared.provider.check(declared.handler(token), dict(inputs))) == []
            await declared(token, **inputs)


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="use a mail address"):
        settings_of("staging", {"ibkr:alerts": {"emails": ["ann"]}})
