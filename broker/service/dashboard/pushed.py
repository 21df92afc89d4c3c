"""Pieces of pages that are made once and pushed to all who look, whenever they change.

Works only while somebody looks, and some seconds longer: the next page is often on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any

#: seconds of silence after which a comment goes out: proxies end connections that are idle for longer
HEARTBEAT = 15.0
LINGER = 10.0


class Pushed(ABC):
    """Some pieces of HTML, and the pages that follow them. Lives on one event loop."""

    def __init__(self) -> None:
        #: by part: its HTML, and the number of the change that made it so
        self._pieces: Mapping[str, tuple[str, int]] = {}
        self._changes = 0
        self._followers: set[asyncio.Event] = set()
        self._first = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @abstractmethod
    def _work(self) -> list[Coroutine[Any, Any, None]]:
        """What runs while somebody looks. It calls `_show`."""

    async def look(self, patience: float) -> None:
        """Wait some seconds at most for the first reading."""
        if not self._first.is_set():
            with self.followed(asyncio.Event()), contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._first.wait()

    def news(self, parts: Collection[str], seen: int) -> tuple[dict[str, str], int]:
        """Those of the named parts that have changed after change number `seen`, and the last number."""
        pieces = self._pieces.items()
        return {part: html for part, (html, at) in pieces if at > seen and part in parts}, self._changes

    def refresh(self) -> None:
        """Read everything again soon: somebody has just changed something."""
        self._hurry.set()

    @property
    def idle(self) -> bool:
        """Whether nobody looks, nor has lately."""
        return not self._tasks

    @property
    def closed(self) -> bool:
        """Whether nothing comes any more."""
        return self._closed

    def close(self) -> None:
        """End what follows, for good."""
        self._closed = True
        for follower in self._followers:
            follower.set()

    def _show(self, pieces: Mapping[str, str]) -> None:
        """What there is to see now; only what differs is pushed."""
        self._changes += 1
        known = dict(self._pieces)
        for part, html in pieces.items():
            if part not in known or known[part][0] != html:
                known[part] = (html, self._changes)
        self._pieces = known
        self._first.set()
        for follower in self._followers:
            follower.set()

    async def _pause(self, seconds: float) -> None:
        """Until it is time to read again, or somebody wants it."""
        with contextlib.suppress(TimeoutError):
            # Not wait_for: on Python 3.11 it loses a cancellation that comes together with the event.
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self._hurry.clear()

    @contextlib.contextmanager
    def followed(self, follower: asyncio.Event) -> Iterator[None]:
        """It works meanwhile, and sets the event whenever something has changed."""
        self._followers.add(follower)
        if not self._tasks:
            self._tasks = [asyncio.create_task(work) for work in self._work()]
        try:
            yield
        finally:
            self._followers.discard(follower)
            asyncio.get_running_loop().call_later(LINGER, self._rest)

    def _rest(self) -> None:
        """Nobody looks any more, unless somebody came back."""
        if not self._followers:
            for task in self._tasks:
                task.cancel()
            self._tasks = []
            # What would be shown next may be hours old by then.
            self._first.clear()


async def follow(
    sources: Sequence[Pushed], parts: Collection[str], until: float
) -> AsyncIterator[dict[str, str] | None]:
    """The HTML of the named parts whenever it changes; None after some silence.

    Ends at `until`, seconds since the epoch, or with the first source that ends.
    """
    seen = [0] * len(sources)
    woken = asyncio.Event()
    with contextlib.ExitStack() as stack:
        for source in sources:
            stack.enter_context(source.followed(woken))
        while not any(source.closed for source in sources) and (left := until - time.time()) > 0:
            woken.clear()
            found: dict[str, str] = {}
            for i, source in enumerate(sources):
                news, seen[i] = source.news(parts, seen[i])
                found |= news
            if found:
                yield found
                continue
            try:
                async with asyncio.timeout(min(HEARTBEAT, left)):
                    await woken.wait()
            except TimeoutError:
                yield None
