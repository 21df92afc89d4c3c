"""IBKR's pacing limits: 10 requests a second in all, and some paths much less often.

From IBKR's API documentation, "Pacing Limitations". Who breaks one gets 429, and may be kept
out for 10 minutes.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable

from localcloud.gateways.client_portal.errors import Refusal

PER_SECOND = 10
# Seconds between two requests of a path.
SPACING = {
    "GET /iserver/account/orders": 5.0,
    "GET /iserver/account/trades": 5.0,
    "GET /iserver/account/pnl/partitioned": 5.0,
    "GET /portfolio/accounts": 5.0,
    "GET /portfolio/subaccounts": 5.0,
    "POST /tickle": 1.0,
    "GET /tickle": 1.0,
    "GET /sso/validate": 60.0,
}
_BASE = re.compile(r"^/v1/(api|portal)")


class Limits:
    """Counts one gateway's requests. `penalty`: seconds of refusal after a broken limit."""

    def __init__(self, penalty: float, now: Callable[[], float] = time.monotonic) -> None:
        self._penalty = penalty
        self._now = now
        self._recent: deque[float] = deque()
        self._last: dict[str, float] = {}
        self._until = 0.0

    def check(self, method: str, path: str) -> None:
        """Counts a request. Raises Refusal 429."""
        now, name = self._now(), f"{method} {_BASE.sub('', path).rstrip('/')}"
        while self._recent and self._recent[0] <= now - 1.0:
            self._recent.popleft()
        too_soon = name in SPACING and now - self._last.get(name, -SPACING[name]) < SPACING[name]
        if now < self._until or too_soon or len(self._recent) >= PER_SECOND:
            if now >= self._until:
                self._until = now + self._penalty
            raise Refusal(429, "Too many requests")
        self._recent.append(now)
        self._last[name] = now
