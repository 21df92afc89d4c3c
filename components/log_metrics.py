"""Time series that Cloud Logging makes of the service's log lines, for the dashboard.

`TOLD` has all that the service tells of itself each five minutes (broker/service/told_metrics.py), under the
metrics' own names; the others are the requests that it answered. They are distributions, so that sum, count
and percentiles can be had of them. What they cost: docs/cost.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_gcp as gcp

from components.observability import service_lines

# Milliseconds from 1 to about 50,000, each bucket 40 % wider than the one before.
_BUCKETS, _GROWTH, _FIRST = 32, 1.4, 1.0


@dataclass(frozen=True, slots=True)
class LogMetric:
    """A number in each line that matches `filter`; `labels` are the line's fields by the label's name."""

    name: str
    description: str
    filter: str
    value: str
    labels: Mapping[str, str] = field(default_factory=dict)


TOLD = LogMetric(
    "told",
    "What the service tells of itself each five minutes: gauges as they are, counters as what was added",
    'jsonPayload.event="metric"',
    "jsonPayload.value",
    {"name": "jsonPayload.name", "label": "jsonPayload.label"},
)
REQUESTS = LogMetric(
    "requests",
    "Milliseconds that requests took, streams aside",
    'jsonPayload.event="request" AND NOT jsonPayload.path=~"^/live/|/events$"',
    "jsonPayload.ms",
    {"status": "jsonPayload.status"},
)
ORDERS = LogMetric(
    "orders",
    "Milliseconds that orders took, from the API and the dashboard",
    'jsonPayload.event="request" AND jsonPayload.method="POST" AND '
    'jsonPayload.path=~"^/api/v1/connections/[^/]+/orders$|^/orders/[^/]+$"',
    "jsonPayload.ms",
    {"status": "jsonPayload.status"},
)
LOG_METRICS = (TOLD, REQUESTS, ORDERS)


def metric_name(prefix: str, metric: LogMetric) -> str:
    """Its name in Cloud Logging."""
    return f"{prefix}-service-{metric.name}"


def declare_log_metric(
    prefix: str, metric: LogMetric, service: str, opts: pulumi.ResourceOptions
) -> gcp.logging.Metric:
    """The metric over the lines of the Cloud Run service of that name."""
    name = metric_name(prefix, metric)
    return gcp.logging.Metric(
        f"{name}-metric",
        name=name,
        description=metric.description,
        filter=service_lines(service, metric.filter),
        value_extractor=f"EXTRACT({metric.value})",
        label_extractors={label: f"EXTRACT({at})" for label, at in metric.labels.items()},
        metric_descriptor=gcp.logging.MetricMetricDescriptorArgs(
            metric_kind="DELTA",
            value_type="DISTRIBUTION",
            labels=[
                gcp.logging.MetricMetricDescriptorLabelArgs(key=label, value_type="STRING")
                for label in metric.labels
            ],
        ),
        bucket_options=gcp.logging.MetricBucketOptionsArgs(
            exponential_buckets=gcp.logging.MetricBucketOptionsExponentialBucketsArgs(
                num_finite_buckets=_BUCKETS, growth_factor=_GROWTH, scale=_FIRST
            )
        ),
        opts=opts,
    )
