"""JSON lines over a stream: one object a line, both ways; and how an address of the exchange is written."""

from __future__ import annotations

import asyncio
import json
from typing import Any

LINE_LIMIT = 8 * 1024 * 1024


async def open_stream(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects to `unix:PATH` or `HOST:PORT`.

    Raises OSError when nobody listens there and ValueError when the address has neither form.
    """
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"), limit=LINE_LIMIT)
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        raise ValueError(f"an exchange's address is unix:PATH or HOST:PORT, not {address!r}")
    return await asyncio.open_connection(host, int(port), limit=LINE_LIMIT)


def encode(message: dict[str, Any]) -> bytes:
    """One message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


async def read(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message, or None at the end of the stream.

    Raises ValueError when a line isn't a JSON object.
    """
    line = await reader.readline()
    if not line.endswith(b"\n"):
        return None
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a line must hold a JSON object")
    return message
