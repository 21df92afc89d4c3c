"""`localcloud tunnel`: a local port that leads to a machine's, as `gcloud compute start-iap-tunnel` does."""

from __future__ import annotations

import asyncio
import socket
import sys

from localcloud.control import Daemon, DaemonError


async def listen(daemon: Daemon, name: str, port: int, address: tuple[str, int]) -> None:
    """Carry connections to `address` to the machine's port until cancelled.

    Raises `DaemonError` when the rules don't let IAP reach it, OSError when the address is taken.
    Later refusals (a rule was taken away) close the connection and are told on stderr.
    """
    machine = daemon.call("tunnel", name=name, port=port, check=True)["machine"]

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = daemon.open("tunnel", name=name, port=port).socket
        except DaemonError as error:
            print(error, file=sys.stderr, flush=True)
            writer.close()
            return
        far_reader, far_writer = await _streams(far)
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        far_writer.close()
        writer.close()

    server = await asyncio.start_server(carry, *address)
    bound = server.sockets[0].getsockname()
    print(f"Listening on {bound[0]}:{bound[1]}, leads to {machine}:{port}. Ctrl-C ends it.", flush=True)
    async with server:
        await server.serve_forever()


async def _streams(connected: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connected.setblocking(False)
    return await asyncio.open_unix_connection(sock=connected)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()  # either end is gone, and the other one learns it so
