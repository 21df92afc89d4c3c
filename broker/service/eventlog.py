"""The last order events of a broker, numbered, so that a client that reconnects gets what it missed."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable

from broker.base import BaseBroker
from broker.models import OrderEvent
from broker.stream import gap

#: events kept for clients that reconnect
KEPT = 1000

Numbered = tuple[int, OrderEvent]


class EventLog:
    """The last events of one broker, numbered, for any number of clients."""

    def __init__(self, broker: BaseBroker, kept: int = KEPT) -> None:
        """Listens from now on. Raises `UnsupportedOperation`."""
        self._process = uuid.uuid4().hex[:8]
        self._lock = threading.Lock()
        self._kept: deque[Numbered] = deque(maxlen=kept)
        self._last = 0
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._closed = False
        self._unsubscribe: Callable[[], None] = broker.subscribe(self._take)

    @property
    def followed(self) -> bool:
        """Whether somebody listens."""
        return bool(self._waiting)

    def close(self) -> None:
        """End all streams."""
        self._unsubscribe()
        self._closed = True
        self._wake()

    async def follow(
        self, last_id: str, heartbeat: float, until: float = math.inf
    ) -> AsyncIterator[tuple[str, OrderEvent] | None]:
        """Events after an id (from now on if it is empty); None after `heartbeat` seconds of silence.

        It ends at `until`, seconds since the epoch.
        """
        position, lost = self._position(last_id)
        if lost:
            yield self._id(position), gap("events may have been missed: read orders and fills again")
        woken = asyncio.Event()
        self._waiting[woken] = asyncio.get_running_loop()
        try:
            while not self._closed and (left := until - time.time()) > 0:
                woken.clear()
                news, position = self._after(position)
                for number, event in news:
                    yield self._id(number), event
                if not news:
                    try:
                        async with asyncio.timeout(min(heartbeat, left)):
                            await woken.wait()
                    except TimeoutError:
                        yield None
        finally:
            del self._waiting[woken]

    def _take(self, event: OrderEvent) -> None:
        with self._lock:
            self._last += 1
            self._kept.append((self._last, event))
        self._wake()

    def _wake(self) -> None:
        for woken, loop in list(self._waiting.items()):
            try:
                loop.call_soon_threadsafe(woken.set)
            except RuntimeError:  # that loop is closed, and its stream with it
                continue

    def _id(self, number: int) -> str:
        return f"{self._process}-{number}"

    def _position(self, last_id: str) -> tuple[int, bool]:
        """The number after which to go on, and whether events before it may be lost."""
        process, _, number = last_id.partition("-")
        with self._lock:
            if not last_id:
                return self._last, False
            oldest = self._kept[0][0] if self._kept else self._last + 1
            known = process == self._process and number.isascii() and number.isdigit()
            if known and oldest - 1 <= int(number[:18]) <= self._last:
                return int(number), False
            return oldest - 1, True

    def _after(self, position: int) -> tuple[list[Numbered], int]:
        with self._lock:
            news = [numbered for numbered in self._kept if numbered[0] > position]
            if news and news[0][0] > position + 1:
                news.insert(0, (news[0][0] - 1, gap("this client fell behind, and events were dropped")))
            return news, self._last
