"""A cloud of its own for each test: own home, own network prefix, nothing left behind."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from localcloud.cloud import Cloud, Settings, open_cloud
from localcloud.machines.host import MachineHost
from tests.localcloud.playground import Network
from tests.machines.droplet import Surroundings

_NUMBERS = itertools.count()


@pytest.fixture
def prefix() -> str:
    """A network that no test running beside this one uses."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return f"127.{40 + (worker * 4 + next(_NUMBERS) % 4) % 20}"


@pytest.fixture
def run_folder() -> Iterator[Path]:
    """A folder with a path short enough for Unix sockets, which pytest's own isn't."""
    with tempfile.TemporaryDirectory(prefix="lc-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
async def cloud(tmp_path: Path, run_folder: Path, prefix: str) -> AsyncIterator[Cloud]:
    """A cloud in this process, without a daemon around it."""
    opened = open_cloud(Settings(tmp_path / "home", prefix, run_folder))
    yield opened
    await opened.machines.close()
    opened.network.close()
    opened.processes.close()
    opened.store.close()


@pytest.fixture
def network(cloud: Cloud) -> Network:
    """The cloud's network, to be declared by the test."""
    return Network(cloud)


@pytest.fixture
async def greeter(network: Network) -> AsyncIterator[MachineHost]:
    """A machine that says hello on port 4001, and then echoes what it is told."""
    host = network.vm("gateway", f"{network.prefix}.1.5", tags=["gateway"])

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async with await asyncio.start_unix_server(greet, path=host.run / "greeter.sock"):
        host.listen(4001, host.run / "greeter.sock")
        yield host
        host.unlisten(4001)


@pytest.fixture
def surroundings() -> Iterator[Surroundings]:
    """A service to enrol at."""
    with Surroundings() as surroundings:
        yield surroundings
