"""Names that a program leaves to the provider: the resource's own name and a random suffix.

As the real providers do, so that a replacement can be created before the old one is deleted.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from localcloud.providers.resource import CHOSEN
from localcloud.providers.schema import ResourceFacts

SUFFIX_LENGTH = 7


def has_autoname(facts: ResourceFacts) -> bool:
    """Whether the type's `name` may be left out."""
    name = facts.inputs.get("name")
    return name is not None and not name.required and name.type == "string"


def with_name(
    facts: ResourceFacts, inputs: dict[str, Any], old: dict[str, Any], urn: str, seed: bytes, proposed: str
) -> dict[str, Any]:
    """Inputs with a name and a note of who chose it; an update keeps the name chosen before.

    `proposed` is the engine's own choice (`pulumi:autonaming` in the project), empty if it has none.
    """
    if not has_autoname(facts):
        return inputs
    if inputs.get("name") is not None:
        return {**inputs, CHOSEN: []}
    name = old.get("name") if "name" in (old.get(CHOSEN) or []) else None
    return {**inputs, "name": name or proposed or chosen_name(urn, seed), CHOSEN: ["name"]}


def chosen_name(urn: str, seed: bytes) -> str:
    """`network-3f2a91c`: the URN's last part and hex digits, the same for the same seed."""
    stem = urn.rsplit("::", 1)[-1].lower()
    digits = hashlib.sha256(seed + urn.encode()).hexdigest() if seed else secrets.token_hex(SUFFIX_LENGTH)
    return f"{stem[: 63 - SUFFIX_LENGTH - 1]}-{digits[:SUFFIX_LENGTH]}"


def fixed_name(facts: ResourceFacts, inputs: dict[str, Any]) -> bool:
    """Whether the program chose the name, so that old and new can't exist side by side."""
    return has_autoname(facts) and CHOSEN in inputs and "name" not in inputs[CHOSEN]
