"""The alerts part of an environment: rules for what there is, told to whom the configuration names."""

from __future__ import annotations

from components.alert_rules import GATEWAY, SERVICE, fleet
from components.observability import Observability, ObservabilityArgs
from stacks.database import labels
from stacks.foundation import Foundation
from stacks.settings import Settings


def declare_alerting(settings: Settings, foundation: Foundation, service: str) -> None:
    """Declares channels and alert policies over the lines of the Cloud Run service of that name."""
    rules = SERVICE
    if settings.broker_type == "ibkr":
        rules += GATEWAY
    if settings.runs_fleet:
        rules += fleet(settings.fleet.reconcile_minutes)
    Observability(
        f"{settings.name_prefix}-alerts",
        ObservabilityArgs(service, settings.alerts.emails, rules, labels(settings)),
        foundation.after("monitoring", "logging"),
    )
