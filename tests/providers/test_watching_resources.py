"""Dashboards, uptime checks and budgets: what the real APIs refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localcloud.cloud import CloudError
from localcloud.providers.gcp.billing import ACCOUNT
from localcloud.providers.gcp.monitoring import BUDGET, CHANNEL, METRIC, POLICY
from localcloud.providers.gcp.watching import DASHBOARD, UPTIME_CHECK
from localcloud.secrets import PROJECT_NUMBER
from tests.providers.conftest import Declared

LABEL = {"key": "name", "valueType": "STRING"}
DISTRIBUTION = {
    "name": "told",
    "filter": 'jsonPayload.event="metric"',
    "valueExtractor": "EXTRACT(jsonPayload.value)",
    "labelExtractors": {"name": "EXTRACT(jsonPayload.name)"},
    "metricDescriptor": {"metricKind": "DELTA", "valueType": "DISTRIBUTION", "labels": [LABEL]},
}


def tile(x: int, y: int, width: int = 24, height: int = 8, **widget: Any) -> dict[str, Any]:
    chart = {"xyChart": {"dataSets": [{"timeSeriesQuery": {"prometheusQuery": "up"}}]}}
    return {"xPos": x, "yPos": y, "width": width, "height": height, "widget": widget or chart}


def dashboard(*tiles: dict[str, Any], **more: Any) -> str:
    return json.dumps({"displayName": "odd", "mosaicLayout": {"columns": 48, "tiles": tiles}} | more)


async def test_a_dashboard_that_fits_is_taken(declared: Declared) -> None:
    made = await declared(DASHBOARD, dashboardJson=dashboard(tile(0, 0), tile(24, 0), tile(0, 8)))
    assert made.id.startswith(f"projects/{PROJECT_NUMBER}/dashboards/")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (dashboard(tile(30, 0)), "doesn't fit into 48 columns"),
        (dashboard(tile(0, 0), tile(20, 7)), r"overlaps tiles\[0\]"),
        (dashboard(tile(0, 0, 0)), "doesn't fit"),
        (dashboard(tile(0, 0), displayName=""), "display name is required"),
        (dashboard(gridLayout={}), "exactly one layout"),
        (dashboard(panels=[]), 'Unknown name "panels"'),
        (dashboard(tile(0, 0, title="none")), "exactly one kind of content"),
        (dashboard(tile(0, 0, chart={})), 'Unknown name "chart"'),
        (dashboard(tile(0, 0, xyChart={"dataSets": [{"timeSeriesQuery": {}}]})), "exactly one query"),
        (
            dashboard(tile(0, 0, scorecard={"timeSeriesQuery": {"prometheusQuery": "sum(up"}})),
            "parse error",
        ),
    ],
)
async def test_a_dashboard_that_google_would_refuse_is_refused(
    declared: Declared, text: str, said: str
) -> None:
    with pytest.raises(CloudError, match=said):
        await declared(DASHBOARD, dashboardJson=text)


def test_a_dashboard_that_is_no_json_is_refused_at_preview(declared: Declared) -> None:
    failures = list(declared.provider.check(declared.handler(DASHBOARD), {"dashboardJson": "{tiles"}))
    assert "invalid JSON" in str(failures[0])


def check(**changes: Any) -> dict[str, Any]:
    resource = {"type": "uptime_url", "labels": {"project_id": "local", "host": "api.trader.test"}}
    http = {"path": "/health", "port": 443, "useSsl": True, "validateSsl": True}
    return {
        "displayName": "ibkr: /health",
        "period": "60s",
        "timeout": "10s",
        "monitoredResource": resource,
        "httpCheck": http,
    } | changes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"period": "30s"}, "one of 60s"),
        ({"timeout": "90s"}, "from 1 to 60"),
        ({"selectedRegions": ["EUROPE", "ASIA_PACIFIC"]}, "at least 3 locations"),
        ({"httpCheck": {"path": "/", "validateSsl": True}}, "needs use_ssl"),
        ({"monitoredResource": {"type": "uptime_url", "labels": {"host": "a.b"}}}, "project_id and host"),
        (
            {
                "monitoredResource": {
                    "type": "uptime_url",
                    "labels": {"project_id": "local", "host": "https://a.b/"},
                }
            },
            "no URL",
        ),
    ],
)
async def test_an_uptime_check_that_google_would_refuse_is_refused(
    declared: Declared, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CloudError, match=said):
        await declared(UPTIME_CHECK, **check(**changes))


def policy_over(text: str, **changes: Any) -> dict[str, Any]:
    threshold = {
        "filter": text,
        "comparison": "COMPARISON_GT",
        "thresholdValue": 1,
        "duration": "300s",
        "aggregations": [
            {
                "alignmentPeriod": "300s",
                "perSeriesAligner": "ALIGN_NEXT_OLDER",
                "crossSeriesReducer": "REDUCE_COUNT_FALSE",
            }
        ],
    } | changes
    condition = {"displayName": "odd", "conditionThreshold": threshold}
    return {"displayName": "odd", "combiner": "OR", "conditions": [condition]}


PASSED = 'resource.type="uptime_url" AND metric.type="monitoring.googleapis.com/uptime_check/check_passed"'


async def test_a_check_outlives_the_policy_that_names_it(declared: Declared) -> None:
    made = await declared(UPTIME_CHECK, **check())
    named = f'{PASSED} AND metric.label.check_id="{made.outputs["uptimeCheckId"]}"'
    policy = await declared(POLICY, **policy_over(named))
    with pytest.raises(CloudError, match="alerting policies is using it"):
        await declared.handler(UPTIME_CHECK).delete(made.id)
    await declared.handler(POLICY).delete(policy.id)
    await declared.handler(UPTIME_CHECK).delete(made.id)


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("metric.type=up", {}, "parse error"),
        ('metric.type="up"', {}, "must restrict resource.type"),
        (PASSED, {"duration": "90s"}, "multiple of 60"),
        (PASSED, {"comparison": "COMPARISON_EQ"}, "only greater and less"),
        (PASSED, {"aggregations": [{"crossSeriesReducer": "REDUCE_SUM"}]}, "needs a per-series aligner"),
        (
            PASSED,
            {"aggregations": [{"perSeriesAligner": "ALIGN_MEAN", "alignmentPeriod": "10s"}]},
            "at least 60",
        ),
    ],
)
async def test_a_threshold_that_google_would_refuse_is_refused(
    declared: Declared, text: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CloudError, match=said):
        await declared(POLICY, **policy_over(text, **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"valueExtractor": None}, "only allowed with, DISTRIBUTION"),
        ({"valueExtractor": "jsonPayload.value"}, "Failed to parse extractor"),
        ({"labelExtractors": {"label": "EXTRACT(jsonPayload.name)"}}, "must be those of the metric"),
    ],
)
async def test_a_distribution_says_where_its_value_and_labels_are(
    declared: Declared, changes: dict[str, Any], said: str
) -> None:
    await declared(METRIC, **DISTRIBUTION)
    with pytest.raises(CloudError, match=said):
        await declared(METRIC, **(DISTRIBUTION | {"name": "other"} | changes))


def budget(**changes: Any) -> dict[str, Any]:
    return {
        "billingAccount": ACCOUNT,
        "displayName": "ibkr-budget",
        "budgetFilter": {"projects": [f"projects/{PROJECT_NUMBER}"], "calendarPeriod": "MONTH"},
        "amount": {"specifiedAmount": {"units": "200"}},
        "thresholdRules": [{"thresholdPercent": 0.5}, {"thresholdPercent": 1.0}],
    } | changes


async def test_a_budget_keeps_the_channels_that_it_mails(declared: Declared) -> None:
    channel = await declared(CHANNEL, type="email", labels={"email_address": "ops@example.com"})
    rule = {"monitoringNotificationChannels": [channel.id]}
    made = await declared(BUDGET, **budget(allUpdatesRule=rule))
    assert made.id.startswith(f"billingAccounts/{ACCOUNT}/budgets/")
    assert made.outputs["amount"]["specifiedAmount"]["currencyCode"] == "USD", "the account's own"
    with pytest.raises(CloudError, match="it is used by"):
        await declared.handler(CHANNEL).delete(channel.id)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"billingAccount": "012345-6789AB-CDEF01"}, "does not have permission"),
        ({"amount": {"specifiedAmount": {"units": "0"}}}, "an amount above 0"),
        ({"amount": {"specifiedAmount": {"units": "9", "currencyCode": "EUR"}}}, "currency is USD"),
        ({"thresholdRules": [{"thresholdPercent": 0}]}, "above 0"),
        ({"budgetFilter": {"projects": ["projects/another"]}}, "isn't a project of this billing account"),
        ({"displayName": "x" * 61}, "60 characters"),
        ({"allUpdatesRule": {"monitoringNotificationChannels": ["projects/local/x"]}}, "was not found"),
    ],
)
async def test_a_budget_that_google_would_refuse_is_refused(
    declared: Declared, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CloudError, match=said):
        await declared(BUDGET, **budget(**changes))
