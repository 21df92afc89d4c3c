"""The servers of one gateway, on Unix sockets and TCP ports."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from localcloud.websocket import WebSocketProtocol

BACKLOG = 128


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens: a Unix socket, a TCP address, or both."""

    path: Path | None = None
    address: tuple[str, int] | None = None

    def open(self) -> list[socket.socket]:
        """The listening sockets. Raises OSError."""
        opened = []
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(self.path))
            self.path.chmod(0o600)
            listener.listen(BACKLOG)
            opened.append(listener)
        if self.address is not None:
            server = socket.create_server(self.address, backlog=BACKLOG)
            # asyncio does this itself only where the protocol is named; else answers take 40 ms (Nagle).
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.append(server)
        return opened


class _QuietServer(uvicorn.Server):
    """Leaves the process's signals to the process: there may be several servers in it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class Server:
    """An application behind an endpoint; with a certificate, over TLS."""

    app: ASGIApp
    sockets: list[socket.socket]
    certificate: tuple[Path, Path] | None = None
    _uvicorn: uvicorn.Server = field(init=False)

    def __post_init__(self) -> None:
        certificate, key = self.certificate or (None, None)
        config = uvicorn.Config(
            self.app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            loop="asyncio",
            ws=WebSocketProtocol,
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._uvicorn = _QuietServer(config)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serves for as long as the block runs. The sockets listen already, so nobody need wait for it."""
        task = asyncio.create_task(self._uvicorn.serve(sockets=self.sockets))
        try:
            yield
        finally:
            self._uvicorn.should_exit = True
            await task


def parse_address(text: str) -> tuple[str, int]:
    """`"127.0.0.1:5000"` -> `("127.0.0.1", 5000)`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host, int(port)
