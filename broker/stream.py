"""Order events from a broker to whoever listens: callbacks, blocking iterators, asynchronous iterators.

A broker calls `publish` from any of its threads and is never held up by a slow listener. Callbacks
run one after the other on a thread of the stream, so they may call the broker.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime

from broker.models import EventKind, OrderEvent

log = logging.getLogger(__name__)

Callback = Callable[[OrderEvent], None]
Subscribe = Callable[[Callback], Callable[[], None]]

#: events that one listener may be behind; beyond that it is told of a gap instead
BACKLOG = 10_000


class EventStream:
    """The listeners of one broker."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callback] = {}
        self._next = 0
        self._waiting: queue.SimpleQueue[OrderEvent | None] | None = None

    @property
    def listened_to(self) -> bool:
        """Whether anybody listens."""
        return bool(self._callbacks)

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call `callback` with each event from now on; the result ends that, and may be called twice."""
        with self._lock:
            self._next += 1
            number = self._next
            self._callbacks[number] = callback
            if self._waiting is None:
                self._waiting = queue.SimpleQueue()
                arguments = (self._waiting,)
                threading.Thread(target=self._run, args=arguments, name=self._name, daemon=True).start()

        def unsubscribe() -> None:
            with self._lock:
                self._callbacks.pop(number, None)
                if not self._callbacks and self._waiting is not None:
                    self._waiting.put(None)
                    self._waiting = None

        return unsubscribe

    def publish(self, event: OrderEvent) -> None:
        """Pass an event on."""
        with self._lock:
            if self._waiting is not None:
                self._waiting.put(event)

    def _run(self, waiting: queue.SimpleQueue[OrderEvent | None]) -> None:
        while (event := waiting.get()) is not None:
            for callback in list(self._callbacks.values()):
                try:
                    callback(event)
                except Exception:
                    # One listener's failure must not cost the others their events.
                    log.exception("a listener of order events failed")


class Updates(Iterator[OrderEvent]):
    """Order events as a blocking iterator. `close` ends it, from any thread."""

    def __init__(self, subscribe: Subscribe, backlog: int = BACKLOG) -> None:
        self._events: queue.SimpleQueue[OrderEvent | None] = queue.SimpleQueue()
        self._backlog = backlog
        self._behind = False
        self._closed = False
        self._unsubscribe = subscribe(self._take)

    def __next__(self) -> OrderEvent:
        event = None if self._closed and self._events.empty() else self._events.get()
        if event is None:
            self._events.put(None)  # for another thread that waits
            raise StopIteration
        return event

    def __enter__(self) -> Updates:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration."""
        self._closed = True
        self._unsubscribe()
        self._events.put(None)

    def _take(self, event: OrderEvent) -> None:
        if self._events.qsize() < self._backlog:
            self._behind = False
            self._events.put(event)
        elif not self._behind:
            self._behind = True
            self._events.put(gap("this listener fell behind, and events were dropped"))


class AsyncUpdates(AsyncIterator[OrderEvent]):
    """Order events on the caller's event loop. `aclose` ends it; so does leaving `async with`."""

    def __init__(self, subscribe: Subscribe, backlog: int = BACKLOG) -> None:
        """To be made on a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[OrderEvent | None] = asyncio.Queue()
        self._backlog = backlog
        self._behind = False
        self._unsubscribe = subscribe(self._pass_on)

    async def __anext__(self) -> OrderEvent:
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> AsyncUpdates:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the iteration."""
        self._unsubscribe()
        self._events.put_nowait(None)

    def _pass_on(self, event: OrderEvent) -> None:
        try:
            self._loop.call_soon_threadsafe(self._take, event)
        except RuntimeError:  # the loop is closed: nobody reads any more
            self._unsubscribe()

    def _take(self, event: OrderEvent) -> None:
        if self._events.qsize() < self._backlog:
            self._behind = False
            self._events.put_nowait(event)
        elif not self._behind:
            self._behind = True
            self._events.put_nowait(gap("this listener fell behind, and events were dropped"))


def gap(message: str) -> OrderEvent:
    """The event that says that others may be missing."""
    return OrderEvent(EventKind.GAP, datetime.now(UTC).isoformat(), message=message)
