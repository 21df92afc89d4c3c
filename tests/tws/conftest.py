"""An exchange, a gateway logged in at it, and whichever client library this environment has.

ib_insync and ib_async can't be installed together (both bring a package `eventkit`), so `make test` runs
these tests in two environments, and the module that is there is called `ib` here.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from localcloud.exchange.admin import Admin
from localcloud.exchange.server import ExchangeServer
from localcloud.gateways.tws.gateway import Gateway, Listen
from localcloud.gateways.tws.ibc import IbcSettings

try:
    ib: Any = importlib.import_module("ib_insync")
except ImportError:
    ib = importlib.import_module("ib_async")

PASSWORD = "a\\b\"c'd $e"


@dataclass
class World:
    """What a test talks to: the exchange's admin, the gateway, its port, and connected clients."""

    admin: Admin
    account: str
    server: str
    gateway: Gateway
    port: int = 0
    clients: list[Any] = field(default_factory=list)

    async def connect(self, client_id: int = 1, **options: Any) -> Any:
        """A client of the library, synchronized. Errors that it was sent are in its list `told`."""
        client = ib.IB()
        client.told = []
        client.errorEvent += lambda number, code, text, *_: client.told.append((number, code, text))
        self.clients.append(client)
        # On a busy machine the libraries' own four seconds can be too few.
        await client.connectAsync("127.0.0.1", self.port, clientId=client_id, timeout=20, **options)
        return client


async def eventually(holds: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Waits until `holds()` is truthy and returns it; the loop runs meanwhile."""
    async with asyncio.timeout(seconds):
        while not (value := holds()):  # noqa: ASYNC110 - what is awaited is a client's state
            await asyncio.sleep(0.002)
        return value


def codes(client: Any) -> list[int]:
    """The message codes that a client was sent."""
    return [code for _, code, _ in client.told]


def on_any_port(world: World) -> Listen:
    """Opens the API port wherever there is one, and the same one after a restart."""

    async def listen(gateway: Gateway) -> asyncio.Server:
        server = await asyncio.start_server(gateway.accept, "127.0.0.1", world.port)
        world.port = server.sockets[0].getsockname()[1]
        return server

    return listen


@asynccontextmanager
async def exchange_at(state: Path) -> AsyncIterator[tuple[Admin, str]]:
    """A served exchange: its admin and its address."""
    with TemporaryDirectory(prefix="tws") as run:  # short: Unix socket paths end at 107 bytes
        link, admin_socket = Path(run, "link"), Path(run, "admin")
        async with (
            ExchangeServer(state, link, admin_socket, step_seconds=0.01),
            Admin(str(admin_socket)) as admin,
        ):
            yield admin, f"unix:{link}"


def settings(**changes: Any) -> IbcSettings:
    """Settings that log in as the user `demo`."""
    values = {"username": "demo", "password": PASSWORD, "mode": "paper", "read_only": False, "port": 4002}
    return IbcSettings(**{**values, **changes})


@asynccontextmanager
async def running(admin: Admin, address: str, account: str, **changes: Any) -> AsyncIterator[World]:
    """A gateway that has logged in."""
    gateway = Gateway(settings(**changes), address)
    world = World(admin, account, address, gateway)
    serving = asyncio.create_task(gateway.serve(on_any_port(world)))
    ready = asyncio.create_task(gateway.ready.wait())
    try:
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        yield world
    finally:
        for client in world.clients:
            client.disconnect()
        for task in (serving, ready):
            task.cancel()
        await asyncio.gather(serving, ready, return_exceptions=True)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """The user `demo` with 100,000 USD, AAPL held at 100, and a gateway that serves them."""
    async with exchange_at(tmp_path) as (admin, address):
        user = await admin.add_user("demo", PASSWORD, cash=100_000.0)
        await admin.set_price("AAPL", 100.0)
        async with running(admin, address, user["accounts"][0]) as world:
            yield world


async def apple(client: Any) -> Any:
    """The qualified contract of AAPL (ib_async streams quotes of no other kind)."""
    (contract,) = await client.qualifyContractsAsync(ib.Stock("AAPL", "SMART", "USD"))
    return contract
