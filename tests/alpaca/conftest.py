"""A paper exchange and the paper Alpaca before it in this process; alpaca-py comes over a real socket."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import LimitOrderRequest, MarketOrderRequest
from starlette.types import Receive, Scope, Send

from localcloud.exchange.admin import Admin
from localcloud.exchange.server import ExchangeServer
from localcloud.gateways.alpaca.app import build_app
from localcloud.gateways.alpaca.gateway import Gateway, Settings
from localcloud.gateways.client_portal.serving import Endpoint, Server

KEY, SECRET, ACCOUNT = "PKTESTTESTTESTTEST01", "s3cr3t" * 6 + "abcd", "PA3TESTTEST1"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: paths of Unix sockets are limited to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="al-"))
    yield path
    shutil.rmtree(path)


@dataclass
class Alpaca:
    """The paper Alpaca as a test sees it: its address, its exchange, and what reached it."""

    url: str
    exchange: ExchangeServer
    admin: Admin
    gateway: Gateway
    requests: list[tuple[str, str]] = field(default_factory=list)

    def client(self, key: str = KEY, secret: str = SECRET) -> TradingClient:
        client = TradingClient(key, secret, url_override=f"{self.url}/trading")
        client._retry_wait = 0  # type: ignore[assignment]  # three seconds by default
        return client

    def data(self) -> StockHistoricalDataClient:
        return StockHistoricalDataClient(KEY, SECRET, url_override=f"{self.url}/data")

    async def trade(self, call: Callable[[TradingClient], Any]) -> Any:
        """Runs something with the real client; its calls block, so it has a thread of its own."""
        return await asyncio.to_thread(call, self.client())

    async def buy(self, quantity: float = 10, **options: Any) -> Any:
        return await self.trade(lambda client: client.submit_order(market(quantity, **options)))

    async def rest(self, price: float = 90.0, quantity: float = 10, **options: Any) -> Any:
        """A limit order far enough from the market to stay."""
        return await self.trade(lambda client: client.submit_order(limit(price, quantity, **options)))

    async def until(self, order: Any, status: str) -> Any:
        """The order, once it has a status; the test's time limit ends the wait."""
        while True:
            found = await self.trade(lambda client: client.get_order_by_id(order.id))
            if found.status == status:
                return found
            await asyncio.sleep(0.01)

    def fault(self, action: str, **content: Any) -> Any:
        return self.admin.gateway(action, name=KEY, **content)

    def posts(self) -> int:
        return sum(1 for method, path in self.requests if method == "POST" and path.endswith("/orders"))

    def listening(self) -> list[Any]:
        """Who hears the account's events at this moment."""
        session = self.gateway.sessions.get(KEY)
        return list(session.listeners) if session is not None else []

    def book(self) -> list[dict[str, Any]]:
        """The exchange's own orders, whatever the front end says."""
        return [order.as_dict() for order in self.exchange.exchange.orders.values()]


def market(quantity: float = 10, side: OrderSide = OrderSide.BUY, **options: Any) -> MarketOrderRequest:
    options = {"time_in_force": TimeInForce.DAY, "symbol": "AAPL", "qty": quantity, **options}
    return MarketOrderRequest(side=side, **options)


def limit(price: float, quantity: float = 10, side: OrderSide = OrderSide.BUY, **options: Any) -> Any:
    options = {"time_in_force": TimeInForce.DAY, "symbol": "AAPL", "qty": quantity, **options}
    return LimitOrderRequest(side=side, limit_price=price, **options)


async def refused(call: Callable[[], Any]) -> APIError:
    """The error with which a blocking call of alpaca-py ends."""
    with pytest.raises(APIError) as caught:
        await asyncio.to_thread(call)
    return caught.value


@pytest.fixture
async def alpaca(folder: Path) -> AsyncIterator[Alpaca]:
    """AAPL stands at 100, the account has 100,000 USD, the market is always open."""
    socket, admin_socket = folder / "exchange", folder / "admin"
    gateway = Gateway(Settings(f"unix:{socket}", requests_per_minute=100_000))
    app, requests = build_app(gateway), []

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            requests.append((scope["method"], scope["path"]))
        await app(scope, receive, send)

    endpoint = Endpoint(address=("127.0.0.1", 0)).open()
    async with (
        ExchangeServer(folder / "book", socket, admin_socket, step_seconds=0.01) as exchange,
        Admin(str(admin_socket)) as admin,
        Server(counted, endpoint).serving(),
    ):
        await admin.add_user(KEY, SECRET, cash=100_000.0, kind="alpaca", accounts=[ACCOUNT])
        await admin.set_price("AAPL", 100.0)
        url = f"http://127.0.0.1:{endpoint[0].getsockname()[1]}"
        yield Alpaca(url, exchange, admin, gateway, requests)
        await gateway.close()
