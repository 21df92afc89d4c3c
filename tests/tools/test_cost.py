"""What a stack costs: the arithmetic, the prices' sources, and that nothing that is shipped is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import cost, cost_lines, cost_plan
from tools.cost_lines import lines_of, price, prices, total
from tools.environments import CHECKOUT
from tools.local_cloud import CommandFailed

pytestmark = pytest.mark.timeout(300)  # plans are made in processes of their own, beside whatever else runs
STACKS = [file.name[7:-5] for file in sorted(CHECKOUT.glob("Pulumi.*.yaml"))]


def plan(stack: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    made = cost_plan.plan(stack, overrides or {}, CHECKOUT)
    assert "refused" not in made, made.get("refused")
    return made


def usd(lines: list[cost_lines.Line], component: str) -> float:
    return total([line for line in lines if line.component == component])


@pytest.fixture(scope="module")
def staging() -> dict[str, Any]:
    return plan("staging")


@pytest.fixture(scope="module")
def bills() -> list[cost.Bill]:
    """Of staging as it is, with the estimate's machine, and with a larger one."""
    larger = {"ibkr:gateway.machineType": "e2-medium"}
    made = cost.bills("staging", [{}, cost.CHOICES[0].overrides, larger])
    return [one for one in made if one is not None]


def test_every_price_says_its_unit_place_source_and_date() -> None:
    listed = json.loads((CHECKOUT / "tools" / "prices.json").read_text())
    assert len(listed) == len(prices()), "two prices share an id"
    for entry in listed:
        assert all(entry[key] for key in ("id", "item", "unit", "region", "source", "source_date")), entry


def test_a_price_that_nobody_knows_is_an_error_and_not_a_zero() -> None:
    for name in ("gce-m3-ultramem-128", "droplet-ipv4-unused"):
        with pytest.raises(cost_lines.UnknownPriceError):
            price(name)


@pytest.mark.parametrize("stack", STACKS)
def test_everything_that_a_shipped_stack_declares_is_priced_or_known_to_be_free(stack: str) -> None:
    assert not lines_of(plan(stack))[1], "give it a price, or a place in FREE, in tools/cost_lines.py"


def test_the_gateways_set_up_costs_what_the_price_lists_say(staging: dict[str, Any]) -> None:
    lines, _ = lines_of(staging)
    assert usd(lines, "IB Gateway VM") == pytest.approx(12.2296 + 20 * 0.1 + 10 * 0.1, abs=0.01)
    assert usd(lines, "VPC connector") == pytest.approx(2 * 6.1148, abs=0.01)
    always_on = [line for line in lines if "always on" in line.item]
    assert total(always_on) == pytest.approx(730 * 3600 * (1.8e-5 + 2e-6), abs=0.01)
    assert usd(lines, "Database") == pytest.approx(7.665 + 10 * 0.17 + 10 * 0.08, abs=0.01)
    assert usd(lines, "Way out (NAT)") == pytest.approx(3.65 + 3 * 1.022 + 5 * 0.045, abs=0.01)


def test_a_highly_available_database_is_paid_twice() -> None:
    lines, _ = lines_of(plan("foundation-prod"))
    one = 730 * (0.0413 + 3.75 * 0.007)
    assert usd(lines, "Database") == pytest.approx(2 * (one + 10 * 0.17) + 10 * 0.08, abs=0.01)


def test_without_a_connection_to_hold_the_service_is_paid_by_use() -> None:
    lines, _ = lines_of(plan("staging", cost.CHOICES[-1].overrides))
    assert usd(lines, "API service") < 5
    assert not usd(lines, "IB Gateway VM")


def test_market_data_of_ibkr_is_on_the_bill_where_it_is_used() -> None:
    lines, _ = lines_of(plan("staging", {"ibkr:marketDataSource": "ibkr"}))
    assert usd(lines, "Market data") == 14.5


def test_hibernating_saves_what_a_droplet_costs_outside_trading_hours() -> None:
    assert cost_lines.droplet_month("s-1vcpu-1gb") == pytest.approx(6.0, abs=0.01), "the cap makes the price"
    assert cost_lines.droplet_month("s-1vcpu-1gb", 157.5) == pytest.approx(157.5 * 0.00893)


