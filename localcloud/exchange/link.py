"""The client of the exchange: how gateways reach it.

    link = await Link.connect("unix:/run/exchange.sock")     # or "127.20.255.2:4000"
    accounts = await link.login("user", "password", mode="paper")
    order = await link.call("place_order", account=accounts[0], conid=265598, side="BUY", quantity=1,
                            order_type="MKT")

Methods are those of `sessions.Session`. Events that `on_event` callbacks get, each with `event` (and
`account`):
    order_status   order
    order_routed   order: it has arrived in the open market
    execution      execution, order, position (shares held after it)
    commission     exec_id, commission, currency, realized_pnl (None when nothing was closed)
    position       position (as the method `positions` returns it)
    account_value  summary (as the method `account_summary` returns it)
    quote          quote
    farms          up: market data farms came or went
    gateway        action: a fault that the front end itself acts out
    session_taken  another login of the same user took the session
    link_lost      the link is gone; made here, not by the exchange
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from localcloud.exchange import jsonlines
from localcloud.exchange.models import Refused
from localcloud.exchange.users import LoginFailed

Callback = Callable[[dict[str, Any]], None]
LOGIN_ERROR = "login_"


class Link:
    """One connection to the exchange. `closed` is set when it is gone; make a new one then."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.closed = asyncio.Event()
        self.login_info: dict[str, Any] = {}
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._callbacks: list[Callback] = []
        self._task = asyncio.create_task(self._receive())

    @classmethod
    async def connect(cls, address: str) -> Link:
        """Connects to `unix:PATH` or `HOST:PORT`. Raises OSError."""
        return cls(*await jsonlines.open_stream(address))

    def on_event(self, callback: Callback) -> None:
        """Calls `callback` with every event, in order. It must not block or raise."""
        self._callbacks.append(callback)

    async def login(
        self,
        username: str,
        password: str,
        mode: str = "paper",
        compete: bool = True,
        wait: float | None = None,
    ) -> list[str]:
        """Opens a brokerage session and returns its accounts.

        `wait`: seconds to wait for a person's second factor (default: the exchange's 180; 0 doesn't wait).
        Raises LoginFailed (reason credentials, second_factor, mode, competing) and ConnectionError.
        """
        params: dict[str, Any] = {"username": username, "password": password}
        params |= {"mode": mode, "compete": compete}
        if wait is not None:
            params["wait"] = wait
        try:
            self.login_info = await self.call("login", **params)
        except Refused as refusal:
            if refusal.code.startswith(LOGIN_ERROR):
                raise LoginFailed(refusal.code.removeprefix(LOGIN_ERROR)) from None
            raise
        return list(self.login_info["accounts"])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the exchange.

        Raises Refused with the exchange's code, or ConnectionError when the link went away: then it is
        unknown whether the exchange did what was asked.
        """
        if self.closed.is_set():
            raise ConnectionError("the link to the exchange is closed")
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._writer.write(jsonlines.encode({"id": number, "method": method, "params": params}))
        return await answer

    async def close(self) -> None:
        """Closes the link; no event link_lost follows."""
        self._callbacks.clear()
        self._writer.close()
        await self.closed.wait()

    async def _receive(self) -> None:
        try:
            while (message := await jsonlines.read(self._reader)) is not None:
                if "event" in message:
                    self._tell(message)
                else:
                    self._settle(message)
        except (OSError, ValueError):
            # The link is as good as gone; waiting calls learn it below.
            pass
        finally:
            self.closed.set()
            self._writer.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the link to the exchange was lost"))
            self._waiting.clear()
            self._tell({"event": "link_lost"})

    def _tell(self, event: dict[str, Any]) -> None:
        for callback in list(self._callbacks):
            callback(event)

    def _settle(self, message: dict[str, Any]) -> None:
        answer = self._waiting.pop(message["id"], None)
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(Refused(message["error"]["code"], message["error"]["message"]))
        else:
            answer.set_result(message["result"])
