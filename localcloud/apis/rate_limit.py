"""How many requests an hour and a minute an API takes, in DigitalOcean's way of saying so.

Limits and headers: "Rate Limiting" in the API's description: 5,000 requests an hour and 250 a minute (5 % of
the hour); `ratelimit-reset` is when the oldest request of the window expires, `retry-after` comes only with
the burst limit.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from localcloud.cloud import CloudError

HOUR, MINUTE = 3600.0, 60.0


class RateLimitError(CloudError):
    """429. `headers` say when to come back."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(429, "API Rate limit exceeded.", "too_many_requests")
        self.headers = headers


class RateLimit:
    """A sliding window over the last hour's requests."""

    def __init__(self, per_hour: int, per_minute: int, now: Callable[[], float] = time.time) -> None:
        self._per_hour = per_hour
        self._per_minute = per_minute
        self._now = now
        self._times: deque[float] = deque()

    def take(self, per_hour: int | None = None, per_minute: int | None = None) -> dict[str, str]:
        """Counts one request; the headers of its answer. The arguments override the limits.

        Raises RateLimitError; refused requests aren't counted.
        """
        hour, minute, now = per_hour or self._per_hour, per_minute or self._per_minute, self._now()
        while self._times and self._times[0] <= now - HOUR:
            self._times.popleft()
        if len(self._times) >= hour:
            raise RateLimitError(self._headers(hour, now))
        if len(self._times) >= minute and self._times[-minute] > now - MINUTE:
            wait = math.ceil(self._times[-minute] + MINUTE - now)
            raise RateLimitError({**self._headers(hour, now), "retry-after": str(max(1, wait))})
        self._times.append(now)
        return self._headers(hour, now)

    def _headers(self, hour: int, now: float) -> dict[str, str]:
        oldest = self._times[0] if self._times else now
        return {
            "ratelimit-limit": str(hour),
            "ratelimit-remaining": str(max(0, hour - len(self._times))),
            "ratelimit-reset": str(math.ceil(oldest + HOUR)),
        }
