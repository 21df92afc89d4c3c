"""One life of a trading process: a broker, its journal, its line. It can be killed at any commit.

Killed means: no further transaction reaches the journal, no further byte the gateway, and nobody
is asked to clean up first. The next life opens the same journal file.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import event

from broker.base import BaseBroker
from broker.errors import BrokerError
from broker.journal import Journal
from soak.brokers import Build
from soak.venue import Venue

T = TypeVar("T")

#: seconds after which a call counts as hung: longer than any deadline of the brokers
HUNG = 60.0
_LOOK = 0.01


class Killed(BaseException):
    """Ends the threads of a killed process. Not an `Exception`: nothing that it runs may handle its end."""


class Hung(AssertionError):
    """A call neither returned nor raised."""


class Process:
    """A broker that is connecting or connected."""

    def __init__(self, venue: Venue, build: Build, journal_file: Path) -> None:
        self.dead = threading.Event()
        self._venue = venue
        self._commits_left: int | None = None
        self._lock = threading.Lock()
        self.journal = Journal.in_file(str(journal_file))
        event.listen(self.journal._engine, "begin", self._before_transaction, insert=True)
        self.line = venue.line()
        self.broker: BaseBroker = build(venue, self.journal, self.line.port)
        with contextlib.suppress(Killed):
            self.call(lambda: venue.attach(self.broker))
        # A venue that is away is one of the faults: connecting goes on, or is tried at the next call.
        with contextlib.suppress(BrokerError, Killed):
            self.call(self.broker.connect)

    def call(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises; `Killed` as soon as the process dies; `Hung`."""
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(work())
            except BaseException as failure:
                outcome.set_exception(failure)

        threading.Thread(target=run, name="caller", daemon=True).start()
        for _ in range(int(HUNG / _LOOK)):
            ended = wait([outcome], _LOOK).done
            if self.dead.is_set():
                raise Killed  # what a dead process's calls end in reaches nobody
            if ended:
                return outcome.result()
        raise Hung(f"a call of {self.broker.name} didn't end within {HUNG:g} s")

    def kill_after(self, commits: int) -> None:
        """Die just before the transaction after the next `commits` ones."""
        self._commits_left = commits

    def kill(self) -> None:
        """Die now."""
        with self._lock:
            if self.dead.is_set():
                return
            self.dead.set()
        self._venue.on_line(self.line.close)
        # Only memory and threads are given back here: line and journal are dead already.
        threading.Thread(target=self._give_back, daemon=True).start()

    def stop(self) -> None:
        """End in good order."""
        if not self.dead.is_set():
            self.broker.disconnect()
            self.dead.set()
            self._venue.on_line(self.line.close)

    def _before_transaction(self, _connection: Any) -> None:
        if self.dead.is_set():
            raise Killed
        if self._commits_left is not None:
            self._commits_left -= 1
            if self._commits_left < 0:
                self.kill()
                raise Killed

    def _give_back(self) -> None:
        with contextlib.suppress(BaseException):
            self.broker.disconnect()


def let_the_dead_rest() -> None:
    """Threads that end by `Killed` print no traceback."""
    usual = threading.excepthook

    def hook(ended: threading.ExceptHookArgs) -> None:
        if not issubclass(ended.exc_type, Killed):
            usual(ended)

    threading.excepthook = hook
