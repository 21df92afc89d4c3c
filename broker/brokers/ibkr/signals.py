"""What coroutines of one event loop wait for, without a task of its own, and work that they share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Signal:
    """As asyncio.Event, but `first` can wait for several at once at the cost of one future.

    A task per event, as asyncio.wait wants it, takes turns of the loop that an order waits for.
    """

    __slots__ = ("_set", "_waiting")

    def __init__(self) -> None:
        self._set = False
        self._waiting: set[asyncio.Future[None]] = set()

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._set

    def set(self) -> None:
        """It has happened."""
        self._set = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def clear(self) -> None:
        """It hasn't happened yet."""
        self._set = False

    async def wait(self) -> None:
        """Until it has happened."""
        await first(self)


async def first(*signals: Signal, timeout: float | None = None) -> None:
    """Until one of the signals is set, or `timeout` seconds have passed."""
    if any(signal.is_set() for signal in signals):
        return
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[None] = loop.create_future()
    timer = None if timeout is None else loop.call_later(timeout, _give_up, waiting)
    for signal in signals:
        signal._waiting.add(waiting)
    try:
        await waiting
    finally:
        if timer is not None:
            timer.cancel()
        for signal in signals:
            signal._waiting.discard(waiting)


def _give_up(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class Shared:
    """Work that all who ask for it at about the same time share, its failure included.

    Who asks while it runs gets the next run: what the one under way has seen may be older than the asking.
    """

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._turn = asyncio.Lock()
        self._begun = self._done = 0
        self._failure: Exception | None = None

    async def __call__(self) -> None:
        """Return once a run that began after this call has ended. Raises what that raised."""
        asked = self._begun
        async with self._turn:
            if self._done <= asked:
                self._begun += 1
                self._failure = None
                try:
                    await self._work()
                except Exception as failure:
                    self._failure = failure
                self._done = self._begun
            if self._failure is not None:
                raise self._failure
