"""The websocket at /stream: `trade_updates` (docs.alpaca.markets, "Websocket Streaming").

    > {"action": "authenticate", "data": {"key_id": "...", "secret_key": "..."}}
    < {"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}}
    > {"action": "listen", "data": {"streams": ["trade_updates"]}}
    < {"stream": "listening", "data": {"streams": ["trade_updates"]}}
    < {"stream": "trade_updates", "data": {"event": "fill", "price": "232.5", "qty": "1", ...}}

The newer `{"action": "auth", "key": "...", "secret": "..."}` is understood, too. Messages are JSON in binary
frames, as from paper-api.alpaca.markets. When the link to the exchange breaks, what happened meanwhile can't
be told, so the websocket is closed and its client has to look for itself.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from localcloud.gateways.alpaca import symbols
from localcloud.gateways.alpaca.errors import ApiError
from localcloud.gateways.alpaca.gateway import Gateway
from localcloud.gateways.alpaca.order_view import entity, status
from localcloud.gateways.alpaca.session import AccountSession

Json = dict[str, Any]
STREAMS = ("trade_updates",)
GOING_AWAY = 1001
_ENDS = ("canceled", "expired", "replaced", "rejected")


class Stream:
    """One client's websocket."""

    def __init__(self, gateway: Gateway, socket: WebSocket) -> None:
        self.gateway = gateway
        self.socket = socket
        self.session: AccountSession | None = None
        self._events: asyncio.Queue[Json] = asyncio.Queue()
        self._announced: set[int] = set()

    async def serve(self) -> None:
        """Serves the client until it leaves or is sent away."""
        try:
            self.gateway.settings.admit(self.socket)
        except ApiError:
            await self.socket.close()
            return
        await self.socket.accept()
        tasks = {asyncio.create_task(self._hear()), asyncio.create_task(self._send_events())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, stream: str, data: Json) -> None:
        await self.socket.send_bytes(json.dumps({"stream": stream, "data": data}).encode())

    async def _hear(self) -> None:
        while True:
            received = await self.socket.receive()
            if received["type"] == "websocket.disconnect":
                return
            content = received.get("text") or received.get("bytes") or b""
            try:
                message = json.loads(content)
                data = message.get("data") or {}
                await self._act(str(message.get("action")), {**message, **data})
            except (ValueError, AttributeError, TypeError):
                await self._send("error", {"error": "invalid message"})

    async def _act(self, action: str, content: Json) -> None:
        if action in ("authenticate", "auth"):
            await self._authenticate(content)
        elif action == "listen" and self.session is None:
            await self._send("authorization", {"status": "unauthorized", "action": "listen"})
        elif action == "listen":
            wanted = [name for name in content.get("streams") or [] if name in STREAMS]
            await self._send("listening", {"streams": wanted})
            await self._listen(bool(wanted))
        else:
            await self._send("error", {"error": f"unknown action: {action}"})

    async def _authenticate(self, content: Json) -> None:
        key = str(content.get("key_id") or content.get("key") or "")
        secret = str(content.get("secret_key") or content.get("secret") or "")
        try:
            session = await self.gateway.enter(key, secret)
        except ApiError:
            await self._send("authorization", {"status": "unauthorized", "action": "authenticate"})
            return
        self._leave()
        self.session = session
        await self._send("authorization", {"status": "authorized", "action": "authenticate"})

    async def _listen(self, wanted: bool) -> None:
        assert self.session is not None, "only the authorized get here"
        hears = self._events.put_nowait in self.session.listeners
        if wanted and not hears:
            self.session.listeners.append(self._events.put_nowait)
        if hears and not wanted:
            self.session.listeners.remove(self._events.put_nowait)
        if not self.session.linked:  # it was lost between the authorization and now
            self._events.put_nowait({"event": "link_lost"})

    def _leave(self) -> None:
        if self.session is not None and self._events.put_nowait in self.session.listeners:
            self.session.listeners.remove(self._events.put_nowait)
        self.session = None

    async def _send_events(self) -> None:
        try:
            while True:
                event = await self._events.get()
                dropped = event["event"] == "gateway" and event["action"] == "drop_streams"
                if dropped or event["event"] in ("link_lost", "session_taken"):
                    await self.socket.close(GOING_AWAY)
                    return
                update = await self._update(event)
                if update is not None:
                    await self._send("trade_updates", update)
        except (WebSocketDisconnect, RuntimeError, ApiError):
            return  # the client left while it was being told something, or the exchange did

    async def _update(self, event: Json) -> Json | None:
        """The trade update of an event of the exchange, or None for what isn't told."""
        match event["event"]:
            case "execution":
                return _fill(event)
            case "order_routed":
                return _simple("new", event["order"])
            case "order_status":
                return await self._status(event["order"])
        return None

    async def _status(self, order: Json) -> Json | None:
        """`pending_new` (`accepted` while the market is closed) once, and how an order ends.

        Fills are told with their executions.
        """
        now = status(order)
        if now in _ENDS:
            return _simple(now, order)
        if now != "accepted" or order["perm_id"] in self._announced or self.session is None:
            return None
        self._announced.add(order["perm_id"])
        is_open = (await self.session.call("clock"))["is_open"]
        return _simple("pending_new" if is_open else "accepted", order)


def _simple(event: str, order: Json) -> Json:
    shown = event if event in ("new", "pending_new", "accepted") else ""
    at = symbols.moment(order["updated"])
    return {
        "event": event,
        "event_id": symbols.made_id(order["account"], order["perm_id"], event, at),
        "timestamp": at,
        "order": entity(order, shown=shown),
    }


def _fill(event: Json) -> Json:
    fill, order = event["execution"], event["order"]
    name = "fill" if order["status"] == "Filled" else "partial_fill"
    return {
        "event": name,
        "event_id": symbols.made_id(fill["account"], fill["exec_id"]),
        "execution_id": symbols.made_id("fill", fill["exec_id"]),
        "timestamp": symbols.moment(fill["time"]),
        "price": symbols.text(fill["price"]),
        "qty": symbols.text(fill["quantity"]),
        "position_qty": symbols.text(event["position"]),
        "order": entity(order),
    }
