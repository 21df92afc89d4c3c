"""Plans of the shipped stacks, made with values that stand for what a person sets.

What a provider makes of a plan is tested in tests/providers, and the whole with the real engine in tests/e2e.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stacks.settings import Settings, parse
from tools.plan import FOUNDATION_OUTPUTS, NUMBER, OWN_VALUES, Plan, Registered, as_text, place, plan_of

__all__ = ["FOUNDATION_OUTPUTS", "NUMBER", "Plan", "Registered", "plan_of"]  # what tests take from here

ROOT = Path(__file__).resolve().parents[2]
# Values of the secrets in tests; none of them may appear in a plan unmarked.
SECRETS = {
    "ibkr:gatewayCredentials": {"username": "gatewayuser", "password": "gateway-pa$$ \\ \"'"},
    "ibkr:databasePassword": "database/pass:word@?",
    "ibkr:digitaloceanToken": "dop_v1_service",
    "digitalocean:token": "dop_v1_provider",
}


def config_of(stack: str, overrides: Mapping[str, Any] | None = None) -> dict[str, str]:
    """A shipped stack's configuration with test secrets and overrides, as the engine passes it.

    An override's key may go into an object ("ibkr:gateway.port"); None removes.
    """
    shipped = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    tree: dict[str, Any] = {**shipped, **json.loads(json.dumps(SECRETS))}
    for number, user in enumerate(tree.get("ibkr:ibeam", {}).get("users", [])):
        user |= {"username": f"paperuser{number}", "password": "pa/ss&word"}
    own = OWN_VALUES.get(tree["ibkr:kind"], {})
    for path, value in {**own, **(overrides or {})}.items():
        place(tree, path, value)
    return as_text(tree)


def settings_of(stack: str, overrides: Mapping[str, Any] | None = None) -> Settings:
    """A shipped stack's settings, with overrides."""
    return parse(stack, config_of(stack, overrides))
