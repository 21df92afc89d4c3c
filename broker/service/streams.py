"""Requests that stay open: pages that are looked at, and order events. How many there may be.

Each holds one of the requests that Cloud Run gives an instance at a time (`ibkr:api.concurrency`) for as
long as somebody looks. Without a limit, open pages would take them all, and an order would wait until
somebody closes one. So an instance keeps its last requests for calls, which are answered and done
(docs/scale.md).
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

#: seconds after which whoever was refused may try again
RETRY_AFTER = 10


class TooManyStreams(Exception):
    """No stream may be opened now: 429 if it is the user's own limit, 503 if it is the instance's.

    Come again after RETRY_AFTER seconds, or read without a stream meanwhile.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Streams:
    """The open streams of one instance. Lives on one event loop."""

    def __init__(self, limit: int, per_user: int, seconds: float) -> None:
        """`limit` for all, `per_user` for each; a stream lasts `seconds` at most: its client comes again."""
        self._limit, self._per_user, self._seconds = limit, per_user, seconds
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """How many are open."""
        return self._open.total()

    def check(self, user: str) -> None:
        """Raises TooManyStreams if this user may open none now."""
        if self._open[user] >= self._per_user:
            raise TooManyStreams(
                429,
                f"you have {self._per_user} pages or streams open already, and that is the most: close some",
            )
        if self.open >= self._limit:
            raise TooManyStreams(
                503,
                f"{self._limit} pages and streams are open, and that is the most for this service; calls and "
                "orders aren't affected",
            )

    @contextlib.contextmanager
    def held(self, user: str) -> Iterator[None]:
        """One more is open meanwhile."""
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]

    def until(self, session: float) -> float:
        """When a stream that begins now ends; `session` is the session's end, in seconds since the epoch."""
        return min(session, time.time() + self._seconds)
