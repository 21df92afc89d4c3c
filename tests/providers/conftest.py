"""A local cloud without machines: state, addresses and network are the real ones.

What a machine does with its specification is tested in tests/machines and tests/localcloud; here it
matters that it gets the right one, and that its going away is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import components  # noqa: F401 - the SDKs load lazily; whole, they take seconds and warn of their old names
from localcloud.addresses import Addresses
from localcloud.cloud import Cloud, CloudError, Settings
from localcloud.edge import Edge
from localcloud.providers.gcp import Gcp
from localcloud.providers.gcp.base import APIS, CONFIG, ENABLED
from localcloud.providers.resource import Handler
from localcloud.state import Resource, Store

NETWORK = "127.57"


class RecordedMachines:
    """Keeps what it is asked for instead of starting it."""

    def __init__(self) -> None:
        self.specs: dict[str, dict[str, Any]] = {}
        self.kinds: dict[str, str] = {}
        self.power: dict[str, str] = {}
        self.boots: list[str] = []

    async def boot(self, name: str, kind: str, spec: dict[str, Any]) -> None:
        if self.power.get(name) != "RUNNING":
            self.boots.append(name)
        self.specs[name], self.kinds[name], self.power[name] = spec, kind, "RUNNING"

    async def power_off(self, name: str) -> None:
        self.specification(name)
        self.power[name] = "STOPPED"

    async def power_on(self, name: str) -> None:
        self.specification(name)
        self.power[name] = "RUNNING"

    async def delete(self, name: str) -> None:
        for kept in (self.specs, self.kinds, self.power):
            kept.pop(name, None)

    def update(self, name: str, **changes: Any) -> None:
        self.specs[name] = {**self.specification(name)["spec"], **changes}

    def status(self, name: str) -> str:
        return self.power.get(name, "ABSENT")

    def names(self, kind: str | None = None) -> list[str]:
        return [name for name, k in self.kinds.items() if kind in (None, k)]

    def specification(self, name: str) -> dict[str, Any]:
        if name not in self.specs:
            raise CloudError(404, f"The machine '{name}' was not found.", "notFound")
        return {"kind": self.kinds[name], "spec": self.specs[name]}

    def running(self, name: str) -> None:
        return None

    def on_change(self, callback: Any) -> None:
        pass


@pytest.fixture
def machines() -> RecordedMachines:
    return RecordedMachines()


@pytest.fixture
async def cloud(tmp_path: Path, machines: RecordedMachines) -> Any:
    run = tmp_path / "run"
    run.mkdir()
    made = Cloud(Settings(tmp_path / "home", NETWORK, run))
    made.store = Store.open(tmp_path / "home")
    made.addresses = Addresses(made.store, NETWORK)
    made.machines = machines  # type: ignore[assignment]
    made.network = Edge(made)
    made.extensions[CONFIG] = {"project": "local", "region": "us-west1", "zone": "us-west1-b"}
    enable_apis(made)
    yield made
    made.network.close()
    made.store.close()


def enable_apis(cloud: Cloud) -> None:
    """Switch on every API, as in a project that was used before."""
    for api in APIS.values():
        cloud.store.note(ENABLED, f"{api}.googleapis.com", True)


class Declared:
    """Declares Google resources without an engine: `await declared("gcp:compute/...", name=...)`."""

    def __init__(self, cloud: Cloud) -> None:
        self.provider = Gcp(cloud)

    def handler(self, token: str) -> Handler:
        return self.provider.handlers[token]

    async def __call__(self, token: str, **inputs: Any) -> Resource:
        return await self.handler(token).create(inputs)


@pytest.fixture
def declared(cloud: Cloud) -> Declared:
    return Declared(cloud)


def refusals(declared: Declared, token: str, inputs: dict[str, Any]) -> Iterator[str]:
    """What a preview refuses, by property."""
    for failure in declared.provider.check(declared.handler(token), inputs):
        yield failure.property
