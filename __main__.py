"""The Pulumi program: reads the settings, declares the stack, exports its outputs."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import pulumi

# The program lives for seconds: collecting as often as by default costs more than it frees.
gc.set_threshold(100_000)
# The language host takes this folder off the path again before it calls `main`.
sys.path.insert(0, str(Path(__file__).parent))

from components.turns import engine_turn  # noqa: E402


async def main() -> dict[str, Any]:
    """Declares the stack that the engine runs, and returns its outputs."""
    await engine_turn()
    from stacks import settings as configuration

    settings = configuration.read()
    from stacks.declaration import declare

    return await declare(settings)


pulumi.run(main)
