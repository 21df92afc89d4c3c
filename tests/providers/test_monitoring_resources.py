"""Alert policies, their channels and log-based metrics: what the real APIs refuse."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.cloud import CloudError
from localcloud.providers.gcp.logfilter import FilterError, compiled
from localcloud.providers.gcp.monitoring import CHANNEL, METRIC, POLICY
from tests.providers.conftest import Declared

BY_LOG: dict[str, Any] = {
    "displayName": "odd",
    "combiner": "OR",
    "conditions": [{"displayName": "odd", "conditionMatchedLog": {"filter": 'jsonPayload.event="odd"'}}],
    "alertStrategy": {"notificationRateLimit": {"period": "300s"}, "autoClose": "1800s"},
}


def by_query(query: str, **more: Any) -> dict[str, Any]:
    promql = {"query": query, "duration": "60s", **more}
    condition = {"displayName": "odd", "conditionPrometheusQueryLanguage": promql}
    return {"displayName": "odd", "combiner": "OR", "conditions": [condition]}


async def test_a_policy_names_channels_that_exist_and_they_outlive_it(declared: Declared) -> None:
    channel = await declared(CHANNEL, type="email", labels={"email_address": "ops@example.com"})
    policy = await declared(POLICY, **BY_LOG, notificationChannels=[channel.id])
    assert policy.outputs["name"] == policy.id
    with pytest.raises(CloudError, match="it is used by"):
        await declared.handler(CHANNEL).delete(channel.id)
    await declared.handler(POLICY).delete(policy.id)
    await declared.handler(CHANNEL).delete(channel.id)
    with pytest.raises(CloudError) as missing:
        await declared(POLICY, **BY_LOG, notificationChannels=[channel.id])
    assert missing.value.status == 404


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alertStrategy": {}}, "notification_rate_limit is required"),
        ({"alertStrategy": {"notificationRateLimit": {"period": "soon"}}}, "must be a duration"),
        ({"alertStrategy": BY_LOG["alertStrategy"] | {"autoClose": "60s"}}, "30 minutes to 7 days"),
        ({"conditions": []}, "1 to 6 conditions"),
        ({"conditions": BY_LOG["conditions"] * 2}, "no other condition"),
        ({"conditions": [{"displayName": "none"}], "alertStrategy": {}}, "exactly one kind"),
        (
            {"conditions": [{"displayName": "x", "conditionMatchedLog": {"filter": "event=="}}]},
            "unparseable filter",
        ),
        (by_query("vector(0") | {"alertStrategy": {}}, "parse error"),
        (by_query("vector(0)", duration="45s") | {"alertStrategy": {}}, "a multiple of 30 seconds"),
        (by_query("vector(0)"), "only log-based alert policies"),
        (by_query("logging_googleapis_com:user_lines") | {"alertStrategy": {}}, "Cannot find metric"),
    ],
)
async def test_a_policy_that_google_would_refuse_is_refused(
    declared: Declared, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CloudError, match=said):
        await declared(POLICY, **(BY_LOG | changes))


async def test_a_query_over_log_lines_needs_their_metric_or_says_that_it_comes(declared: Declared) -> None:
    query = "logging_googleapis_com:user_the_lines"
    await declared(POLICY, **by_query(query, disableMetricValidation=True))
    await declared(METRIC, name="the-lines", filter='jsonPayload.event="pass"')
    await declared(POLICY, **by_query(query))
    with pytest.raises(CloudError, match="already exists"):
        await declared(METRIC, name="the-lines", filter='jsonPayload.event="pass"')
    with pytest.raises(CloudError, match="unparseable filter"):
        await declared(METRIC, name="others", filter='event="pass"')


@pytest.mark.parametrize(
    ("kind", "labels", "said"),
    [
        ("email", {}, "email_address"),
        ("email", {"email_address": "nobody"}, "invalid value"),
        ("pigeon", {"loft": "1"}, "unknown type"),
    ],
)
async def test_a_channel_says_where_it_leads(
    declared: Declared, kind: str, labels: dict[str, str], said: str
) -> None:
    with pytest.raises(CloudError, match=said):
        await declared(CHANNEL, type=kind, labels=labels)


ENTRY = {
    "resource": {"type": "cloud_run_revision", "labels": {"service_name": "ibkr-api"}},
    "severity": "ERROR",
    "jsonPayload": {"event": "account moved", "connected": True, "ms": 20.5, "ids": ["a", "b"]},
}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ('jsonPayload.event="account moved"', True),
        ('jsonPayload.event="Account Moved"', True),
        ('jsonPayload.event:"moved" resource.type=cloud_run_revision', True),
        ('jsonPayload.event=~"^account (moved|gone)$"', True),
        ('jsonPayload.event!~"moved"', False),
        ("jsonPayload.connected=true AND severity>=WARNING", True),
        ("severity<ERROR", False),
        ("jsonPayload.ms>20 AND NOT jsonPayload.ms>=21", True),
        ('jsonPayload.ids="b"', True),
        ('jsonPayload.reason="x"', False),
        ('jsonPayload.reason!="x"', True),
        ('severity=INFO OR (severity=ERROR AND jsonPayload.ids="a")', True),
        ('severity=INFO OR severity=ERROR AND jsonPayload.ids="c"', False),
    ],
)
def test_a_filter_is_read_as_the_logging_query_language_says(text: str, matches: bool) -> None:
    assert compiled(text)(ENTRY) is matches


@pytest.mark.parametrize(
    "text",
    ["", "(severity=INFO", "severity=INFO)", "severity=LOUD", "event=1", "AND severity=INFO",
     "severity=INFO OR", 'jsonPayload.event=~"("', "moved", 'jsonPayload.event="open'],
)  # fmt: skip
def test_a_filter_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(FilterError):
        compiled(text)
