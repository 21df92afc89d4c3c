"""A machine's host as the tests need it: real processes on this laptop, ports only noted; and its cloud."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from localcloud.machines.calls import Host


class LaptopProcess:
    """A process of a LaptopHost."""

    def __init__(self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
        self._process = process
        self._reading = reading
        self.pid = process.pid

    async def wait(self) -> int:
        code = await self._process.wait()
        await asyncio.shield(self._reading)
        return code

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        try:
            if self._process.returncode is None:
                os.killpg(self.pid, number)
        except ProcessLookupError:
            pass  # it has ended already, and the loop hasn't heard of it yet


class LaptopHost(Host):
    """Implements Host. `console` is everything that was logged; `ports` what leads where."""

    def __init__(self, root: Path, run: Path) -> None:
        self.name, self.root, self.run = "gce/test", root, run
        self.environment: dict[str, str] = {}
        self.console: list[str] = []
        self.ports: dict[int, Path] = {}
        self.spawned: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.processes: list[LaptopProcess] = []
        self._news = asyncio.Event()

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        log: str = "",
    ) -> LaptopProcess:
        self.spawned.append(list(argv))
        environment = {"PATH": "/usr/bin:/bin", **self.environment, **(env or {})}
        self.environments.append(environment)
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=cwd or self.root,
            start_new_session=True,
        )
        started = LaptopProcess(process, asyncio.create_task(self._read(process, log)))
        self.processes.append(started)
        return started

    def listen(self, port: int, unix_socket: str | Path) -> None:
        self.ports[port] = Path(unix_socket)

    def unlisten(self, port: int) -> None:
        self.ports.pop(port, None)

    def log(self, text: str) -> None:
        self.console.append(text)
        self._news.set()

    @property
    def text(self) -> str:
        return "\n".join(self.console)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something on the console made a condition true; after 60 s the console is shown."""
        try:
            async with asyncio.timeout(60):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"it didn't happen; the console says:\n{self.text}") from None

    async def until_said(self, text: str) -> None:
        await self.until(lambda: text in self.text)

    async def power_off(self) -> None:
        for process in self.processes:
            process.kill()
            await process.wait()

    async def _read(self, process: asyncio.subprocess.Process, log: str) -> None:
        assert process.stdout
        async for line in process.stdout:
            self.log(f"{log}: {line.decode(errors='replace').rstrip()}")
