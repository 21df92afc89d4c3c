"""Faults that this front end acts out, asked for at the exchange's admin socket (`Admin.gateway`).

They concern the account of the user who is named there (None: all that have been used), from its first
request on. `methods` narrows a fault to HTTP methods (`["POST"]`).

api_errors    status=503, times=1, methods   the next requests are refused, nothing is done
slow_answers  seconds=3, times=1, methods    the next requests wait before anything is done
lose_answers  status=504, times=1, methods   the next requests are carried out, and the answer is lost on the
                                             way: a gateway's error of this status, or, with status=0, a
                                             connection that breaks
late_requests seconds=1, times=1, methods    the next request is answered with 504 at once, and
                                             carried out so much later: what a 504 means
drop_streams                                 every websocket of the account is closed
book_fee      date, amount, shares           no fault: a regulatory fee of so many dollars appears in the
                                             account's activities, for that day (2026-11-20)
rate_limit    per_minute=200                 another limit than the usual one
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from localcloud.gateways.alpaca.errors import ApiError
from localcloud.gateways.alpaca.limits import RateLimit, exceeded

_WORDS = {
    429: "rate limit exceeded",
    500: "internal server error",
    502: "bad gateway",
    503: "service unavailable",
    504: "request timed out",
}


@dataclass
class _Planned:
    times: int
    methods: list[str]
    value: float


def error(status: int) -> ApiError:
    """An error of a status, such as a fault makes."""
    if status == 429:
        return exceeded()
    return ApiError(status, status * 100_000 + 10_000, _WORDS.get(status, "internal server error"))


@dataclass
class ActedFaults:
    """What is to go wrong with one account's requests."""

    limits: dict[str, RateLimit]
    _planned: dict[str, list[_Planned]] = field(default_factory=dict)

    def on_event(self, event: dict[str, Any]) -> None:
        """Takes an event `gateway` of the exchange; others aren't for us."""
        if event["event"] != "gateway":
            return
        match event["action"]:
            case "api_errors":
                self._plan(event, float(event.get("status", 503)))
            case "slow_answers":
                self._plan(event, float(event.get("seconds", 3.0)))
            case "lose_answers":
                self._plan(event, float(event.get("status", 504)))
            case "late_requests":
                self._plan(event, float(event.get("seconds", 1.0)))
            case "rate_limit":
                for limit in self.limits.values():
                    limit.per_minute = int(event["per_minute"])

    async def before(self, method: str) -> None:
        """What happens to a request before it is carried out. Raises ApiError."""
        if (seconds := self._next("slow_answers", method)) is not None:
            await asyncio.sleep(seconds)
        if (status := self._next("api_errors", method)) is not None:
            raise error(int(status))

    def lost(self, method: str) -> int | None:
        """The status in place of an answer that gets lost (0: none at all), or None."""
        status = self._next("lose_answers", method)
        return None if status is None else int(status)

    def late(self, method: str) -> float | None:
        """Seconds until a request is carried out whose caller gets an error now, or None."""
        return self._next("late_requests", method)

    def _plan(self, event: dict[str, Any], value: float) -> None:
        methods = [str(method).upper() for method in event.get("methods") or []]
        planned = _Planned(int(event.get("times", 1)), methods, value)
        self._planned.setdefault(str(event["action"]), []).append(planned)

    def _next(self, action: str, method: str) -> float | None:
        for planned in self._planned.get(action, []):
            if planned.times > 0 and (not planned.methods or method in planned.methods):
                planned.times -= 1
                return planned.value
        return None
