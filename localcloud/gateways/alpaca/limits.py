"""200 requests a minute and account (alpaca.markets/support/usage-limit-api-calls), in three headers.

X-RateLimit-Limit, X-RateLimit-Remaining and X-RateLimit-Reset (seconds since the epoch) come with every
answer. Here the window is the clock's minute; how Alpaca's slides isn't documented.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from localcloud.gateways.alpaca.errors import ApiError

REQUESTS_PER_MINUTE = 200
_WINDOW_SECONDS = 60


class RateLimit:
    """Counts one account's requests."""

    def __init__(self, per_minute: int = REQUESTS_PER_MINUTE, now: Callable[[], float] = time.time) -> None:
        self.per_minute = per_minute
        self._now = now
        self._window = 0
        self._taken = 0

    def take(self) -> bool:
        """Counts a request; whether it was within the limit. Refused ones aren't counted."""
        window = int(self._now() // _WINDOW_SECONDS)
        if window != self._window:
            self._window, self._taken = window, 0
        if self._taken >= self.per_minute:
            return False
        self._taken += 1
        return True

    def headers(self) -> dict[str, str]:
        """What every answer says about the limit."""
        return {
            "X-RateLimit-Limit": str(self.per_minute),
            "X-RateLimit-Remaining": str(max(0, self.per_minute - self._taken)),
            "X-RateLimit-Reset": str((self._window + 1) * _WINDOW_SECONDS),
        }


def exceeded() -> ApiError:
    """429."""
    return ApiError(429, 42910000, "rate limit exceeded")
