"""A dashboard in Cloud Monitoring, and the log-based metrics that it shows.

It shows what is alerted of (components/alert_rules.py) and what leads up to it. Whoever may see the project's
metrics may see it; it holds no account number, no user's name and no secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components import panels
from components.log_metrics import LOG_METRICS, declare_log_metric
from components.options import child_options


@dataclass(frozen=True, slots=True)
class DashboardArgs:
    """Names of what it shows; `gateway` is whether there is a VM, `uptime_check` None where none is made."""

    prefix: str
    project: str
    service: str
    database_instance: pulumi.Input[str]
    gateway: bool
    fleet: bool
    uptime_check: pulumi.Input[str] | None
    labels: Mapping[str, str]


class Dashboard(pulumi.ComponentResource):
    """The dashboard of one environment."""

    id: pulumi.Output[str]

    def __init__(self, name: str, args: DashboardArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:observability:Dashboard", name, None, opts)
        child = child_options(self, opts)
        for metric in LOG_METRICS:
            declare_log_metric(args.prefix, metric, args.service, child)

        def shown(names: tuple[str, str | None]) -> str:
            instance, check = names
            watched = panels.Watched(
                args.prefix, args.service, f"{args.project}:{instance}", args.gateway, args.fleet, check
            )
            title = f"{args.prefix}: {args.labels['stack']}"
            return json.dumps(panels.dashboard(title, sorted(args.labels.values()), panels.sections(watched)))

        self.id = gcp.monitoring.Dashboard(
            f"{name}-dashboard",
            dashboard_json=pulumi.Output.all(args.database_instance, args.uptime_check).apply(
                lambda names: shown((names[0], names[1]))
            ),
            opts=child,
        ).id
        self.register_outputs({"id": self.id})
