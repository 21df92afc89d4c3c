"""Cloud Monitoring and Logging: alert policies, whom they notify, and metrics counted from log lines.

Nothing is evaluated here: that a rule's filter matches what the service writes is a test's business
(tests/service/test_alert_rules.py). What the real APIs refuse is refused.
"""

from __future__ import annotations

import re
import time
from typing import Any

from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import GcpHandler
from localcloud.providers.gcp.logfilter import FilterError, compiled
from localcloud.providers.resource import not_found, number
from localcloud.state import Resource

CHANNEL = "gcp:monitoring/notificationChannel:NotificationChannel"
POLICY = "gcp:monitoring/alertPolicy:AlertPolicy"
METRIC = "gcp:logging/metric:Metric"
BUDGET = "gcp:billing/budget:Budget"

# What a channel of each kind must say; the kinds that exist: projects.notificationChannelDescriptors.
_CHANNEL_LABELS = {
    "email": "email_address",
    "pagerduty": "",
    "pubsub": "topic",
    "slack": "channel_name",
    "sms": "number",
    "webhook_basicauth": "url",
    "webhook_tokenauth": "url",
}
_METRIC_NAME = re.compile(r"[A-Za-z0-9_.,+!*',()%/-]{1,100}")
_USER_METRIC = re.compile(r"logging_googleapis_com:user_([a-zA-Z0-9_]+)")
_EXTRACTOR = re.compile(r"(EXTRACT\([a-zA-Z_][\w.]*\)|REGEXP_EXTRACT\([a-zA-Z_][\w.]*, *\".+\"\))")
_MOST_LABELS = 10
# A filter over time series (cloud.google.com/monitoring/api/v3/filters): comparisons, joined by AND.
_TERM = re.compile(r'(resource|metric|metadata|group)\.[\w.-]+ *(=|!=|:) *"[^"]*"')
_ALIGNERS = frozenset(
    [
        "ALIGN_NONE",
        "ALIGN_DELTA",
        "ALIGN_RATE",
        "ALIGN_INTERPOLATE",
        "ALIGN_NEXT_OLDER",
        "ALIGN_MIN",
        "ALIGN_MAX",
        "ALIGN_MEAN",
        "ALIGN_COUNT",
        "ALIGN_SUM",
        "ALIGN_STDDEV",
        "ALIGN_COUNT_TRUE",
        "ALIGN_COUNT_FALSE",
        "ALIGN_FRACTION_TRUE",
        "ALIGN_PERCENTILE_99",
        "ALIGN_PERCENTILE_95",
        "ALIGN_PERCENTILE_50",
        "ALIGN_PERCENTILE_05",
        "ALIGN_PERCENT_CHANGE",
    ]
)
_SECONDS = re.compile(r"([0-9]+)s")
_SHORTEST_CLOSE, _LONGEST_CLOSE = 1800, 7 * 86400  # alertPolicies: AlertStrategy.autoClose


def _bad(message: str) -> CloudError:
    return CloudError(400, message, "badRequest")


def _seconds(field: str, text: str) -> int:
    found = _SECONDS.fullmatch(text)
    if not found:
        raise _bad(f"Field {field} had an invalid value of \"{text}\": must be a duration such as '300s'")
    return int(found[1])


