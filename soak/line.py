"""A TCP line between a broker and its gateway that can be cut.

Each incarnation of a broker has a line of its own. Cutting it for good is how a process ends
whose machine was switched off: the old broker object can reach nobody any more.
"""

from __future__ import annotations

import asyncio
import contextlib

_CHUNK = 65536


class Line:
    """Forwards connections to `target`; lives on the loop that opened it."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._down = False
        self._server: asyncio.Server | None = None
        self._streams: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen on a port of loopback."""
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Break every connection; new ones are let through."""
        for stream in list(self._streams):
            stream.transport.abort()

    def set_down(self, down: bool) -> None:
        """While down, connections break and new ones end at once."""
        self._down = down
        if down:
            self.cut()

    async def close(self) -> None:
        """Cut for good."""
        if self._server is not None:
            self._server.close()
        self.set_down(True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._down:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._streams |= {writer, far_writer}
        pumps = {
            asyncio.ensure_future(_pump(reader, far_writer)),
            asyncio.ensure_future(_pump(far_reader, writer)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            self._streams -= {writer, far_writer}
            writer.close()
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
