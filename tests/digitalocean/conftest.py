"""A cloud whose store and addresses are the real ones and whose machines only say what they were told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from localcloud.addresses import Addresses
from localcloud.apis.digitalocean import routes
from localcloud.digitalocean import Delays, DigitalOcean
from localcloud.state import Store


class QuietMachines:
    """Machines without software: what they were asked to do is in `log`."""

    def __init__(self) -> None:
        self.specs: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[str, str]] = []
        self.callbacks: list[Callable[[str, str], None]] = []

    async def boot(self, name: str, kind: str, spec: dict[str, Any]) -> None:
        self.specs[name] = spec
        self.log.append(("boot", name))

    def update(self, name: str, **changes: Any) -> None:
        self.specs[name].update(changes)

    async def power_off(self, name: str) -> None:
        self.log.append(("power_off", name))

    async def delete(self, name: str) -> None:
        self.log.append(("delete", name))
        if self.specs.pop(name, None) is not None:
            for callback in self.callbacks:
                callback(name, "ABSENT")

    def on_change(self, callback: Callable[[str, str], None]) -> None:
        self.callbacks.append(callback)


class CountingNetwork:
    """Counts how often it was told that something declared has changed."""

    def __init__(self) -> None:
        self.changes = 0

    def changed(self) -> None:
        self.changes += 1


class SmallCloud:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = Store.open(home)
        self.addresses = Addresses(self.store, "127.21")
        self.machines = QuietMachines()
        self.network = CountingNetwork()
        self.extensions: dict[str, Any] = {}


@pytest.fixture
def cloud(tmp_path: Path) -> SmallCloud:
    return SmallCloud(tmp_path)


@pytest.fixture
def account(cloud: SmallCloud) -> DigitalOcean:
    found = DigitalOcean(cloud, Delays(visible=0, listed=0, create=0, action=0, firewall=0))
    cloud.extensions["digitalocean"] = found
    cloud.machines.on_change(found.machine_changed)
    return found


@pytest.fixture
async def api(cloud: SmallCloud, account: DigitalOcean) -> AsyncIterator[str]:
    """The API's base URL, served over HTTP in this loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Mount("/digitalocean", routes=routes(cloud))])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/digitalocean"
    server.should_exit = True
    await serving
