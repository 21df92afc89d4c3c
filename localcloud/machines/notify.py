"""The socket on which a service of Type=notify says that it is ready (sd_notify(3))."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import TracebackType


class NotifySocket:
    """A datagram socket that a service's program writes `READY=1` to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> NotifySocket:
        self.path.unlink(missing_ok=True)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)

    async def ready(self) -> None:
        """Waits for READY=1; other messages (STATUS=, WATCHDOG=1) are read and dropped."""
        loop = asyncio.get_running_loop()
        while b"READY=1" not in (await loop.sock_recv(self._socket, 4096)).split(b"\n"):
            continue
