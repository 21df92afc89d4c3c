"""Every input of every resource against the facts about the real providers.

What is checked: names, types, required inputs, and the rules that the real providers apply at preview.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from localcloud.providers.rules import broken_rules
from localcloud.providers.schema import load_facts
from tests.stacks.inventory import VARIANTS
from tests.stacks.plan import Plan, plan_of, settings_of

_PLANS: dict[str, Plan] = {}


def plan(variant: str) -> Plan:
    """A variant's plan, made once."""
    if variant not in _PLANS:
        _PLANS[variant] = plan_of(settings_of(*VARIANTS[variant]))
    return _PLANS[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_real_providers_accept_every_input(variant: str) -> None:
    refused = []
    for resource in plan(variant).resources:
        facts = load_facts(resource.type.split(":")[0])
        checked, failures = facts.check(resource.type, dict(resource.inputs))
        failures += broken_rules(facts.resources[resource.type], checked, set())
        refused += [f"{resource.type} {resource.name}: {failure}" for failure in failures]
    assert not refused, "\n".join(refused)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_output_was_turned_into_a_string(variant: str) -> None:
    for resource in plan(variant).resources:
        text = json.dumps(resource.inputs)
        assert "Calling __str__ on an Output" not in text, resource.name
        assert "<pulumi.output.Output" not in text, resource.name


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_providers_hold_secret_is_marked_secret(variant: str) -> None:
    for resource in plan(variant).resources:
        facts = load_facts(resource.type.split(":")[0]).resources[resource.type]
        for name, known in facts.inputs.items():
            if known.secret and resource.inputs.get(name) is not None:
                assert name in resource.secrets, f"{resource.name}.{name} would be readable in the state"


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_secret_value_is_in_an_input_that_is_not_marked(variant: str) -> None:
    words = ("gateway-pa", "gatewayuser", "dop_v1", "database/pass", "database%2Fpass", "paperuser", "pa/ss")
    for resource in plan(variant).resources:
        visible = json.dumps(without(resource.inputs, resource.secrets))
        for word in words:
            assert word not in visible, f"{resource.type} {resource.name} shows {word}"


def without(value: Any, secrets: frozenset[str], path: str = "") -> Any:
    """Inputs with what is marked secret left out."""
    if path in secrets:
        return None
    if isinstance(value, dict):
        return {k: without(v, secrets, f"{path}.{k}" if path else k) for k, v in value.items()}
    if isinstance(value, list):
        return [without(v, secrets, f"{path}[{n}]") for n, v in enumerate(value)]
    return value