def _in_promql(metric: str) -> str:
    """A log-based metric's name as PromQL has it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", metric)


def _readable(field: str, text: str) -> None:
    try:
        compiled(text)
    except FilterError as wrong:
        raise _bad(f"Field {field} had an invalid value: unparseable filter: {wrong}") from None


def verify_query(field: str, query: str) -> None:
    """Refuse a text that is no PromQL, as far as its brackets show it."""
    if not query.strip() or any(query.count(a) != query.count(b) for a, b in ("()", "{}", "[]")):
        raise _bad(f'Field {field} had an invalid value of "{query}": parse error')


def _verify_threshold(condition: dict[str, Any]) -> None:
    field = "alert_policy.conditions[0].condition_threshold"
    terms = condition.get("filter", "").split(" AND ")
    if not all(_TERM.fullmatch(term.strip()) for term in terms):
        raise _bad(f'Field {field}.filter had an invalid value of "{condition.get("filter")}": parse error')
    for wanted in ("metric.type", "resource.type"):
        if not any(term.strip().startswith(wanted) for term in terms):
            raise _bad(f"Field {field}.filter must restrict {wanted}")
    if condition["comparison"] not in ("COMPARISON_GT", "COMPARISON_LT"):
        raise _bad(f"Field {field}.comparison had an invalid value: only greater and less are supported")
    if _seconds(f"{field}.duration", condition["duration"]) % 60:
        raise _bad(f"Field {field}.duration must be a multiple of 60 seconds")
    for number_, aggregation in enumerate(condition.get("aggregations") or []):
        at = f"{field}.aggregations[{number_}]"
        period = aggregation.get("alignmentPeriod")
        aligner = aggregation.get("perSeriesAligner") or "ALIGN_NONE"
        if aligner not in _ALIGNERS:
            raise _bad(f'Field {at}.per_series_aligner had an invalid value of "{aligner}"')
        if aligner == "ALIGN_NONE" and aggregation.get("crossSeriesReducer"):
            raise _bad(f"Field {at}: a cross-series reducer needs a per-series aligner")
        if aligner != "ALIGN_NONE" and (not period or _seconds(f"{at}.alignment_period", period) < 60):
            raise _bad(f"Field {at}.alignment_period must be at least 60 seconds")


class Channel(GcpHandler):
    """Somebody who is notified."""

    token = CHANNEL
    noun = "NotificationChannel"

    def identify(self, inputs: dict[str, Any]) -> str:
        return f"projects/{inputs['project']}/notificationChannels/{number(str(time.time_ns()))}"

    def verify_labels(self, labels: dict[str, str]) -> None:
        """A channel's `labels` say where it leads, and may be anything."""

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        super().verify_labels(inputs.get("userLabels") or {})
        kind = inputs["type"]
        if kind not in _CHANNEL_LABELS:
            raise _bad(f'Field notification_channel.type had an invalid value of "{kind}": unknown type')
        wanted = _CHANNEL_LABELS[kind]
        value = (inputs.get("labels") or {}).get(wanted, "")
        if wanted and not value:
            raise _bad(f"Field notification_channel.labels['{wanted}'] must be set for the type {kind}")
        if wanted == "email_address" and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value):
            raise _bad(f"Field notification_channel.labels['{wanted}'] had an invalid value of \"{value}\"")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {"name": resource_id, "verificationStatus": ""}

    def verify_delete(self, resource: Resource) -> None:
        users = [
            policy.id
            for policy in self.cloud.store.all(POLICY)
            if resource.id in (policy.outputs.get("notificationChannels") or [])
        ] + [
            budget.id
            for budget in self.cloud.store.all(BUDGET)
            if resource.id
            in ((budget.outputs.get("allUpdatesRule") or {}).get("monitoringNotificationChannels") or [])
        ]
        if users and not resource.outputs.get("forceDelete"):
            raise _bad(f"Cannot delete notification channel {resource.id}: it is used by {users[0]}")


class LogMetric(GcpHandler):
    """A metric that counts log entries."""

    token = METRIC
    id_format = "{name}"
    noun = "Metric"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if not _METRIC_NAME.fullmatch(inputs["name"]):
            raise _bad(f"Metric name '{inputs['name']}' is invalid")
        _readable("metric.filter", inputs["filter"])

        descriptor = inputs.get("metricDescriptor") or {}
        is_distribution = descriptor.get("valueType") == "DISTRIBUTION"
        if is_distribution != bool(inputs.get("valueExtractor")):
            raise _bad("A value extractor is required for, and only allowed with, DISTRIBUTION metrics")
        if inputs.get("bucketOptions") and not is_distribution:
            raise _bad("Bucket options are only allowed with DISTRIBUTION metrics")
        extractors = inputs.get("labelExtractors") or {}
        labels = [label["key"] for label in descriptor.get("labels") or []]
        if sorted(labels) != sorted(extractors) or len(labels) > _MOST_LABELS:
            raise _bad(
                f"The label extractors {sorted(extractors)} must be those of the metric descriptor's labels "
                f"{sorted(labels)}, and {_MOST_LABELS} at most"
            )
        for text in (inputs.get("valueExtractor"), *extractors.values()):
            if text and not _EXTRACTOR.fullmatch(text):
                raise _bad(f"Failed to parse extractor expression: {text}")

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(409, f"Metric {resource_id} already exists.", "alreadyExists")


