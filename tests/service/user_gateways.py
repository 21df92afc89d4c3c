"""Accounts whose gateways run, without droplets: the local cloud's Client Portal gateways at their addresses.

The fleet is on, and another instance holds its lease, so no pass touches what the tests write.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, event

from broker.brokers.client_portal import connection as client_portal_connection
from broker.brokers.client_portal.tls import fingerprint
from broker.fleet.account import Account, State
from broker.fleet.lease import FleetLease
from broker.fleet.repository import Repository
from broker.fleet.vault import LocalKeyWrapper
from broker.service import user_connections
from broker.service.app import create_app
from broker.service.database import make_engine
from broker.service.settings import Settings
from tests.broker.portal_fixtures import QUICK
from tests.broker.portal_gateway import Portal, portal_gateway
from tests.fleet.conftest import clear
from tests.service.conftest import Issuer

Gateway = Callable[..., Portal]
Instance = Callable[..., Any]
PINNED = "voyz/ibeam:0.5.12@sha256:" + "a" * 64
_NUMBERS = itertools.count(1)


def repository(app: FastAPI) -> Repository:
    found = app.state.fleet.repository
    assert isinstance(found, Repository)
    return found


def certificate(portal: Portal) -> str:
    return (portal.folder / "own.pem").read_text()


def running(
    app: FastAPI, portal: Portal, user: str = "ada", environment: str = "paper", **more: Any
) -> Account:
    """A new account that runs over a gateway, as passes would have written it."""
    rows, number = repository(app), next(_NUMBERS)
    account = rows.connect(user, environment, f"ib-user-{number}", "a password", user)
    values = {
        "status": State.RUNNING,
        "status_reason": "",
        "do_droplet_id": number,
        "do_droplet_name": f"{user}-ib-{environment}-{number}",
        "do_ip_address": portal.url.removeprefix("https://").partition(":")[0],
        "certificate": certificate(portal),
        "certificate_sha256": fingerprint(ssl.PEM_cert_to_DER_cert(certificate(portal))),
        "certificate_droplet_id": number,
        "credentials_droplet_id": number,
        "pushed_version": 1,
    }
    return rows.change(account, **(values | more))


def now(app: FastAPI, account: Account) -> Account:
    found = repository(app).get(account.id)
    assert found is not None
    return found


async def until(it: Callable[[], Any], seconds: float = 60) -> Any:
    """What it returns once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := it()):
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.02)
    return found


@contextlib.contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """What the service asks its database meanwhile."""
    found: list[str] = []

    def note(_db: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        found.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """Starts gateways, each at port 5000 of an address of its own."""
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> Portal:
            address = f"127.{60 + os.getpid() % 180}.{200 + next(_NUMBERS) % 50}.{1 + next(_NUMBERS) % 250}"
            return stack.enter_context(portal_gateway(address=(address, 5000), **settings))

        yield start


@pytest.fixture
def users_environment(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The service's environment with the fleet on, and its database with empty tables of it."""
    engine = make_engine(environment["DATABASE_URL"])
    clear(engine)
    assert FleetLease(engine, "test", 3600).take()
    engine.dispose()
    LocalKeyWrapper.add_key(tmp_path / "fleet.key")
    # The gateways' own limits are off, so nobody waits for ours.
    monkeypatch.setattr(client_portal_connection, "Limits", lambda: QUICK)
    monkeypatch.setattr(user_connections, "WATCH_SECONDS", 0.1)
    return environment | {
        "FLEET_ENABLED": "true",
        "DIGITAL_OCEAN_API_KEY": "no-token",
        "DIGITAL_OCEAN_API_URL": "http://127.0.0.1:9",
        "DIGITAL_OCEAN_IMAGE_ID": "ubuntu-24-04-x64",
        "FLEET_SERVICE_URL": "https://service.example",
        "FLEET_CLIENT_ADDRESS": "203.0.113.9",
        "FLEET_IBEAM_IMAGE": PINNED,
        "FLEET_KEY_FILE": str(tmp_path / "fleet.key"),
    }


@pytest.fixture
async def instance(users_environment: dict[str, str]) -> AsyncIterator[Instance]:
    """Starts instances of the service on one database."""
    async with AsyncExitStack() as stack:

        async def start(**changes: str) -> FastAPI:
            made = create_app(Settings.from_environment(users_environment | changes))
            await stack.enter_async_context(made.router.lifespan_context(made))
            await until(lambda: made.state.fleet._parts)  # a busy machine takes longer than the start waits
            return made

        yield start


@pytest.fixture
async def service(instance: Instance) -> FastAPI:
    """One instance."""
    made = await instance()
    assert isinstance(made, FastAPI)
    return made


@pytest.fixture
async def client(issuer: Issuer) -> AsyncIterator[Callable[..., httpx.AsyncClient]]:
    """Clients of an instance as a user with roles."""
    async with AsyncExitStack() as stack:

        def make(app: FastAPI, user: str = "ada", *roles: str) -> httpx.AsyncClient:
            headers = {"authorization": f"Bearer {issuer.token(*(roles or ('trader',)), sub=user)}"}
            transport = httpx.ASGITransport(app=app)
            made = httpx.AsyncClient(
                transport=transport, base_url="http://service/api/v1", headers=headers, timeout=60
            )
            stack.push_async_callback(made.aclose)
            return made

        yield make
