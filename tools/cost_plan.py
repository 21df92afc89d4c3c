"""Plans to be priced: `python -m tools.cost_plan --stack staging`, without any account.

Run in the folder whose program and configuration are meant, so that another commit's plan is made by that
commit. Reads a JSON list of overrides from its input, one plan for each ({} is the stack as it is
configured), and prints as many plans. What only a person has (secrets, a project of their own) is filled in,
since it costs nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stacks.problems import SettingsError
from stacks.settings import Settings, parse
from tools.plan import OWN_VALUES, as_text, place, plan_of

FILLED = "filled-in"
NEEDED = {
    "ibkr:gatewayCredentials": {"username": FILLED, "password": FILLED},
    "ibkr:paperCredentials": {"username": f"{FILLED}-paper", "password": FILLED},
    "ibkr:liveCredentials": {"username": f"{FILLED}-live", "password": FILLED},
    "ibkr:databasePassword": FILLED,
}
# Where a filled-in secret must look like what it stands for.
FORMS = {"ibkr:alertUrls": "json://filled-in"}


def configuration(stack: str, overrides: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """A stack's configuration as the engine passes it, with what only a person has filled in."""
    tree: dict[str, Any] = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())["config"]
    tree = {key: FORMS.get(key, _revealed(value)) for key, value in tree.items()}
    for key, value in NEEDED.items():
        tree.setdefault(key, value)
    for number, user in enumerate((tree.get("ibkr:ibeam") or {}).get("users") or []):
        user["username"] = f"{FILLED}-{number}"  # IBKR allows one session a user, and so do the settings
        user["password"] = FILLED
    if (tree.get("ibkr:fleet") or {}).get("enabled"):
        tree.setdefault("ibkr:digitaloceanToken", FILLED)
    for path, value in OWN_VALUES.get(tree.get("ibkr:kind", "environment"), {}).items():
        if _is_placeholder(_at(tree, path)):
            place(tree, path, value)
    for path, value in overrides.items():
        place(tree, path, value)
    if "alpaca" in (tree.get("ibkr:brokerType"), tree.get("ibkr:marketDataSource")):
        for name in ("apiKey", "secretKey"):
            tree.setdefault("ibkr:alpaca", {}).setdefault(name, FILLED)
    return as_text(tree)


def _revealed(value: Any) -> Any:
    """Encrypted values are replaced, at any depth."""
    if isinstance(value, dict):
        return FILLED if "secure" in value else {key: _revealed(item) for key, item in value.items()}
    return [_revealed(item) for item in value] if isinstance(value, list) else value


def _is_placeholder(value: Any) -> bool:
    return value is None or "your-" in str(value) or "example.com" in str(value)


def _at(tree: Any, path: str) -> Any:
    for part in path.split(".") if path.startswith("ibkr:") else [path]:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def plan(stack: str, overrides: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the stack declares, as data without secrets; or why its settings refuse to."""
    try:
        # That a token is there is enough for the settings.
        config = configuration(stack, overrides, folder)
        settings = parse(stack, config, environment={"DIGITALOCEAN_TOKEN": FILLED})
    except SettingsError as refused:
        return {"refused": str(refused)}
    resources = [
        {"type": found.type, "name": found.name, "inputs": _open(found.inputs, found.secrets)}
        for found in plan_of(settings).resources
    ]
    return {"resources": resources, "settings": _read(settings)}


def _open(value: Any, secrets: frozenset[str], path: str = "") -> Any:
    if path in secrets:
        return None
    if isinstance(value, dict):
        return {key: _open(item, secrets, f"{path}.{key}" if path else key) for key, item in value.items()}
    if isinstance(value, list):
        return [_open(item, secrets, f"{path}[{number}]") for number, item in enumerate(value)]
    return value


def _read(settings: Settings) -> dict[str, Any]:
    """What of the settings the prices depend on, beside the resources."""
    return {
        "local": settings.local,
        "foundation": str(settings.foundation_stack or "").rpartition("/")[2],
        "market_data": settings.market_data_source,
        "broker": settings.broker_type,
        "environment": settings.declares_environment,
        "size": settings.ibeam.size,
        "demo_size": settings.ibeam.demo_size,
    }


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.cost_plan", description=__doc__)
    parser.add_argument("--stack", required=True)
    stack = parser.parse_args().stack
    json.dump([plan(stack, overrides, Path.cwd()) for overrides in json.load(sys.stdin)], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
