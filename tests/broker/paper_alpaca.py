"""A paper exchange and the paper Alpaca before it, on a loop in a thread of this process.

The broker under test comes over real sockets, with the real alpaca-py. What went wrong is decided by
the exchange's own book, and by what reached the front end, never by our client's view of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import Receive, Scope, Send

from broker.brokers.alpaca import AlpacaBroker
from broker.journal import Journal
from localcloud.exchange.admin import Admin
from localcloud.exchange.server import ExchangeServer
from localcloud.gateways.alpaca.app import build_app
from localcloud.gateways.alpaca.gateway import Gateway, Settings
from localcloud.gateways.client_portal.serving import Endpoint, Server

KEY, SECRET, ACCOUNT = "PKTESTTESTTESTTEST01", "s3cr3t" * 6 + "abcd", "PA3TESTTEST1"


@dataclass
class PaperAlpaca:
    """The paper Alpaca as a test's thread sees it. AAPL stands at 100, the account has 100,000 USD."""

    loop: asyncio.AbstractEventLoop
    url: str
    exchange: ExchangeServer
    admin: Admin
    gateway: Gateway
    #: method and path of what reached the front end
    requests: list[tuple[str, str]] = field(default_factory=list)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def fault(self, action: str, **content: Any) -> None:
        assert self.run(self.admin.gateway(action, name=KEY, **content)), "the gateway isn't logged in"

    def price(self, price: float) -> None:
        self.run(self.admin.set_price("AAPL", price))

    def exchange_fault(self, name: str, value: Any) -> None:
        self.run(self.admin.set_fault(name, value))

    def book(self) -> list[dict[str, Any]]:
        """The exchange's own orders."""

        async def read() -> list[dict[str, Any]]:
            return [order.as_dict() for order in self.exchange.exchange.orders.values()]

        return list(self.run(read()))

    def sent(self, method: str, end: str) -> int:
        """How many requests of a method reached paths with this end."""
        return sum(1 for verb, path in list(self.requests) if verb == method and path.endswith(end))

    def posts(self) -> int:
        return self.sent("POST", "/orders")

    def listeners(self) -> int:
        session = self.gateway.sessions.get(KEY)
        return len(session.listeners) if session is not None else 0

    def broker(self, journal: Journal, **options: Any) -> AlpacaBroker:
        defaults: dict[str, Any] = {
            "api_key": KEY,
            "secret_key": SECRET,
            "endpoint": f"{self.url}/trading",
            "data_endpoint": f"{self.url}/data",
            "stream_endpoint": f"ws{self.url.removeprefix('http')}/stream",
        }
        return AlpacaBroker(journal, **(defaults | options))


@contextlib.contextmanager
def paper_alpaca(account: str = ACCOUNT) -> Iterator[PaperAlpaca]:
    """A paper Alpaca whose market is always open."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="paper-alpaca", daemon=True)
    thread.start()
    folder = Path(tempfile.mkdtemp(prefix="al-"))  # short: unix socket paths are limited to 107 bytes
    opened = contextlib.AsyncExitStack()

    async def open_all() -> PaperAlpaca:
        return await opened.enter_async_context(_serving(loop, folder, account))

    try:
        yield asyncio.run_coroutine_threadsafe(open_all(), loop).result(30)
    finally:
        asyncio.run_coroutine_threadsafe(opened.aclose(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def _serving(loop: asyncio.AbstractEventLoop, folder: Path, account: str) -> AsyncIterator[PaperAlpaca]:
    gateway = Gateway(Settings(f"unix:{folder / 'exchange'}", requests_per_minute=100_000))
    app, requests = build_app(gateway), []

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            requests.append((scope["method"], scope["path"]))
        await app(scope, receive, send)

    endpoint = Endpoint(address=("127.0.0.1", 0)).open()
    async with (
        ExchangeServer(folder / "book", folder / "exchange", folder / "admin", step_seconds=0.01) as exchange,
        Admin(str(folder / "admin")) as admin,
        Server(counted, endpoint).serving(),
    ):
        await admin.add_user(KEY, SECRET, cash=100_000.0, kind="alpaca", accounts=[account])
        await admin.set_price("AAPL", 100.0)
        url = f"http://127.0.0.1:{endpoint[0].getsockname()[1]}"
        yield PaperAlpaca(loop, url, exchange, admin, gateway, requests)
        await gateway.close()
