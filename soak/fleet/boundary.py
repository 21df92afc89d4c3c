"""The points before and after everything a process does to the outside, at which it may end or freeze."""

from __future__ import annotations

import threading
from typing import Any

#: what changes something: a process that dies elsewhere is as if it had died before or after one of these
WRITES = frozenset(
    {"adopt", "begin_create", "begin_push", "change", "condemn", "forget", "gone", "note", "note_checked",
     "note_seen", "quarantine", "create", "delete", "act", "push", "restart"}
)  # fmt: skip


class Killed(BaseException):
    """The process is gone: nothing that it would do after this happens."""


class Boundary:
    """The points that one process reaches, in the order in which it reaches them."""

    def __init__(self) -> None:
        self.killed = False
        self.frozen = threading.Event()
        self.points = 0
        self._kill_at = self._freeze_at = 0
        self._only = ""
        self._going = threading.Event()
        self._going.set()
        self._lock = threading.Lock()

    def end_at(self, kill: int = 0, freeze: int = 0, only: str = "") -> None:
        """Counting from here, which point is the last one, or the one to freeze at; 0: none.

        `only` those around calls of that name count, if one is given.
        """
        with self._lock:
            self.points, self._kill_at, self._freeze_at, self._only = 0, kill, freeze, only

    def kill(self) -> None:
        """Ends the process wherever it is."""
        self.killed = True
        self.wake()

    def wake(self) -> None:
        """A frozen process goes on."""
        self._going.set()
        self.frozen.clear()

    def reach(self, name: str) -> None:
        """Raises Killed, or returns once the process isn't frozen (any more)."""
        with self._lock:
            counts = self._only in ("", name)
            self.points += counts
            if counts and self.points == self._kill_at:
                self.killed = True
            if counts and self.points == self._freeze_at:
                self._going.clear()
                self.frozen.set()
        self._going.wait()
        if self.killed:
            raise Killed

    def around(self, target: Any) -> Any:
        """The object, with these points around what it changes."""
        return _Around(target, self)


class _Around:
    def __init__(self, target: Any, boundary: Boundary) -> None:
        self._target, self._boundary = target, boundary

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in WRITES:
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._boundary.reach(name)
            try:
                return found(*arguments, **named)
            finally:
                self._boundary.reach(name)

        return call
