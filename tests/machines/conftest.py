"""Machines for the tests: a host on this laptop, and what Google would answer."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.machines.droplet import Surroundings
from tests.machines.exchange import Exchange
from tests.machines.google import GoogleStandIn
from tests.machines.laptop import LaptopHost


@pytest.fixture
def run_folder() -> Iterator[Path]:
    """A path short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield Path(folder)


@pytest.fixture
async def host(tmp_path: Path, run_folder: Path) -> AsyncIterator[LaptopHost]:
    """A host whose disk has a blank in its path, as a person's folder may."""
    root = tmp_path / "disk of a machine"
    root.mkdir()
    host = LaptopHost(root, run_folder)
    yield host
    await host.power_off()


@pytest.fixture
def google() -> Iterator[GoogleStandIn]:
    """The metadata server and Secret Manager."""
    with GoogleStandIn() as google:
        yield google


@pytest.fixture
def surroundings() -> Iterator[Surroundings]:
    """DigitalOcean's metadata and the service."""
    with Surroundings() as surroundings:
        yield surroundings


@pytest.fixture
async def exchange(tmp_path: Path, host: LaptopHost) -> AsyncIterator[Exchange]:
    """IBKR's servers, as the host's machines find them."""
    with tempfile.TemporaryDirectory(prefix="x") as sockets:
        async with Exchange(tmp_path / "exchange", Path(sockets)) as exchange:
            host.environment["IBKR_SERVERS"] = exchange.address
            yield exchange
