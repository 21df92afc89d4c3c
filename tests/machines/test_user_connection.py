"""A user's connection, from the service's API through the agent that droplets run to the exchange's book."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker.brokers.client_portal import connection as client_portal_connection
from broker.brokers.client_portal.pacing import Limits
from broker.fleet.account import Account, State
from broker.fleet.agents import Endpoint, TlsAgents
from tests.machines.droplet import PASSWORD, USER, Droplet, Surroundings
from tests.machines.exchange import Exchange
from tests.machines.laptop import LaptopHost
from tests.service.conftest import database_url, environment, issuer, migrated, postgres  # noqa: F401
from tests.service.user_gateways import (
    client,
    instance,
    now,
    repository,
    service,
    users_environment,
)

__all__ = ["client", "instance", "service", "users_environment"]

ADDRESS = "127.59.3.7"


@pytest.fixture
async def account(
    service: FastAPI,
    host: LaptopHost,
    surroundings: Surroundings,
    exchange: Exchange,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Account]:
    """Its droplet is booted and enrolled, and was pushed its login; its gateway is logged in."""
    monkeypatch.setattr(client_portal_connection, "Limits", Limits)  # this gateway keeps IBKR's
    droplet = Droplet(host, surroundings).enrolling()
    await exchange.add_user(USER, PASSWORD)
    await droplet.boot()
    await host.until_said("enrolled:")
    rows = repository(service)
    made = rows.connect("ada", "paper", USER, PASSWORD, "ada")
    made = rows.change(
        made, status=State.RUNNING, status_reason="", do_droplet_id=7, do_ip_address=ADDRESS,
        certificate=droplet.certificate, certificate_sha256=droplet.fingerprint, certificate_droplet_id=7,
        credentials_droplet_id=7, last_used_at=None,
    )  # fmt: skip
    assert await droplet.push(droplet.message(gateway_token=rows.endpoint(made).token)) == 204
    await droplet.authenticated()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(str(host.ports[5000]))

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            except ConnectionError:
                pass
            target.close()

        await asyncio.gather(pump(reader, forth), pump(back, writer))

    listening = await asyncio.start_server(carry, ADDRESS, 5000)
    yield made
    listening.close()
    await droplet.power_off()


async def test_an_order_through_the_agent_keeps_its_droplet_from_resting(
    service: FastAPI, client: Callable[..., httpx.AsyncClient], account: Account, exchange: Exchange
) -> None:
    ada, here = client(service), f"/connections/{account.id}"
    found = await ada.get(f"{here}/account")
    assert found.status_code == 200, found.text
    body = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "limit", "limit_price": 100.0}
    body |= {"time_in_force": "gtc", "client_order_id": "rests"}
    placed = await ada.post(f"{here}/orders", json=body)
    assert placed.status_code == 201, placed.text
    assert (await ada.get(f"{here}/health")).json()["ok"]

    # What a pass asks before it lets an idle account rest.
    agents = TlsAgents(lambda message: message)
    row = now(service, account)
    endpoint = Endpoint(ADDRESS, row.certificate_sha256 or "", repository(service).endpoint(row).token)

    async def working() -> Any:
        """The answer, once there is one: IBKR gives it once in five seconds."""
        deadline = time.monotonic() + 60
        while (told := await asyncio.to_thread(agents.working_orders, endpoint)) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(1)
        return told

    assert await working() is True
    gone = await ada.delete(f"{here}/orders/{placed.json()['id']}")
    assert gone.status_code in (200, 202), gone.text
    assert await working() is False
    assert row.last_used_at is not None