class Policy(GcpHandler):
    """An alert policy."""

    token = POLICY
    noun = "AlertPolicy"

    def identify(self, inputs: dict[str, Any]) -> str:
        return f"projects/{inputs['project']}/alertPolicies/{number(str(time.time_ns()))}"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_labels(inputs.get("userLabels") or {})
        conditions = inputs["conditions"]
        if not 1 <= len(conditions) <= 6:
            raise _bad("Field alert_policy.conditions had an invalid size: there are 1 to 6 conditions")
        strategy = inputs.get("alertStrategy") or {}
        by_log = [c for c in conditions if c.get("conditionMatchedLog")]
        limit = (strategy.get("notificationRateLimit") or {}).get("period")
        if by_log and len(conditions) > 1:
            raise _bad("A policy with a log-match condition has no other condition")
        if by_log and not limit:
            raise _bad(
                "Field alert_policy.alert_strategy.notification_rate_limit is required for log-based alert "
                "policies"
            )
        if limit and not by_log:
            raise _bad("only log-based alert policies may specify a notification rate limit")
        if limit:
            _seconds("alert_policy.alert_strategy.notification_rate_limit.period", limit)
        self._verify_close(strategy.get("autoClose"))
        for condition in conditions:
            self._verify_condition(condition)
        for channel in inputs.get("notificationChannels") or []:
            if self.cloud.store.get(CHANNEL, channel) is None:
                raise not_found(channel)

    def _verify_close(self, text: str | None) -> None:
        field = "alert_policy.alert_strategy.auto_close"
        if text and not _SHORTEST_CLOSE <= _seconds(field, text) <= _LONGEST_CLOSE:
            raise _bad(f'Field {field} had an invalid value of "{text}": must be from 30 minutes to 7 days')

    def _verify_condition(self, condition: dict[str, Any]) -> None:
        kinds = [kind for kind in condition if kind.startswith("condition") and condition[kind]]
        if len(kinds) != 1:
            raise _bad(f"Condition {condition['displayName']!r} must have exactly one kind, and has {kinds}")
        by_log = condition.get("conditionMatchedLog")
        if by_log:
            _readable("alert_policy.conditions[0].condition_matched_log.filter", by_log["filter"])
            return
        threshold = condition.get("conditionThreshold")
        if threshold:
            _verify_threshold(threshold)
            return
        promql = condition.get("conditionPrometheusQueryLanguage")
        if promql is None:
            raise CloudError(501, f"the local cloud knows no {kinds[0]}")
        self._verify_promql(promql)

    def _verify_promql(self, condition: dict[str, Any]) -> None:
        field = "alert_policy.conditions[0].condition_prometheus_query_language"
        for name in ("duration", "evaluationInterval"):
            text = condition.get(name)
            if text and _seconds(f"{field}.{name}", text) % 30:
                raise _bad(f'Field {field}.{name} had an invalid value of "{text}": a multiple of 30 seconds')
        query = condition["query"]
        verify_query(f"{field}.query", query)
        metric = _USER_METRIC.search(query)
        known = {_in_promql(made.id) for made in self.cloud.store.all(METRIC)}
        if metric and metric[1] not in known and not condition.get("disableMetricValidation"):
            raise CloudError(404, f'Cannot find metric that matches "{metric[0]}"', "notFound")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {"name": resource_id, "creationRecords": old.outputs["creationRecords"] if old else []}


HANDLERS = (Channel, LogMetric, Policy)
