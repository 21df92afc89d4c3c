"""Plans as data: what a change does to each stack and variant shows in the diff of a file."""

from __future__ import annotations

import pytest

from tests.stacks.inventory import VARIANTS, differences, inventory_of, path_of, saved

GATEWAY_TYPES = ("gcp:compute/instance:Instance", "gcp:compute/firewall:Firewall", "gcp:compute/disk:Disk")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stack_declares_what_its_inventory_says(variant: str) -> None:
    lines = differences(saved(variant), inventory_of(variant))
    assert not lines, (
        "the plan changed; if that is meant, run `python -m tests.stacks.inventory --save` and have the "
        "diff reviewed:\n" + "\n".join(lines)
    )


@pytest.mark.parametrize("variant", ["local-alpaca", "staging-alpaca"])
def test_the_rollback_to_alpaca_leaves_no_gateway(variant: str) -> None:
    counts = saved(variant)["counts"]
    assert not [kind for kind in GATEWAY_TYPES if kind in counts], "the VM costs money and holds a login"
    assert "gateway" not in " ".join(saved(variant)["values"]), "its secret and its grants go with it"


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_inventory_holds_no_secret(variant: str) -> None:
    text = path_of(variant).read_text()
    for word in ("gateway-pa", "gatewayuser", "dop_v1", "database/pass", "pa/ss", "alpaca-secret\n"):
        assert word not in text
