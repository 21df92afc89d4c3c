"""Faults that the gateway itself acts out, asked for at the exchange's admin socket (`Admin.gateway`).

daily_reset                       IBKR ends every login about once a day; a live one needs its second
                                  factor again
lose_established                  authenticated, but `established` is false (ibeam 281), until ssodh/init
api_errors  status=503, times=2   the next answers are errors
slow_answers  seconds=3, times=1  the next answers are late
"""

from __future__ import annotations

import asyncio
from typing import Any

from localcloud.gateways.client_portal.errors import Refusal
from localcloud.gateways.client_portal.session import BrokerageSession, Json

_WORDS = {429: "Too many requests", 500: "Internal Server Error", 503: "Service Unavailable"}


class ActedFaults:
    """Listens to the exchange's events for faults to act out."""

    def __init__(self, session: BrokerageSession) -> None:
        self._session = session
        self._errors: list[int] = []
        self._delays: list[float] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        session.listeners.append(self._on_event)

    def _on_event(self, event: Json) -> None:
        if event["event"] != "gateway":
            return
        times = int(event.get("times", 1))
        match event["action"]:
            case "daily_reset":
                self._session.forget_login()
                task = asyncio.get_running_loop().create_task(self._session.log_out())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case "lose_established":
                self._session.established = False
            case "api_errors":
                self._errors += [int(event.get("status", 503))] * times
            case "slow_answers":
                self._delays += [float(event.get("seconds", 1.0))] * times

    async def before_answer(self) -> None:
        """What happens to the next answer. Raises Refusal."""
        if self._delays:
            await asyncio.sleep(self._delays.pop(0))
        if self._errors:
            status = self._errors.pop(0)
            raise Refusal(status, _WORDS.get(status, "error"))
