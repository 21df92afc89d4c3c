"""Carries what TWS says about orders to the journal, in order, without holding up event loop or caller."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from broker.errors import JournalUnavailable
from broker.journal import Journal

log = logging.getLogger(__name__)

T = TypeVar("T")
#: writes to the journal, and returns what is to be done once that is committed
Write = Callable[[], Callable[[], None]]

#: seconds between attempts while the journal's database is away
_PAUSE = 1.0
#: seconds in which news are gathered: TWS tells of an order in several messages, one commit holds them
_GATHER = 0.005


@dataclass(frozen=True)
class _News:
    key: Hashable
    write: Write


class JournalWriter:
    """A thread that runs journal work one after the other. Work isn't dropped while the database is away.

    At most one write waits under each key, so no more than there are orders and executions.
    """

    def __init__(self, name: str, journal: Journal) -> None:
        self._journal = journal
        self._changed = threading.Condition()
        self._waiting: deque[_News | Callable[[], None]] = deque()
        self._keys: set[Hashable] = set()
        #: news wait for the end of `_GATHER`; somebody waits for what is queued; work is being done
        self._gathering = self._due = self._writing = False
        self._ended = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, key: Hashable, write: Write) -> None:
        """Queue a write, unless one waits under this key already: that one will tell the newest state."""
        with self._changed:
            if key in self._keys:
                return
            self._keys.add(key)
            self._waiting.append(_News(key, write))
            if self._gathering or self._due:
                return
            try:
                # The thread isn't even woken before: it would take turns with the loop and with callers,
                # who wait for the very message that brings the news.
                asyncio.get_running_loop().call_later(_GATHER, self._wake)
                self._gathering = True
            except RuntimeError:  # not called on a loop
                self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._gathering, self._due = False, bool(self._waiting)
            self._changed.notify_all()

    def run(self, work: Callable[[], T]) -> Future[T]:
        """Queue something whose outcome somebody waits for; it is tried once.

        Cancelled before its turn, it isn't done.
        """
        outcome: Future[T] = Future()

        def attempt() -> None:
            # From here on it can't be cancelled: whoever gives up waiting (a connection that breaks in the
            # middle of a comparison) must not make this thread fail over the outcome.
            if not outcome.set_running_or_notify_cancel():
                return
            try:
                outcome.set_result(work())
            except BaseException as failure:
                outcome.set_exception(failure)

        with self._changed:
            self._waiting.append(attempt)
            self._wake()
        return outcome

    def flush(self, timeout: float = 5.0) -> None:
        """Wait until all that was queued is written. Raises `JournalUnavailable` after `timeout` seconds."""
        with self._changed:
            if not self._waiting and not self._writing:
                return
        done = self.run(lambda: None)
        try:
            done.result(timeout)
        except TimeoutError:
            done.cancel()
            said = "the order journal is behind: what the broker said isn't all written"
            raise JournalUnavailable(said) from None

    def stop(self) -> None:
        """Write what is queued, if the database lets us, and end."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(5.0)
        self._stopping.set()
        self._thread.join(2 * _PAUSE)

    def _run(self) -> None:
        while (work := self._next()) is not None:
            if callable(work):
                work()
            else:
                self._write(work)

    def _next(self) -> list[Write] | Callable[[], None] | None:
        """The next call, or all news before it; None: there is nothing more to do."""
        with self._changed:
            self._writing = False
            self._due = bool(self._waiting) and not self._gathering
            self._changed.wait_for(lambda: self._due or self._ended)
            if not self._waiting:
                return None
            self._writing = True
            found: list[Write] = []
            while self._waiting:
                first = self._waiting[0]
                if not isinstance(first, _News):
                    break
                self._waiting.popleft()
                self._keys.discard(first.key)
                found.append(first.write)
            if found:
                return found
            call = self._waiting.popleft()
            assert not isinstance(call, _News)  # all news before it were taken
            return call

    def _write(self, writes: list[Write]) -> None:
        while not self._stopping.is_set():
            try:
                with self._journal.together():
                    tells = [write() for write in writes]
                for tell in tells:
                    tell()
                return
            except JournalUnavailable:
                log.warning("an order's news waits for the journal")
                self._stopping.wait(_PAUSE)
            except Exception:
                if len(writes) > 1:  # one that fails must not cost the others their turn
                    for write in writes:
                        self._write([write])
                    return
                # Whatever it was, a writer that ends would leave the journal behind for ever.
                log.exception("an order's news couldn't be written")
                return
