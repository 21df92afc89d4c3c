"""Alert policies over the service's logs, and whom they notify.

Rules that watch for silence count lines in a metric of their own: no line is no data, which a PromQL
condition can tell from enough of them, also before the first one was ever written. Log-based metrics appear
in Monitoring minutes after they are made, so the conditions don't ask for them when they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.alert_rules import (
    RUNBOOKS,
    CountRule,
    MatchRule,
    MetricRule,
    RateRule,
    Rule,
    SilenceRule,
    UptimeRule,
)
from components.options import child_options
from components.planned import unless_planned

_BETWEEN_NOTIFICATIONS = "300s"
_CLOSE_AFTER = "3600s"
_CHECK_PASSED = (
    'resource.type="uptime_url" AND metric.type="monitoring.googleapis.com/uptime_check/check_passed"'
)
# How old a checker's last look may be to count.
_LAST_LOOK = "300s"


@dataclass(frozen=True, slots=True)
class ObservabilityArgs:
    """`service` is the Cloud Run service's name, `emails` whom alerts go to, `uptime_check` the check's
    id.
    """

    service: str
    emails: Sequence[str]
    rules: Sequence[Rule]
    labels: Mapping[str, str]
    uptime_check: pulumi.Input[str] | None = None


class Observability(pulumi.ComponentResource):
    """Notification channels and one alert policy a rule."""

    def __init__(
        self, name: str, args: ObservabilityArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ibkr:observability:Observability", name, None, opts)
        self._name, self._args, self._child = name, args, child_options(self, opts)
        self._channels = [
            gcp.monitoring.NotificationChannel(
                f"{name}-channel-{number}",
                display_name=f"{name}: {email}",
                type="email",
                labels={"email_address": email},
                user_labels=args.labels,
                opts=self._child,
            ).id
            for number, email in enumerate(args.emails)
        ]
        for rule in args.rules:
            if isinstance(rule, MatchRule):
                self._match(rule)
            elif isinstance(rule, SilenceRule):
                self._silence(rule)
            elif isinstance(rule, CountRule):
                self._count(rule)
            elif isinstance(rule, RateRule):
                self._rate(rule)
            elif isinstance(rule, UptimeRule):
                self._uptime(rule)
            elif isinstance(rule, MetricRule):
                self._policy(rule, _promql(rule, _query(rule, rule.query), rule.minutes))
        self.register_outputs({})

    def _match(self, rule: MatchRule) -> None:
        condition = gcp.monitoring.AlertPolicyConditionArgs(
            display_name=rule.title,
            condition_matched_log=gcp.monitoring.AlertPolicyConditionConditionMatchedLogArgs(
                filter=service_lines(self._args.service, rule.filter),
                label_extractors={field: f"EXTRACT(jsonPayload.{field})" for field in rule.labels} or None,
            ),
        )
        limit = gcp.monitoring.AlertPolicyAlertStrategyNotificationRateLimitArgs(
            period=_BETWEEN_NOTIFICATIONS
        )
        self._policy(rule, condition, limit)

    def _silence(self, rule: SilenceRule) -> None:
        lines = self._lines(rule, f"Lines whose absence means: {rule.title}")
        self._policy(rule, _promql(rule, _query(rule, f"(sum({lines}) or vector(0)) < 1")))

    def _count(self, rule: CountRule) -> None:
        lines = self._lines(rule, f"Lines that mean: {rule.title}")
        self._policy(rule, _promql(rule, _query(rule, f"sum({lines}) > 0")))

    def _lines(self, rule: CountRule | SilenceRule, description: str) -> str:
        """How many lines matched lately, counted in a metric of the rule's own."""
        metric = f"{self._name}-{rule.name}"
        gcp.logging.Metric(
            f"{metric}-metric",
            name=metric,
            description=description,
            filter=service_lines(self._args.service, rule.filter),
            metric_descriptor=gcp.logging.MetricMetricDescriptorArgs(metric_kind="DELTA", value_type="INT64"),
            opts=self._child,
        )
        return f'increase({series(metric)}{{monitored_resource="cloud_run_revision"}}[{rule.minutes}m])'

    def _rate(self, rule: RateRule) -> None:
        chosen = f'service_name="{self._args.service}",response_code="{rule.status}"'
        requests = f"run_googleapis_com:request_count{{{chosen}}}"
        self._policy(rule, _promql(rule, f"sum(increase({requests}[5m])) > {rule.most}"))

    def _uptime(self, rule: UptimeRule) -> None:
        """As the console makes it: how many of the checkers' last looks failed."""
        assert self._args.uptime_check is not None  # the rule is there with the check
        check = pulumi.Output.concat(
            _CHECK_PASSED, ' AND metric.label.check_id="', self._args.uptime_check, '"'
        )
        condition = gcp.monitoring.AlertPolicyConditionArgs(
            display_name=rule.title,
            condition_threshold=gcp.monitoring.AlertPolicyConditionConditionThresholdArgs(
                filter=check,
                comparison="COMPARISON_GT",
                threshold_value=float(rule.most),
                duration=f"{60 * rule.minutes}s",
                aggregations=[
                    gcp.monitoring.AlertPolicyConditionConditionThresholdAggregationArgs(
                        alignment_period=_LAST_LOOK,
                        per_series_aligner="ALIGN_NEXT_OLDER",
                        cross_series_reducer="REDUCE_COUNT_FALSE",
                        group_by_fields=["resource.label.host"],
                    )
                ],
            ),
        )
        self._policy(rule, condition)

    def _policy(
        self,
        rule: Rule,
        condition: gcp.monitoring.AlertPolicyConditionArgs,
        limit: gcp.monitoring.AlertPolicyAlertStrategyNotificationRateLimitArgs | None = None,
    ) -> None:
        gcp.monitoring.AlertPolicy(
            f"{self._name}-{rule.name}",
            display_name=f"{self._name}: {rule.title}",
            combiner="OR",
            conditions=[condition],
            severity=rule.severity,
            notification_channels=self._channels,
            alert_strategy=gcp.monitoring.AlertPolicyAlertStrategyArgs(
                auto_close=_CLOSE_AFTER, notification_rate_limit=limit
            ),
            documentation=gcp.monitoring.AlertPolicyDocumentationArgs(
                content=_words(rule), mime_type="text/markdown"
            ),
            user_labels=self._args.labels,
            opts=self._child,
        )


def service_lines(service: str, wanted: str) -> str:
    """A filter of the service's own lines."""
    return f'resource.type="cloud_run_revision" AND resource.labels.service_name="{service}" AND ({wanted})'


def series(metric: str) -> str:
    """A log-based metric's name in PromQL (cloud.google.com/monitoring/promql/promql-mapping)."""
    return f"logging_googleapis_com:user_{re.sub(r'[^a-zA-Z0-9_]', '_', metric)}"


def _query(rule: CountRule | MetricRule | SilenceRule, query: str) -> str:
    return unless_planned(query) if rule.quiet_by_plan else query


def _words(rule: Rule) -> str:
    heading = RUNBOOKS.get(rule.name)
    return rule.remedy + (f"\n\nRunbook: docs/runbooks.md, {heading}" if heading else "")


def _promql(rule: Rule, query: str, minutes: int = 1) -> gcp.monitoring.AlertPolicyConditionArgs:
    return gcp.monitoring.AlertPolicyConditionArgs(
        display_name=rule.title,
        condition_prometheus_query_language=(
            gcp.monitoring.AlertPolicyConditionConditionPrometheusQueryLanguageArgs(
                query=query,
                duration=f"{60 * minutes}s",
                evaluation_interval="60s",
                disable_metric_validation=True,
            )
        ),
    )
