"""Relations of the service's settings: open pages, what watches it from outside, and the budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from components import capacity
from stacks.problems import Problem

if TYPE_CHECKING:
    from stacks.settings import Settings


def _dashboards(settings: Settings) -> Iterator[Problem]:
    """Pages that are open must leave room for calls (components/capacity.py)."""
    api = settings.api
    if not settings.declares_environment:
        return
    instances = settings.service_instances
    if api.dashboards <= capacity.pages(api.concurrency, instances):
        return
    wanted = capacity.concurrency_for(api.dashboards, instances)
    where = "one instance" if instances == 1 else f"each of {instances} instances"
    remedy = (
        f"is too few for {api.dashboards} open pages (ibkr:api.dashboards) in {where}, which keeps "
        f"{capacity.CALLS} requests for calls: "
    )
    if wanted <= capacity.MOST_CONCURRENT:
        remedy += f"use {wanted}"
    else:
        remedy += (
            f"{wanted} would be needed, and Cloud Run gives {capacity.MOST_CONCURRENT} at most; plan with "
            f"{capacity.pages(capacity.MOST_CONCURRENT, instances)} pages"
        )
    because = ("ibkr:api.dashboards", "ibkr:api.maxInstances", "ibkr:brokerType")
    yield Problem("ibkr:api.concurrency", str(api.concurrency), remedy, because)


def _uptime_check(settings: Settings) -> Iterator[Problem]:
    if settings.monitoring.uptime_check and not settings.api.public and settings.declares_environment:
        yield Problem(
            "ibkr:monitoring.uptimeCheck",
            "true",
            "Google's checkers ask without a token, and ibkr:api.public is false: they would be refused. "
            "Leave it out, or have whatever stands before the service checked",
            because=("ibkr:api.public",),
        )


def _budget(settings: Settings) -> Iterator[Problem]:
    budget = settings.budget
    if budget.amount is None and budget.billing_account is None:
        return
    if not settings.declares_foundation:
        yield Problem(
            "ibkr:budget",
            "",
            "belongs into the foundation's file: it watches the whole Google project, and goes on when the "
            "environment is taken away",
            because=("ibkr:kind",),
        )
    elif budget.billing_account is None:
        yield Problem(
            "ibkr:budget.billingAccount",
            "",
            "is missing: whose budget is it? `gcloud billing accounts list` shows the id",
        )
    elif budget.amount is None:
        yield Problem(
            "ibkr:budget.amount",
            "",
            "is missing: a month's budget in whole units of the billing account's currency; `make cost` says "
            "what to expect",
        )


CHECKS = (_dashboards, _uptime_check, _budget)
