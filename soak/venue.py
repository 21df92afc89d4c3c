"""A paper exchange and one front end of it, on an event loop in a thread of this process.

Nothing of it is the broker's: the venue is judge and opponent. Its book is the exchange's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from broker.base import BaseBroker
from broker.validation import STOP_LOSS, TAKE_PROFIT
from localcloud.exchange.server import ExchangeServer
from soak.certificate import loopback_certificate
from soak.line import Line

USER, ACCOUNT = "paper", "DU7654321"
#: the Alpaca front end takes the user's name as key, and the account's number has Alpaca's form
ALPACA_ACCOUNT = "PA3SOAKSOAK1"
STEP_SECONDS = 0.02
PRICE = 200.0

FrontEnd = Callable[["Venue"], contextlib.AbstractAsyncContextManager[int]]


class Venue:
    """Use as a context manager. Methods may be called from any thread but the venue's own."""

    #: whether `orders` and `executions` hold everything from the beginning
    complete = True

    def __init__(
        self, front_end: FrontEnd | str, *, cash: float = 1_000_000.0, step: float = STEP_SECONDS
    ) -> None:
        self._front_end = FRONT_ENDS[front_end] if isinstance(front_end, str) else front_end
        self.cash = cash
        self._step = step
        self.folder = Path(tempfile.mkdtemp(prefix="sk"))  # short: Unix sockets' paths are limited
        self.password = secrets.token_urlsafe(12)
        self.account = ALPACA_ACCOUNT if self._front_end is _alpaca else ACCOUNT
        self.port = 0
        self.exchange: ExchangeServer
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="venue", daemon=True)
        self._open: contextlib.AsyncExitStack

    def __enter__(self) -> Venue:
        self._thread.start()
        self._run(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(TimeoutError):
            self._run(self._open.aclose())
        self._run(_cancel_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def servers(self) -> str:
        """The exchange's address for front ends."""
        return f"unix:{self.folder / 'link'}"

    def admin(self, method: str, **params: Any) -> dict[str, Any]:
        """One call of the exchange's administration. Raises ValueError with its refusal."""

        async def ask() -> dict[str, Any]:
            return self.exchange.administration.answer({"id": 1, "method": method, "params": params})

        answer = self._run(ask())
        if "error" in answer:
            raise ValueError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def fault(self, name: str, value: Any) -> None:
        """Switch a fault of the exchange."""
        self.admin("set_fault", name=name, value=value)

    def gateway(self, action: str, **content: Any) -> bool:
        """Have the front end act a fault out; False if it isn't logged in at this moment."""
        return bool(self.admin("gateway", action=action, **content)["gateways"])

    def set_price(self, symbol: str, price: float) -> None:
        """Fix the middle of a symbol's book, in dollars; resting orders that it crosses trade."""
        self.admin("set_price", symbol=symbol, price=price)

    def orders(self) -> list[dict[str, Any]]:
        """Every order that the exchange ever took; a bracket's legs under the ids that we have for them."""
        rows = {row["perm_id"]: row for row in self.admin("orders", account=self.account)["orders"]}
        return [{**row, "order_ref": _reference(row, rows)} for row in rows.values()]

    def executions(self) -> list[dict[str, Any]]:
        """Every fill, oldest first; those of a bracket's legs as in `orders`."""
        rows = {row["perm_id"]: row for row in self.admin("orders", account=self.account)["orders"]}
        fills = self.admin("executions", account=self.account)["executions"]
        return [{**fill, "order_ref": _reference(rows[fill["perm_id"]], rows)} for fill in fills]

    def positions(self) -> dict[str, float]:
        """Shares held by symbol, as the exchange has them."""
        rows = self.admin("account", account=self.account)["positions"]
        return {row["contract"]["symbol"]: float(row["position"]) for row in rows if row["position"]}

    def attach(self, broker: BaseBroker) -> None:
        """A process has made its broker. Only a book inside that process needs to know."""

    def line(self) -> Line:
        """A new line to the front end."""
        line = Line(self.port)
        self._run(line.open())
        self._run(_later(self._open.push_async_callback, line.close))
        return line

    def on_line(self, work: Callable[[], Any]) -> None:
        """Do something with a line, on the loop that it lives on."""

        async def act() -> None:
            done = work()
            if asyncio.iscoroutine(done):
                await done

        self._run(act())

    async def _begin(self) -> None:
        self._open = contextlib.AsyncExitStack()
        self.exchange = await self._open.enter_async_context(
            ExchangeServer(
                self.folder / "book",
                self.folder / "link",
                self.folder / "admin",
                step_seconds=self._step,
            )
        )
        kind: Literal["alpaca", "margin"] = "alpaca" if self._front_end is _alpaca else "margin"
        self.exchange.exchange.add_user(
            USER, self.password, cash=self.cash, accounts=[self.account], kind=kind
        )
        for symbol in ("AAPL", "MSFT"):
            self.exchange.administration.answer(
                {"method": "set_price", "params": {"symbol": symbol, "price": PRICE}}
            )
        self.port = await self._open.enter_async_context(self._front_end(self))

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


def _reference(row: dict[str, Any], rows: dict[int, dict[str, Any]]) -> str:
    """An order's client order id. Client Portal's legs have none, and Alpaca makes some up."""
    if row["parent"] is None or row["replaces"] is not None:
        return str(row["order_ref"])
    entry = rows[row["parent"]]
    while entry["replaces"] is not None:  # legs follow the order that replaces their entry
        entry = rows[entry["replaces"]]
    return f"{entry['order_ref']}{TAKE_PROFIT if row['order_type'] == 'LMT' else STOP_LOSS}"


def _free_port() -> int:
    """A port that nothing listens on, below the range that the kernel takes outgoing connections' ports from.

    In that range, a connection of another schedule could have it before the gateway opens it (again).
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.asynccontextmanager
async def _tws(venue: Venue) -> AsyncIterator[int]:
    from localcloud.gateways.tws.gateway import Gateway, on_port
    from localcloud.gateways.tws.ibc import IbcSettings

    port = _free_port()  # the gateway opens it anew after its nightly restart
    gateway = Gateway(IbcSettings(USER, venue.password, "paper", False, port), venue.servers)
    serving = asyncio.create_task(gateway.serve(on_port("127.0.0.1", port)))
    ready = asyncio.create_task(gateway.ready.wait())
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving
    try:
        yield port
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


@contextlib.asynccontextmanager
async def _alpaca(venue: Venue) -> AsyncIterator[int]:
    from localcloud.gateways.alpaca.app import build_app
    from localcloud.gateways.alpaca.gateway import Gateway, Settings
    from localcloud.gateways.client_portal.serving import Endpoint, Server

    gateway = Gateway(Settings(venue.servers, requests_per_minute=1_000_000))
    sockets = Endpoint(address=("127.0.0.1", 0)).open()
    async with Server(build_app(gateway), sockets).serving():
        yield int(sockets[0].getsockname()[1])
        await gateway.close()


@contextlib.asynccontextmanager
async def _client_portal(venue: Venue) -> AsyncIterator[int]:
    from localcloud.gateways.client_portal.app import build_app
    from localcloud.gateways.client_portal.gateway import Gateway
    from localcloud.gateways.client_portal.ibeam import IBeam
    from localcloud.gateways.client_portal.serving import Endpoint, Server
    from localcloud.gateways.client_portal.settings import LoginSource, Settings

    login = LoginSource({"IBEAM_ACCOUNT": USER, "IBEAM_PASSWORD": venue.password})
    # IBeam looks after the session once a minute; here as often as its schedule has faults.
    gateway = Gateway(
        Settings(
            login=login,
            servers=venue.servers,
            mode="paper",
            limits=False,
            positions_cache=0.2,
            maintenance_interval=0.5,
            max_failed_auth=1_000,
        )
    )
    ibeam = IBeam(gateway)
    sockets = Endpoint(address=("127.0.0.1", 0)).open()
    async with Server(build_app(gateway), sockets, loopback_certificate(venue.folder)).serving():
        await ibeam.maintain()
        looking_after = asyncio.create_task(ibeam.run())
        try:
            yield int(sockets[0].getsockname()[1])
        finally:
            looking_after.cancel()
            await asyncio.gather(looking_after, return_exceptions=True)
            await gateway.session.log_out()


@contextlib.asynccontextmanager
async def _none(_venue: Venue) -> AsyncIterator[int]:
    yield 0


async def _later(register: Callable[..., Any], work: Callable[..., Any]) -> None:
    register(work)


async def _cancel_rest() -> None:
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


FRONT_ENDS: dict[str, FrontEnd] = {
    "ibkr": _tws,
    "alpaca": _alpaca,
    "client_portal": _client_portal,
    "simulated": _none,
}