def test_a_type_that_nobody_priced_is_named(staging: dict[str, Any]) -> None:
    added = {"type": "gcp:redis/instance:Instance", "name": "cache", "inputs": {}}
    _, unpriced = lines_of({**staging, "resources": [*staging["resources"], added]})
    assert unpriced == ["gcp:redis/instance:Instance cache: this type isn't known"]


def test_the_report_shows_components_users_the_estimate_and_what_can_go(bills: list[cost.Bill]) -> None:
    bill, smaller, _ = bills
    said = cost.table("staging", bill, [(cost.CHOICES[0], smaller)])
    assert f"staging: {bill.usd:.2f} dollars a month" in said
    assert re.search(r"Total +26-80 +\d", said), "the migration plan's own total"
    assert re.search(r"e2-micro, as the estimate has it +-6\.11 +gives up: 1 GB", said)
    assert "hibernated outside trading hours 1.41" in said
    assert "10 users" in said
    assert "Not priced" not in said


def test_the_readme_agrees(bills: list[cost.Bill]) -> None:
    bill = bills[0]
    found = re.search(r"about (\d+) dollars a month", (CHECKOUT / "README.md").read_text())
    assert found is not None
    assert int(found[1]) == pytest.approx(bill.usd - bill.free, abs=5), "README.md: make cost STACK=staging"


def test_a_difference_is_a_table_of_what_changes(bills: list[cost.Bill]) -> None:
    bill, _, after = bills
    said = cost.difference("staging", bill, after)
    assert said.startswith(f"### Cost of `staging`: {after.usd:.2f} dollars a month (+12.23)")
    assert "| IB Gateway VM | e2-small, all month | 12.23 | 0.00 | -12.23 |" in said
    assert "| IB Gateway VM | e2-medium, all month | 0.00 | 24.46 | +24.46 |" in said
    assert "VPC connector" not in said
    assert cost.difference("staging", bill, bill).endswith(", unchanged")
    assert "a new stack" in cost.difference("staging", None, bill)


def test_another_commits_plan_is_made_by_that_commit(tmp_path: Path) -> None:
    before = cost.at_commit("HEAD", "staging", tmp_path)
    assert before is not None
    assert before.usd > 0
    assert (tmp_path / "Pulumi.staging.yaml").exists()


def test_a_base_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="BASE=no-such-commit isn't a commit here"):
        cost.at_commit("no-such-commit", "staging", tmp_path)


def test_no_secret_is_needed_and_none_is_told(tmp_path: Path) -> None:
    """Encrypted values stay encrypted: something else is put in their place."""
    tree = yaml.safe_load((CHECKOUT / "Pulumi.staging.yaml").read_text())
    tree["config"] |= {
        "ibkr:gatewayCredentials": {"username": {"secure": "v1:aaaa"}, "password": {"secure": "v1:bbbb"}},
        "ibkr:databasePassword": {"secure": "v1:cccc"},
        "ibkr:alertUrls": {"secure": "v1:dddd"},
    }
    (tmp_path / "Pulumi.staging.yaml").write_text(yaml.safe_dump(tree))
    made = cost_plan.plan("staging", {}, tmp_path)
    assert "refused" not in made, made.get("refused")
    told = json.dumps(made)
    assert "v1:" not in told
    assert cost_plan.FILLED not in told, "a secret's value has no place in a plan that is priced"


def test_settings_that_are_refused_are_said() -> None:
    with pytest.raises(CommandFailed, match="gateway"):
        cost.bills("staging", [{"ibkr:gateway.machineType": "e2-tiny"}])


def test_the_page_about_cost_agrees(bills: list[cost.Bill]) -> None:
    page = (CHECKOUT / "docs" / "cost.md").read_text()
    told = re.search(r"\*\*together\*\* \| \*\*([\d.]+)\*\*", page)
    assert told is not None
    assert float(told[1]) == pytest.approx(bills[0].usd, rel=0.02), "docs/cost.md: make cost STACK=staging"
    production = cost.bills("prod", [{}])[0]
    assert production is not None
    of_production = re.search(r"of its ([\d.]+)\.", page)
    assert of_production is not None
    assert float(of_production[1]) == pytest.approx(production.usd, rel=0.02)
