"""A stack's declaration, by its kind."""

from __future__ import annotations

from typing import Any

from stacks import foundation
from stacks.settings import Settings


async def declare(settings: Settings) -> dict[str, Any]:
    """Declares everything that the settings ask for, and returns the stack's outputs."""
    outputs: dict[str, Any] = {}
    if settings.declares_foundation:
        base, outputs = await foundation.declare(settings)
    else:
        base = foundation.referenced(settings)
    if settings.declares_environment:
        from stacks import environment

        outputs = {**outputs, **await environment.declare(settings, base)}
    return outputs
