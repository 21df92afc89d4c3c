"""What watches an environment: a dashboard, a look from outside, and alerts to whom the configuration
names.
"""

from __future__ import annotations

import pulumi

from components.alert_rules import GATEWAY, OUTSIDE, SERVICE, fleet
from stacks.database import labels
from stacks.foundation import Foundation
from stacks.settings import Settings


def declare_monitoring(
    settings: Settings,
    foundation: Foundation,
    service_url: pulumi.Output[str],
    database_instance: pulumi.Input[str],
) -> None:
    """Declares what the settings want of it, for the environment's service."""
    prefix, service = settings.name_prefix, f"{settings.name_prefix}-api"
    ready = foundation.after("monitoring", "logging")
    check = _uptime(settings, service_url, ready) if settings.checks_uptime else None
    if settings.monitoring.dashboard:
        from components.dashboard import Dashboard, DashboardArgs

        Dashboard(
            f"{prefix}-monitoring",
            DashboardArgs(
                prefix=prefix,
                project=settings.project,
                service=service,
                database_instance=database_instance,
                gateway=settings.gateway.enabled,
                fleet=settings.runs_fleet,
                uptime_check=check,
                labels=labels(settings),
            ),
            ready,
        )
    if settings.alerts.emails:
        from components.observability import Observability, ObservabilityArgs

        rules = SERVICE
        if settings.broker_type == "ibkr":
            rules += GATEWAY
        if settings.runs_fleet:
            rules += fleet(settings.fleet.reconcile_minutes)
        if check is not None:
            rules += OUTSIDE
        Observability(
            f"{prefix}-alerts",
            ObservabilityArgs(service, settings.alerts.emails, rules, labels(settings), check),
            ready,
        )


def _uptime(
    settings: Settings, service_url: pulumi.Output[str], ready: pulumi.ResourceOptions
) -> pulumi.Output[str]:
    from components.uptime import Uptime, UptimeArgs

    args = UptimeArgs(settings.project, service_url, labels(settings))
    return Uptime(f"{settings.name_prefix}-uptime", args, ready).check_id
