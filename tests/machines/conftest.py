"""A machine's host as the tests need it: real processes on this laptop, ports only noted."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from localcloud.machines.calls import Host


class TestProcess:
    """A process of a TestHost."""

    __test__ = False

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
        if self._process.returncode is None:
            os.killpg(self.pid, number)


class TestHost(Host):
    """Implements Host. `console` is everything that was logged; `ports` what leads where."""

    __test__ = False

    def __init__(self, root: Path, run: Path) -> None:
        self.name, self.root, self.run = "gce/test", root, run
        self.environment: dict[str, str] = {}
        self.console: list[str] = []
        self.ports: dict[int, Path] = {}
        self.spawned: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.processes: list[TestProcess] = []

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        log: str = "",
    ) -> TestProcess:
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
        started = TestProcess(process, asyncio.create_task(self._read(process, log)))
        self.processes.append(started)
        return started

    def listen(self, port: int, unix_socket: str | Path) -> None:
        self.ports[port] = Path(unix_socket)

    def unlisten(self, port: int) -> None:
        self.ports.pop(port, None)

    def log(self, text: str) -> None:
        self.console.append(text)

    @property
    def text(self) -> str:
        return "\n".join(self.console)

    async def power_off(self) -> None:
        for process in self.processes:
            process.kill()
            await process.wait()

    async def _read(self, process: asyncio.subprocess.Process, log: str) -> None:
        assert process.stdout
        async for line in process.stdout:
            self.console.append(f"{log}: {line.decode(errors='replace').rstrip()}")


@pytest.fixture
def run_folder() -> Iterator[Path]:
    """A path short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield Path(folder)


@pytest.fixture
async def host(tmp_path: Path, run_folder: Path) -> AsyncIterator[TestHost]:
    root = tmp_path / "disk of a machine"
    root.mkdir()
    host = TestHost(root, run_folder)
    yield host
    await host.power_off()
