"""The broker over the agent: the real Client Portal client, the droplet's certificate, the gateway token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.brokers.client_portal import ClientPortalBroker
from broker.errors import NotConnected
from broker.journal import Journal
from broker.models import Status
from tests.broker.ordering import request, settled
from tests.broker.paper_gateway import eventually
from tests.machines.droplet import ADDRESS, GATEWAY_TOKEN, PASSWORD, USER, Droplet, Surroundings
from tests.machines.exchange import Exchange
from tests.machines.laptop import LaptopHost


@asynccontextmanager
async def port_of(droplet: Droplet) -> AsyncIterator[int]:
    """A TCP port on the droplet's address that leads to its port 5000, as the local cloud's network does."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # the other end was closed, as tests do
        finally:
            writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, outside = await asyncio.open_unix_connection(str(droplet.host.ports[5000]))
        await asyncio.gather(pump(reader, outside), pump(inside, writer))

    server = await asyncio.start_server(carry, ADDRESS, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
async def droplet(host: LaptopHost, surroundings: Surroundings, exchange: Exchange) -> AsyncIterator[Droplet]:
    """Enrolled, logged in."""
    droplet = Droplet(host, surroundings).enrolling()
    await exchange.add_user(USER, PASSWORD)
    await droplet.boot()
    await host.until_said("enrolled:")
    assert await droplet.push(droplet.message()) == 204
    await droplet.authenticated()
    yield droplet
    await droplet.power_off()


def broker_at(port: int, droplet: Droplet, journal: Journal, token: str) -> ClientPortalBroker:
    return ClientPortalBroker(
        journal,
        url=f"https://{ADDRESS}:{port}",
        ca_file=str(droplet.host.root / "var/lib/ibeam/tls/certificate.pem"),
        token=token,
        trading_mode="paper",
    )


async def test_the_broker_trades_through_it_websocket_included(droplet: Droplet, tmp_path: Path) -> None:
    def trade(port: int) -> None:
        broker = broker_at(port, droplet, Journal.in_file(str(tmp_path / "orders")), GATEWAY_TOKEN)
        broker.connect()
        try:
            eventually(lambda: broker.health().details["websocket"], "the websocket is open")
            order = broker.place_order(
                request(order_type="limit", limit_price=100.0, time_in_force="gtc", client_order_id="one")
            )
            assert [found.id for found in broker.get_orders_history()] == [order.id]
            broker.cancel_order(order.id)
            settled(broker, order, Status.CANCELLED)
        finally:
            broker.disconnect()

    async with port_of(droplet) as port:
        await asyncio.to_thread(trade, port)


async def test_without_the_token_the_broker_is_not_connected(droplet: Droplet, tmp_path: Path) -> None:
    def connect(port: int) -> None:
        broker = broker_at(port, droplet, Journal.in_file(str(tmp_path / "orders")), "")
        with pytest.raises(NotConnected):
            broker.connect()
        broker.disconnect()

    async with port_of(droplet) as port:
        await asyncio.to_thread(connect, port)
