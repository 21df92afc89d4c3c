"""IBKR's limits, kept on our side: who breaks one is refused everything for ten minutes.

10 requests a second in all; orders, trades and /portfolio/accounts once in 5 seconds; tickle once a
second (IBKR's API documentation, "Pacing Limitations"). A cancel goes before orders, and orders
before questions.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from broker.errors import RateLimited

T = TypeVar("T")

CANCEL, ORDER, QUESTION = 0, 1, 2


@dataclass(frozen=True)
class Limits:
    """Seconds, and requests in `window` seconds; a little below IBKR's, whose clock isn't ours."""

    requests: int = 9
    window: float = 1.1
    #: of them, kept free for orders and cancels
    reserved: int = 2
    lists: float = 5.1
    tickle: float = 1.1
    #: after a 429 that doesn't say how long
    penalty: float = 600.0


class Pacer:
    """Lets requests go, the most urgent first."""

    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._now = now
        self._changed = threading.Condition()
        self._recent: deque[float] = deque()
        self._waiting: list[tuple[int, int]] = []
        self._numbers = itertools.count()
        self._blocked_until = 0.0

    def turn(self, urgency: int) -> None:
        """Wait until a request may go. Raises `RateLimited` while IBKR refuses everything."""
        ticket = (urgency, next(self._numbers))
        with self._changed:
            heapq.heappush(self._waiting, ticket)
            try:
                while (wait := self._wait(ticket)) > 0:
                    self._changed.wait(wait)
                self._recent.append(self._now())
            finally:
                self._waiting.remove(ticket)
                heapq.heapify(self._waiting)
                self._changed.notify_all()

    def block(self, retry_after: float | None) -> RateLimited:
        """IBKR refused a request for its pace. The error to raise, now and until that is over."""
        with self._changed:
            seconds = self._limits.penalty if retry_after is None else retry_after
            self._blocked_until = max(self._blocked_until, self._now() + seconds)
            self._changed.notify_all()
            return self._limited()

    def _wait(self, ticket: tuple[int, int]) -> float:
        now = self._now()
        if now < self._blocked_until:
            raise self._limited()
        while self._recent and self._recent[0] <= now - self._limits.window:
            self._recent.popleft()
        if self._waiting[0] != ticket:
            return self._limits.window
        allowed = self._limits.requests - (self._limits.reserved if ticket[0] == QUESTION else 0)
        if len(self._recent) < allowed:
            return 0.0
        return max(self._recent[len(self._recent) - allowed] + self._limits.window - now, 0.001)

    def _limited(self) -> RateLimited:
        seconds = max(0.0, self._blocked_until - self._now())
        return RateLimited("IBKR refuses requests because too many came (429)", round(seconds, 1))


class SharedRead(Generic[T]):
    """A question that may be asked seldom: callers that come together get one answer.

    Nobody gets an answer that was asked for before they came.
    """

    def __init__(self, read: Callable[[], T], spacing: float) -> None:
        self._read = read
        self._spacing = spacing
        self._turn = threading.Lock()
        self._pause = threading.Event()
        self._asked = float("-inf")
        self._kept: tuple[float, T] | None = None

    def get(self) -> T:
        """The answer, after a wait of `spacing` seconds at most. Raises what the question raises."""
        came = time.monotonic()
        with self._turn:
            if self._kept is not None and self._kept[0] >= came:
                return self._kept[1]
            while (wait := self._asked + self._spacing - time.monotonic()) > 0:
                self._pause.wait(wait)
            began = time.monotonic()
            try:
                answer = self._read()
            finally:
                # The request may have waited for its turn, so the pause is counted from its answer.
                self._asked = time.monotonic()
            self._kept = (began, answer)
            return answer
