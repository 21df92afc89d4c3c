"""The exchange on its sockets: the link that gateways use, the admin socket, and the market's heartbeat."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from localcloud.exchange import jsonlines
from localcloud.exchange.administration import Administration
from localcloud.exchange.engine import SAVE_PRICES_EVERY, Exchange
from localcloud.exchange.models import Refused
from localcloud.exchange.orderdesk import OrderDesk
from localcloud.exchange.sessions import Session
from localcloud.exchange.users import LoginFailed

STEP_SECONDS = 0.25
GONE_AFTER_SECONDS = 0.2
ORDER_METHODS = frozenset({"place_order", "modify_order", "replace_order", "cancel_order"})


class ExchangeServer:
    """Serves one exchange. Use as an async context manager."""

    def __init__(
        self, state: Path, socket: Path, admin: Path, *, seed: int = 1, step_seconds: float = STEP_SECONDS
    ) -> None:
        self.exchange = Exchange(state, seed=seed)
        self.desk = OrderDesk(self.exchange)
        self.sessions: dict[str, Session] = {}
        self._paths = (socket, admin)
        self._step_seconds = step_seconds
        self._links: set[asyncio.StreamWriter] = set()
        self._admins: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.administration = Administration(self.exchange, self.desk, self.sessions, self._cut_links)
        self.exchange.subscribers.append(self._deliver)

    async def __aenter__(self) -> ExchangeServer:
        handlers = (self._serve_link, self._serve_admin)
        for path, handler in zip(self._paths, handlers, strict=True):
            listener = _listening(path)
            server = await asyncio.start_unix_server(handler, sock=listener, limit=jsonlines.LINE_LIMIT)
            self._servers.append(server)
        self._tasks.append(asyncio.create_task(self._beat()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        self._cut_links()
        for writer in list(self._admins):
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Lets the aborted connections' handlers come to their end.
        await asyncio.sleep(0)
        self.exchange.close()
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _cut_links(self) -> None:
        for writer in list(self._links):
            writer.transport.abort()

    def _deliver(self, event: dict[str, Any]) -> None:
        """Takes an account's event to the session of the account's user."""
        account = self.exchange.accounts.get(event["account"])
        session = self.sessions.get(account.user) if account is not None else None
        if session is not None:
            session.send(event)

    async def _beat(self) -> None:
        """Moves the market: quotes to subscribers, trades of resting orders, prices to the book."""
        saved = self.exchange.clock.now()
        while True:
            await asyncio.sleep(self._step_seconds)
            self.desk.step()
            if not self.exchange.faults.farms_down:
                self._send_quotes()
            if abs(self.exchange.clock.now() - saved) > SAVE_PRICES_EVERY:
                saved = self.exchange.clock.now()
                self.exchange.save_prices()

    def _send_quotes(self) -> None:
        for session in list(self.sessions.values()):
            for conid in session.subscribed:
                session.send({"event": "quote", "quote": self.exchange.market.quote(conid).as_dict()})

    async def _serve_link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(message: dict[str, Any]) -> None:
            if not writer.is_closing():
                writer.write(jsonlines.encode(message))

        session = Session(self.exchange, self.desk, self.sessions, send)
        self._links.add(writer)
        try:
            while not self.exchange.faults.link_down:
                request = await jsonlines.read(reader)
                if request is None or self.exchange.faults.link_down:
                    break
                answer = await self._unless_gone(reader, self._answer(session, request))
                if answer is None or self._loses_answer(request):
                    break
                send(answer)
        except (OSError, ValueError):
            # A broken or unreadable link is simply gone, as a broken TCP connection is.
            pass
        finally:
            session.close()
            self._links.discard(writer)
            writer.close()

    @staticmethod
    async def _unless_gone(
        reader: asyncio.StreamReader, work: Coroutine[Any, Any, dict[str, Any]]
    ) -> dict[str, Any] | None:
        """The outcome of `work`, or None if its asker goes away: nobody's login must use up an approval."""
        task = asyncio.ensure_future(work)
        while not (await asyncio.wait({task}, timeout=GONE_AFTER_SECONDS))[0]:
            if reader.at_eof():
                task.cancel()
                return None
        return task.result()

    def _loses_answer(self, request: dict[str, Any]) -> bool:
        if request.get("method") in ORDER_METHODS and self.exchange.faults.lose_answers > 0:
            self.exchange.faults.lose_answers -= 1
            return True
        return False

    async def _answer(self, session: Session, request: dict[str, Any]) -> dict[str, Any]:
        identity = request.get("id")
        try:
            result = await session.call(str(request.get("method")), dict(request.get("params") or {}))
        except LoginFailed as failure:
            return {"id": identity, "error": {"code": f"login_{failure.reason}", "message": str(failure)}}
        except Refused as refusal:
            return {"id": identity, "error": {"code": refusal.code, "message": refusal.message}}
        if self.exchange.faults.delay_answers:
            await asyncio.sleep(self.exchange.faults.delay_answers)
        return {"id": identity, "result": result}

    async def _serve_admin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._admins.add(writer)
        try:
            while (request := await jsonlines.read(reader)) is not None:
                writer.write(jsonlines.encode(self.administration.answer(request)))
                await writer.drain()
        except (OSError, ValueError):
            # As for links: who sends no JSON is not talked to.
            pass
        finally:
            self._admins.discard(writer)
            writer.close()


def _listening(path: Path) -> socket.socket:
    """A socket for its owner only, that has its name once it listens: who sees it can connect."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unnamed = path.with_name(path.name + "~")
    unnamed.unlink(missing_ok=True)
    listener.bind(str(unnamed))
    unnamed.chmod(0o600)
    listener.listen()
    unnamed.replace(path)
    return listener
