"""The websocket at /v1/api/ws: order updates, quotes, profit and loss, heartbeats.

A client sends `TOPIC+ARGUMENT+{JSON}`:

    tic                              keeps the connection alive
    sor+{}      uor+{}               orders of this session, from now on
    str+{}      utr+{}               trades
    spl+{}      upl+{}               profit and loss
    smd+265598+{"fields":["31"]}     quotes of a contract
    umd+265598+{}

Messages are JSON in binary frames, each with `topic`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from localcloud.exchange.models import Refused
from localcloud.gateways.client_portal.accounts import profit_and_loss_rows
from localcloud.gateways.client_portal.errors import Refusal
from localcloud.gateways.client_portal.gateway import Gateway, Json
from localcloud.gateways.client_portal.marketdata import DEFAULT_FIELDS, quote_fields
from localcloud.gateways.client_portal.orderbook import order_row, trade_row

HEARTBEAT_SECONDS = 10.0


class Stream:
    """Serves websockets of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def serve(self, socket: WebSocket) -> None:
        """One client, until it leaves."""
        await socket.accept()
        client = Client(self.gateway, socket)
        self.gateway.session.listeners.append(client.events.put_nowait)
        sender = asyncio.create_task(client.send_events())
        heart = asyncio.create_task(client.beat())
        try:
            await client.greet()
            while True:
                await client.hear(await socket.receive())
        except WebSocketDisconnect:
            # The client left; so do its subscriptions.
            pass
        finally:
            self.gateway.session.listeners.remove(client.events.put_nowait)
            for task in (sender, heart):
                task.cancel()
            await asyncio.gather(sender, heart, return_exceptions=True)


class Client:
    """One connected websocket and what it subscribed to."""

    def __init__(self, gateway: Gateway, socket: WebSocket) -> None:
        self.gateway = gateway
        self.socket = socket
        self.events: asyncio.Queue[Json] = asyncio.Queue()
        self.topics: set[str] = set()
        self.quotes: dict[int, list[str]] = {}

    async def send(self, **message: Any) -> None:
        """Sends one message."""
        await self.socket.send_bytes(json.dumps(message).encode())

    async def greet(self) -> None:
        """What a client is told when it has connected."""
        session = self.gateway.session
        if not session.logged_in:
            await self.send(message="waiting for session")
            return
        await self.send(topic="system", success=session.username, isFT=False, isPaper=session.mode == "paper")
        await self.send(topic="act", args={"accounts": session.accounts,
                                           "selectedAccount": (session.accounts or [""])[0]})  # fmt: skip
        await self.send(topic="sts", args={"authenticated": session.authenticated,
                                           "competing": session.competing})  # fmt: skip

    async def beat(self) -> None:
        """`{"topic": "system", "hb": 1795255999000}`, every ten seconds."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self.send(topic="system", hb=int(time.time() * 1000))

    async def hear(self, received: Any) -> None:
        """Acts on one message of the client."""
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received.get("code", 1000))
        text = received.get("text") or (received.get("bytes") or b"").decode(errors="replace")
        topic, _, rest = text.partition("+")
        argument, _, options = rest.partition("+") if topic in ("smd", "umd") else ("", "", rest)
        try:
            await self._subscribe(topic, argument, options)
        except (Refusal, Refused) as refusal:
            await self.send(topic="error", error=refusal.message)
        except ValueError:
            await self.send(topic="error", error=f"invalid message: {topic}")

    async def _subscribe(self, topic: str, argument: str, options: str) -> None:
        if topic in ("tic", "ech"):
            await self.send(topic="tic", alive=True, id=self.gateway.session.session_id,
                            lastAccessed=int(time.time() * 1000))  # fmt: skip
        elif topic in ("sor", "str", "spl"):
            self.topics.add(topic)
            await self._first(topic)
        elif topic in ("uor", "utr", "upl"):
            self.topics.discard(f"s{topic[1:]}")
        elif topic == "smd":
            conid = int(argument)
            fields = (json.loads(options or "{}")).get("fields") or list(DEFAULT_FIELDS)
            answer = await self.gateway.session.call("subscribe", conid=conid)
            self.quotes[conid] = [str(field) for field in fields]
            await self._send_quote(answer["quote"], answer["entitlement"])
        elif topic == "umd":
            self.quotes.pop(int(argument), None)
        else:
            await self.send(topic="error", error=f"unknown topic: {topic}")

    async def _first(self, topic: str) -> None:
        """What there is already when a topic is subscribed to."""
        session = self.gateway.session
        session.require()
        if topic == "spl":
            await self.send(topic="spl", args=await profit_and_loss_rows(self.gateway))
        for account in session.accounts:
            if topic == "sor":
                for order in (await session.call("open_orders", account=account))["orders"]:
                    await self._send_order(order)
            if topic == "str":
                since = session.began
                for trade in (await session.call("executions", account=account, since=since))["executions"]:
                    await self._send_trade(trade)

    async def send_events(self) -> None:
        """Turns the exchange's events into messages of the subscribed topics."""
        while True:
            event = await self.events.get()
            with contextlib.suppress(Refusal, Refused):
                await self._send_event(event)

    async def _send_event(self, event: Json) -> None:
        kind, session = event["event"], self.gateway.session
        if kind == "order_status" and "sor" in self.topics:
            await self._send_order(event["order"])
        elif kind == "execution" and "str" in self.topics:
            await self._send_trade(event["execution"])
        elif kind == "account_value" and "spl" in self.topics:
            await self.send(topic="spl", args=await profit_and_loss_rows(self.gateway))
        elif kind == "quote" and event["quote"]["conid"] in self.quotes:
            await self._send_quote(event["quote"], "live")
        elif kind in ("session_taken", "link_lost"):
            await self.send(topic="sts", args={"authenticated": False, "competing": session.competing})

    async def _send_order(self, order: Json) -> None:
        await self.send(topic="sor", args=[order_row(order, await self.gateway.contract(order["conid"]))])

    async def _send_trade(self, trade: Json) -> None:
        contract = await self.gateway.contract(trade["conid"])
        await self.send(topic="str", args=[trade_row(trade, contract, self.gateway.session.username)])

    async def _send_quote(self, quote: Json, entitlement: str) -> None:
        conid = quote["conid"]
        contract = await self.gateway.contract(conid)
        shown = quote_fields(contract, quote, entitlement, [*self.quotes[conid], "6509"])
        await self.send(topic=f"smd+{conid}", conid=conid, conidEx=str(conid), server_id="q0",
                        _updated=int(time.time() * 1000), **shown)  # fmt: skip
