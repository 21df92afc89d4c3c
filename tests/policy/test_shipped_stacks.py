"""No stack that is shipped, in none of its variants, breaks a rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policy.exposure import _SECRET_KEYS
from policy.model import Resource, Secret, Stack
from policy.rules import RULES
from stacks.sections import Config
from stacks.settings import _holds_secret, _models_in
from tests.stacks.inventory import VARIANTS
from tests.stacks.plan import config_of, plan_of, settings_of


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_rules_hold(variant: str) -> None:
    stack, overrides = VARIANTS[variant]
    config = config_of(stack, overrides)
    checked = Stack(
        stack, {key: json.loads(text) if text[:1] in "{[" else text for key, text in config.items()}
    )
    found = [
        f"{rule}: {registered.name} {problem}"
        for registered in plan_of(settings_of(stack, overrides)).resources
        for rule, check in RULES.items()
        for problem in check(
            Resource(
                registered.type,
                registered.name,
                marked(registered.inputs, registered.secrets),
                registered.options["protect"],
            ),
            checked,
        )
    ]
    assert not found, "\n".join(found)


def marked(value: Any, secrets: frozenset[str], path: str = "") -> Any:
    """Inputs with their secrets marked, as the engine sends them."""
    if path in secrets:
        return Secret(value)
    if isinstance(value, dict):
        return {key: marked(item, secrets, f"{path}.{key}" if path else key) for key, item in value.items()}
    if isinstance(value, list):
        return [marked(item, secrets, f"{path}[{number}]") for number, item in enumerate(value)]
    return value


def test_the_pack_knows_every_secret_of_the_configuration() -> None:
    def secrets_in(model: Any) -> set[str]:
        found = set()
        for field in model.model_fields.values():
            inner = _models_in(field.annotation)
            if inner:
                found |= {name for one in inner for name in secrets_in(one)}
            elif _holds_secret(field.annotation):
                found.add(str(field.alias))
        return found

    assert secrets_in(Config) <= _SECRET_KEYS, "policy/exposure.py doesn't look for this one"
