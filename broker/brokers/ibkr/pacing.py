"""Turns for orders: they stay within TWS's 50 messages a second, and a cancel never queues behind them.

The library throttles at 45 messages a second, first in, first out: a cancel sent behind a burst of
orders would wait for all of them. So orders wait here, before they are handed to the library, and
what they leave of its 45 is for cancels and questions, which don't wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

#: orders and changes of orders in any one second
ORDERS_A_SECOND: Final = 38


class Turns:
    """Hands out turns in the order in which they were asked for. Used on one event loop."""

    def __init__(self, most: int = ORDERS_A_SECOND, seconds: float = 1.0) -> None:
        self._most, self._seconds = most, seconds
        self._given: deque[float] = deque()
        self._queue = asyncio.Lock()

    async def turn(self) -> None:
        """Returns when an order may be sent."""
        loop = asyncio.get_running_loop()
        async with self._queue:
            if len(self._given) >= self._most:
                wait = self._given[0] + self._seconds - loop.time()
                if wait > 0:
                    await asyncio.sleep(wait)
                self._given.popleft()
            self._given.append(loop.time())
