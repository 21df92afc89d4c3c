"""The gateway.

Opens the API port once it is logged in, knows its API clients, and passes events on to them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from localcloud.gateways.tws import account, market_data, orders
from localcloud.gateways.tws.brokerage import Brokerage
from localcloud.gateways.tws.client import ApiClient
from localcloud.gateways.tws.handlers import HANDLERS
from localcloud.gateways.tws.ibc import IbcSettings

MOST_CLIENTS = 32
REFRESH_SECONDS = 180.0  # TWS API: account updates come every three minutes, or when a position changes
PNL_SECONDS = 1.0
log = logging.getLogger("ibgateway")
Listen = Callable[["Gateway"], Awaitable[asyncio.Server]]


class Gateway:
    """One paper IB Gateway. `serve` runs it until cancelled."""

    def __init__(self, settings: IbcSettings, server: str) -> None:
        self.settings = settings
        self.brokerage = Brokerage(settings, server, self)
        self.clients: dict[int, ApiClient] = {}
        self.ready = asyncio.Event()
        self.next_ids: dict[int, int] = {}
        # (client id, order id) -> permanent id; 0 while the exchange hasn't answered.
        self.order_keys: dict[tuple[int, int], int] = {}
        # Orders with transmit=False: the gateway has them, IBKR's servers don't; nothing tells of them.
        self.held: dict[tuple[int, int], orders.Held] = {}
        self._connections: set[ApiClient] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._port: asyncio.Server | None = None
        self._hang_until: asyncio.Event | None = None

    # -- life --------------------------------------------------------------------------------------

    async def serve(self, listen: Listen) -> None:
        """Logs in, then serves the API. Raises LoginFailed and SecondFactorTimeout from the first login."""
        await self.brokerage.login()
        self._learn_orders()
        log.info("IBC: Login has completed")
        self._listen = listen
        self._port = await listen(self)
        self.ready.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.brokerage.stay_connected())
                group.create_task(self._refresh(REFRESH_SECONDS, account.refresh))
                group.create_task(self._refresh(PNL_SECONDS, account.send_pnl))
        finally:
            await self._close_port()
            await self.brokerage.close()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one API connection; the callback of asyncio's servers."""
        client = ApiClient(self, HANDLERS, reader, writer)
        self._connections.add(client)
        try:
            await client.serve()
        finally:
            self._connections.discard(client)
            if self.clients.get(client.client_id) is client:
                del self.clients[client.client_id]
            self.spawn(market_data.forget(client))

    def register(self, client: ApiClient) -> bool:
        """Takes a client in under its id; False if the id is in use or there are too many."""
        if client.client_id in self.clients or len(self.clients) >= MOST_CLIENTS:
            return False
        self.clients[client.client_id] = client
        return True

    def spawn(self, work: Any) -> None:
        """Runs a coroutine beside everything else; a lost link ends it quietly."""

        async def quietly() -> None:
            try:
                await work
            except ConnectionError:
                # The next synchronization makes up for it.
                pass

        task = asyncio.ensure_future(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def not_hanging(self) -> None:
        """Returns at once, unless the gateway has been told to hang."""
        if self._hang_until is not None:
            await self._hang_until.wait()

    def next_order_id(self, client_id: int) -> int:
        """The next valid order id of a client."""
        return self.next_ids.get(client_id, 1)

    def _learn_orders(self) -> None:
        """Working orders of an earlier run keep their order ids; finished ones' ids are issued anew."""
        for order in self.brokerage.working_orders():
            orders.learn(self, order)

    async def _close_port(self) -> None:
        if self._port is not None:
            self._port.close()
        for client in list(self._connections):
            client.drop()

    async def _refresh(self, seconds: float, work: Callable[[Gateway], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work(self)
            except ConnectionError:
                # The link is down: clients were told with 1100, and values stay as they are.
                pass

    # -- events ------------------------------------------------------------------------------------

    def on_connection(self, connected: bool, data_lost: bool) -> None:
        """Tells every client that the link to IBKR's servers was lost or restored."""
        if not connected:
            self._broadcast(1100, 2103)
            return
        self._broadcast(1101 if data_lost else 1102, 2104, 2106, 2158)
        if data_lost:
            for client in self.clients.values():
                client.market_data.clear()
        else:
            self.spawn(market_data.resubscribe(self))

    def on_event(self, event: dict[str, Any]) -> None:
        """Passes an event of the exchange on to whom it concerns."""
        match event["event"]:
            case "order_status" | "order_trailed":
                orders.learn(self, event["order"])
                orders.send_status(self, event["order"])
            case "execution":
                orders.send_execution(self, event["execution"], event["order"])
            case "commission":
                orders.send_commission(self, event)
            case "position":
                account.send_position(self, event["position"])
            case "account_value":
                account.send_values(self, event["summary"])
            case "quote":
                market_data.send_quote(self, event["quote"])
            case "farms":
                self._broadcast(2104 if event["up"] else 2103)
            case "gateway":
                self._act_out(event)

    def _broadcast(self, *codes: int) -> None:
        for client in list(self.clients.values()):
            for code in codes:
                client.complain(-1, code)

    def _act_out(self, event: dict[str, Any]) -> None:
        """Faults of the gateway itself, asked for over the exchange's admin socket."""
        match event["action"]:
            case "drop_clients":
                for client in list(self._connections):
                    client.drop()
            case "error":
                for client in list(self.clients.values()):
                    client.error(int(event.get("id", -1)), int(event["code"]), str(event["message"]))
            case "hang":
                self._hang_until = self._hang_until or asyncio.Event()
            case "resume":
                if self._hang_until is not None:
                    self._hang_until.set()
                self._hang_until = None
            case "restart":
                self.spawn(self._restart(float(event.get("seconds", 1.0))))

    async def _restart(self, seconds: float) -> None:
        """The nightly restart: the port closes, order ids are issued anew, the port opens again."""
        log.info("IBC: auto-restart")
        await self._close_port()
        self.next_ids.clear()
        self.order_keys.clear()
        self.held.clear()
        await asyncio.sleep(seconds)
        self._learn_orders()
        self._port = await self._listen(self)


def on_unix_socket(path: Path) -> Listen:
    """Opens the API port as a Unix socket in a folder of the machine's own, to which its network leads."""

    async def listen(gateway: Gateway) -> asyncio.Server:
        return await asyncio.start_unix_server(gateway.accept, path)

    return listen


def on_port(host: str, port: int) -> Listen:
    """Opens the API port on an address."""

    async def listen(gateway: Gateway) -> asyncio.Server:
        return await asyncio.start_server(gateway.accept, host, port)

    return listen
