"""Writes and compares the inventories: what each stack and variant declares, as data for a reviewer.

    python -m tests.stacks.inventory           says what differs
    python -m tests.stacks.inventory --save    writes the files anew

An inventory has the stack and the settings that it is made from, `counts` by resource type (a type that
isn't listed must be absent), and `values`: each resource's inputs by its address. Secrets are shown as
such, and long texts (user data) are left out.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from stacks.fingerprint import fingerprint
from tests.stacks.plan import ROOT, Plan, plan_of, settings_of

FOLDER = Path(__file__).parent / "inventories"
# They change with every line of code, which says nothing about the plan.
FINGERPRINTS = {
    fingerprint(ROOT / "broker" / "service" / "migrations"): "(fingerprint of the migrations)",
    fingerprint(ROOT / "broker"): "(fingerprint of the code)",
}
LONGEST = 400
ALPACA = {
    "ibkr:brokerType": "alpaca",
    "ibkr:gateway.enabled": False,
    "ibkr:gatewayCredentials": None,
    "ibkr:marketDataSource": "yfinance",
    "ibkr:alpaca.apiKey": "alpaca-key",
    "ibkr:alpaca.secretKey": "alpaca-secret",
}
FLEET = {
    "ibkr:fleet.enabled": True,
    "ibkr:ibeam.holdCredentials": True,
    "ibkr:api.public": False,
    "ibkr:fleet.serviceUrl": "https://api.trader.test/",
}
BOTH = {
    "ibkr:gateway.mode": "both",
    "ibkr:gateway.machineType": "e2-medium",
    "ibkr:paperCredentials": {"username": "paperuser", "password": "paper-password"},
    "ibkr:liveCredentials": {"username": "liveuser", "password": "live-password"},
}
# Variant -> the shipped stack that it starts from, and what it changes.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("local", {}),
    "local-alpaca": ("local", ALPACA),
    "staging": ("staging", {}),
    "staging-alpaca": ("staging", {**ALPACA, "ibkr:digitaloceanToken": None}),
    "staging-operator": ("staging", {"ibkr:operators": ["user:ann@trader.test"]}),
    "staging-alerts": (
        "staging",
        {
            "ibkr:alertUrls": "tgram://12345:token/678",
            "ibkr:alerts": {"emails": ["ann@trader.test"]},
            "ibkr:limits": {"maxOrderValue": 5000, "maxShortQty": "none", "symbolsAllowed": ["AAPL", "MSFT"]},
        },
    ),
    "staging-both": ("staging", BOTH),
    "staging-fleet": ("staging", FLEET),
    "local-ibeam": ("local", {"ibkr:brokerType": "ibeam"}),
    "prod": ("prod", {}),
    "foundation-staging": ("foundation-staging", {}),
    "foundation-prod": ("foundation-prod", {}),
    "foundation-budget": (
        "foundation-prod",
        {
            "ibkr:budget": {"billingAccount": "012345-6789AB-CDEF01", "amount": 250},
            "ibkr:alerts": {"emails": ["ann@trader.test"]},
        },
    ),
    "foundation-fleet": ("foundation-staging", {"ibkr:fleet.enabled": True}),
}


def inventory_of(variant: str) -> dict[str, Any]:
    """The inventory of a variant as the program stands."""
    stack, overrides = VARIANTS[variant]
    plan = plan_of(settings_of(stack, overrides))
    return {
        "stack": stack,
        "settings": shown_settings(overrides),
        "counts": dict(sorted(Counter(found.type for found in plan.resources).items())),
        "values": values_of(plan),
    }


def shown_settings(overrides: dict[str, Any]) -> dict[str, Any]:
    hidden = ("ibkr:alpaca.", "ibkr:alertUrls", "ibkr:paperCredentials", "ibkr:liveCredentials")
    return {key: "(secret)" if key.startswith(hidden) else value for key, value in overrides.items()}


def values_of(plan: Plan) -> dict[str, Any]:
    """Every resource's inputs by its address, secrets and long texts aside."""
    values = {}
    for resource in plan.resources:
        inputs = {key: _shown(value, key, resource.secrets) for key, value in sorted(resource.inputs.items())}
        values[f"{resource.type} {resource.name}"] = {
            key: value for key, value in inputs.items() if value is not None
        }
    return values


def _shown(value: Any, path: str, secrets: frozenset[str]) -> Any:
    if path in secrets:
        return "(secret)"
    if isinstance(value, dict):
        shown = {key: _shown(item, f"{path}.{key}", secrets) for key, item in sorted(value.items())}
        return {key: item for key, item in shown.items() if item is not None}
    if isinstance(value, list):
        return [_shown(item, f"{path}[{number}]", secrets) for number, item in enumerate(value)]
    if isinstance(value, str) and len(value) > LONGEST:
        return None
    return FINGERPRINTS.get(value, value) if isinstance(value, str) else value


def path_of(variant: str) -> Path:
    return FOLDER / f"{variant}.yaml"


def saved(variant: str) -> dict[str, Any]:
    """The inventory as it was saved; empty if it wasn't."""
    path = path_of(variant)
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def differences(wanted: Any, found: Any, at: str = "") -> list[str]:
    """What differs between two inventories, one line each, by path."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        lines = []
        for key in sorted(wanted.keys() | found.keys()):
            place = f"{at} > {key}" if at else str(key)
            if key not in found:
                lines.append(f"{place}: gone")
            elif key not in wanted:
                lines.append(f"{place}: new")
            else:
                lines += differences(wanted[key], found[key], place)
        return lines
    return [] if wanted == found else [f"{at}: {wanted!r} -> {found!r}"]


def main(arguments: list[str]) -> int:
    """The command. Returns 1 if an inventory differs and isn't saved."""
    if arguments not in ([], ["--save"]):
        print(__doc__, file=sys.stderr)
        return 2
    changed = False
    FOLDER.mkdir(exist_ok=True)
    for variant in VARIANTS:
        found = inventory_of(variant)
        lines = differences(saved(variant), found)
        changed = changed or bool(lines)
        print(f"{variant}: {len(lines)} differences", *(f"    {line}" for line in lines), sep="\n")
        if arguments == ["--save"]:
            path_of(variant).write_text(
                f"# What `{variant}` declares. Written by: python -m tests.stacks.inventory --save\n"
                + yaml.safe_dump(found, sort_keys=False, width=110)
            )
    return 1 if changed and not arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
