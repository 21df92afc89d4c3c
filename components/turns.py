"""Lets the engine work on what is declared already while the program declares the rest.

Pulumi sends a registration, and takes its answer, on the program's event loop, which stands still while the
program runs on. Without a turn nothing is registered before everything is imported and declared: first the
engine waits for the program, then the program for the engine.
"""

from __future__ import annotations

import asyncio

_SECONDS = 0.001


async def engine_turn() -> None:
    """Sends what is ready to be sent and takes the answers that have come. For between two declarations."""
    await asyncio.sleep(_SECONDS)
