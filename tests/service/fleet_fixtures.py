"""The service with its fleet on, over the local cloud's DigitalOcean API and agents that are really there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker.fleet.vault import LocalKeyWrapper
from broker.service.app import create_app
from broker.service.settings import Settings
from localcloud.addresses import Addresses
from tests.fleet.local_digitalocean import LocalDigitalOcean, serving
from tests.service.conftest import Issuer
from tests.service.fleet_agents import Agents

BASE = "/api/v1/brokers/interactivebrokers"
PASSWORD = "pa\\ss\"w'ord/&$ü\n!"
PINNED = "voyz/ibeam:0.5.12@sha256:" + "a" * 64
Clients = Callable[..., httpx.AsyncClient]


def login(name: str = "ib-user", environment: str = "demo", password: str = PASSWORD) -> dict[str, Any]:
    """The body of a connect."""
    return {"credentials": {"username": name, "password": password}, "environment": environment}


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalDigitalOcean]:
    """A DigitalOcean account whose droplets have addresses of this test run's own."""
    with serving(tmp_path / "cloud") as found:
        prefix = f"127.{60 + os.getpid() % 180}"
        found.do(lambda: setattr(found.cloud, "addresses", Addresses(found.cloud.store, prefix)))
        found.note("droplet_limit", 10)
        yield found


@pytest.fixture
def fleet_changes() -> dict[str, str]:
    """Variables that a test wants otherwise: parametrize it."""
    return {}


@pytest.fixture
def fleet_environment(
    environment: dict[str, str],
    cloud: LocalDigitalOcean,
    tmp_path: Path,
    fleet_changes: dict[str, str],
    issuer: Issuer,
) -> dict[str, str]:
    """What the platform sets where the fleet is on."""
    LocalKeyWrapper.add_key(tmp_path / "fleet.key")
    return environment | {
        "FLEET_ENABLED": "true",
        "DIGITAL_OCEAN_API_KEY": cloud.token,
        "DIGITAL_OCEAN_API_URL": cloud.url,
        "DIGITAL_OCEAN_IMAGE_ID": "ubuntu-24-04-x64",
        "FLEET_SERVICE_URL": "https://service.example",
        "FLEET_CLIENT_ADDRESS": "203.0.113.9",
        "FLEET_IBEAM_IMAGE": PINNED,
        "FLEET_KEY_FILE": str(tmp_path / "fleet.key"),
        "SCHEDULER_AUDIENCE": "https://service.example",
        "SCHEDULER_EMAIL": "scheduler@p.iam.gserviceaccount.com",
        "SCHEDULER_ISSUER": issuer.url,
        "SCHEDULER_JWKS_URL": issuer.url + "/jwks.json",
        **fleet_changes,
    }


@contextlib.asynccontextmanager
async def fleet_service(environment: dict[str, str]) -> AsyncIterator[FastAPI]:
    """An app with its fleet, once that is open: on a busy machine the start doesn't wait for it."""
    made = create_app(Settings.from_environment(environment))
    async with made.router.lifespan_context(made):
        await happens(lambda: made.state.fleet._parts is not None)
        yield made


@pytest.fixture
async def fleet_app(fleet_environment: dict[str, str]) -> AsyncIterator[FastAPI]:
    """The app with its fleet, started and open."""
    async with fleet_service(fleet_environment) as made:
        yield made


@pytest.fixture
def user_for(fleet_app: FastAPI, issuer: Issuer) -> Clients:
    """Clients of the fleet's app, by the user's name and roles."""

    def make(user: str = "ada", *roles: str, app: FastAPI = fleet_app) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {issuer.token(*(roles or ('user',)), sub=user)}"}
        transport = httpx.ASGITransport(app=app)
        return httpx.AsyncClient(
            transport=transport, base_url="http://service" + BASE, headers=headers, timeout=60
        )

    return make


@pytest.fixture
async def ada(user_for: Clients) -> AsyncIterator[httpx.AsyncClient]:
    """A user."""
    async with user_for("ada") as client:
        yield client


@pytest.fixture
async def agents(fleet_app: FastAPI, cloud: LocalDigitalOcean, tmp_path: Path) -> AsyncIterator[Agents]:
    """An agent on every droplet. They enrol over HTTP, as droplets do: without a bearer token."""
    loop = asyncio.get_running_loop()
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=fleet_app), base_url="http://service")

    def enrol(body: dict[str, str]) -> int:
        asked = client.post("/api/v1/enrolments", json=body, timeout=60)
        return asyncio.run_coroutine_threadsafe(asked, loop).result(60).status_code

    found = Agents(cloud, enrol, tmp_path)
    found.start()
    yield found
    await asyncio.to_thread(found.close)
    await client.aclose()


async def until(
    look: Callable[[], Awaitable[httpx.Response]], *wanted: Any, key: str = "status", seconds: float = 60
) -> dict[str, Any]:
    """The answer once its `key` is what is wanted."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await look()
        found: dict[str, Any] = answer.json()
        if found.get(key) in wanted:
            return found
        assert time.monotonic() < deadline, f"{found} never came to {wanted}"
        await asyncio.sleep(0.1)


async def happens(it: Callable[[], bool], seconds: float = 60) -> None:
    """Returns once it is so."""
    deadline = time.monotonic() + seconds
    while not it():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.05)
