"""Turns for orders: they stay within TWS's 50 messages a second, and a cancel never queues behind them.

The library throttles at 45 messages a second, first in, first out: a cancel sent behind a burst of
orders would wait for all of them. So orders wait here, before they are handed to the library, and
what they leave of its 45 is for cancels and questions, which don't wait.

Turns are spread over the second. If a second's worth went out at once and again a second later, a line
that stands still for a moment in between would deliver both together, and TWS drops what is beyond 50
(error 100) without naming the order.
"""

from __future__ import annotations

import asyncio
from typing import Final

#: orders and changes of orders in a second, and how many of them may go at once
ORDERS_A_SECOND: Final = 35
AT_ONCE: Final = 6


class Turns:
    """Hands out turns in the order in which they were asked for. Used on one event loop."""

    def __init__(self, a_second: float = ORDERS_A_SECOND, at_once: int = AT_ONCE) -> None:
        self._gap = 1.0 / a_second
        self._slack = (at_once - 1) * self._gap
        self._due = -float("inf")
        self._queue = asyncio.Lock()

    async def turn(self) -> None:
        """Returns when an order may be sent."""
        loop = asyncio.get_running_loop()
        async with self._queue:
            wait = self._due - self._slack - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            self._due = max(self._due, loop.time()) + self._gap
