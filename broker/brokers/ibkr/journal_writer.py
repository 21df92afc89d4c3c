"""Carries what TWS says about orders to the journal, in order, without holding up the event loop."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from broker.errors import JournalUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

#: seconds between attempts while the journal's database is away
_PAUSE = 1.0


class JournalWriter:
    """A thread that runs journal work one after the other. Work isn't dropped while the database is away."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, work: Callable[[], object]) -> None:
        """Queue something that writes to the journal."""
        self._work.put(work)

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

        self._work.put(attempt)
        return outcome

    def flush(self, timeout: float = 5.0) -> None:
        """Wait until all that was queued is written. Raises `JournalUnavailable` after `timeout` seconds."""
        done = threading.Event()
        self._work.put(done.set)
        if not done.wait(timeout):
            raise JournalUnavailable("the order journal is behind: what the broker said isn't all written")

    def stop(self) -> None:
        """Write what is queued, if the database lets us, and end."""
        self._work.put(None)
        self._thread.join(5.0)
        self._stopping.set()
        self._thread.join(2 * _PAUSE)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            while not self._stopping.is_set():
                try:
                    work()
                    break
                except JournalUnavailable:
                    log.warning("an order's news waits for the journal")
                    self._stopping.wait(_PAUSE)
                except Exception:
                    # Whatever it was, a writer that ends would leave the journal behind for ever.
                    log.exception("an order's news couldn't be written")
                    break
