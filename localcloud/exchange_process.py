"""Keeps the paper exchange running, and its front where "IBKR's servers" are."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localcloud.cloud import EXCHANGE_PORT, CloudError
from localcloud.processes import LogFile, Process, module_environment
from localcloud.topology import IBKR

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_BACK_OFF_SECONDS = (0.2, 1, 5, 15)
_READY_SECONDS = 20


class ExchangeProcess:
    """`python -m localcloud.exchange` under the daemon's supervision."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._log = LogFile(cloud.settings.log_folder / "exchange.log")
        self.admin_socket: Path = cloud.settings.run / "exchange-admin.sock"
        self._socket = cloud.settings.run / "exchange.sock"

    def start(self) -> None:
        """Open the guarded front and start the exchange; `ready` waits for it."""
        host = self._cloud.settings.exchange_address.partition(":")[0]
        self._cloud.network.publish(IBKR, host, EXCHANGE_PORT, self._socket)
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stop it in order, so that its book is closed."""
        if self._keeping:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._process:
            await self._process.stop()

    def status(self) -> dict[str, Any]:
        """Whether it runs, and where its admin socket is."""
        running = self._process is not None and self._process.returncode is None
        return {"running": running, "admin_socket": str(self.admin_socket)}

    async def ready(self) -> None:
        """Wait until its admin socket answers. Raises `CloudError` 503 when it doesn't."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while True:
                    try:
                        _, writer = await asyncio.open_unix_connection(str(self.admin_socket))
                        writer.close()
                        return
                    except OSError:
                        await asyncio.sleep(0.05)
        except TimeoutError:
            raise CloudError(
                503, "The paper exchange does not start; see: localcloud logs exchange"
            ) from None

    async def add_user(self, name: str, password: str, mode: str, *, kind: str) -> dict[str, Any]:
        """Open an account (kind: margin, cash or alpaca). Raises `CloudError` 400 in the exchange's words."""
        from localcloud.exchange.admin import Admin
        from localcloud.exchange.models import Refused

        await self.ready()
        try:
            async with Admin(str(self.admin_socket)) as admin:
                return await admin.add_user(name, password, mode=mode, kind=kind)
        except Refused as error:
            raise CloudError(400, str(error)) from None

    async def _keep(self) -> None:
        folder = self._cloud.settings.home / "exchange"
        folder.mkdir(exist_ok=True, mode=0o700)
        argv = [sys.executable, "-m", "localcloud.exchange", "--state", str(folder)]
        argv += ["--socket", str(self._socket), "--admin", str(self.admin_socket)]
        attempt = 0
        while True:
            for path in (self._socket, self.admin_socket):
                path.unlink(missing_ok=True)
            self._process = await self._cloud.processes.spawn(
                argv,
                owner=IBKR,
                log=lambda text: self._log.write("exchange", text),
                env=module_environment(),
                cwd="/",
            )
            status = await self._process.wait()
            self._cloud.log.error("the paper exchange ended with %d and is started again", status)
            await asyncio.sleep(_BACK_OFF_SECONDS[min(attempt, len(_BACK_OFF_SECONDS) - 1)])
            attempt += 1
