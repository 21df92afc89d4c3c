"""Open pages, calls and what Cloud Run gives an instance; and the budget and the look from outside."""

from __future__ import annotations

from typing import Any

import pytest

from components import capacity
from stacks.problems import SettingsError
from tests.stacks.inventory import ALPACA, FLEET, VARIANTS
from tests.stacks.plan import plan_of, settings_of

SERVICES = [name for name in VARIANTS if not name.startswith("foundation")]
ACCOUNT = "012345-6789AB-CDEF01"


@pytest.mark.parametrize("variant", SERVICES)
def test_open_pages_fit_and_leave_requests_for_calls(variant: str) -> None:
    settings = settings_of(*VARIANTS[variant])
    template = plan_of(settings).one("cloudrunv2/service:Service").inputs["template"]
    found = {entry["name"]: entry.get("value") for entry in template["containers"][0]["envs"]}
    streams, at_a_time = int(found["STREAM_LIMIT"]), template["maxInstanceRequestConcurrency"]
    instances = template["scaling"]["maxInstanceCount"]
    assert at_a_time - streams >= 50, "an order must not wait until somebody closes a page"
    assert streams * instances >= settings.api.dashboards
    assert int(found["STREAM_SECONDS"]) < int(template["timeout"].removesuffix("s")), "or it ends as an error"


@pytest.mark.parametrize("dashboards", [1, 49, 100, 950])
@pytest.mark.parametrize("instances", [1, 3])
def test_the_concurrency_that_is_proposed_is_the_least_that_fits(dashboards: int, instances: int) -> None:
    proposed = capacity.concurrency_for(dashboards, instances)
    assert capacity.pages(proposed, instances) >= dashboards > capacity.pages(proposed - 1, instances)


def problems(stack: str, overrides: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        settings_of(stack, overrides)
    return [str(problem) for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("stack", "overrides", "says"),
    [
        ("staging", {"ibkr:api.concurrency": 80}, "ibkr:api.concurrency = 80: is too few for 100 open pages"),
        (
            "staging",
            {"ibkr:api.dashboards": 400},
            "in one instance, which keeps 50 requests for calls: use 450",
        ),
        ("staging", {"ibkr:api.dashboards": 2000}, "plan with 950 pages"),
        ("staging", {**ALPACA, "ibkr:api.dashboards": 600}, "in each of 3 instances"),
        (
            "staging",
            {"ibkr:monitoring.uptimeCheck": True, "ibkr:api.public": False},
            "Google's checkers ask without a token",
        ),
        ("staging", {"ibkr:budget": {"billingAccount": ACCOUNT, "amount": 1}}, "the foundation's file"),
        ("foundation-prod", {"ibkr:budget.amount": 250}, "ibkr:budget.billingAccount: is missing"),
        ("foundation-prod", {"ibkr:budget.billingAccount": ACCOUNT}, "ibkr:budget.amount: is missing"),
        (
            "foundation-prod",
            {"ibkr:budget.billingAccount": "my-account", "ibkr:budget.amount": 1},
            "012345-6789AB",
        ),
        ("foundation-prod", {"ibkr:budget.amount": 0}, "greater than or equal to 1"),
        ("foundation-prod", {"ibkr:budget.thresholds": [1.0, 0.5]}, "the smallest first"),
        ("foundation-prod", {"ibkr:budget.thresholds": []}, "the smallest first"),
        ("foundation-prod", {"ibkr:budget.currency": "dollars"}, "three capital letters"),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(stack: str, overrides: dict[str, Any], says: str) -> None:
    [problem] = problems(stack, overrides)
    assert says in problem


def test_more_instances_hold_more_pages() -> None:
    settings_of("staging", {**ALPACA, "ibkr:api.dashboards": 450})
    settings_of("staging", {**FLEET, "ibkr:api.dashboards": 150})


def test_a_budget_is_declared_only_where_a_billing_account_is_named() -> None:
    assert plan_of(settings_of("foundation-prod")).of("billing/budget:Budget") == []
    about = {"billingAccount": ACCOUNT, "amount": 250, "thresholds": [0.8]}
    emails = {"ibkr:alerts": {"emails": ["ann@trader.test"]}}
    plan = plan_of(settings_of("foundation-prod", {"ibkr:budget": about, **emails}))
    budget = plan.one("billing/budget:Budget").inputs
    assert budget["amount"]["specifiedAmount"] == {"units": "250"}, "in the account's own currency"
    assert [(rule["thresholdPercent"], rule["spendBasis"]) for rule in budget["thresholdRules"]] == [
        (0.8, "CURRENT_SPEND"),
        (1, "FORECASTED_SPEND"),
    ]
    assert len(budget["allUpdatesRule"]["monitoringNotificationChannels"]) == 1
    assert "ibkr-services-billingbudgets" in plan.one("billing/budget:Budget").waits_for
