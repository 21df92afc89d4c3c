"""Accounts' statuses in memory: many ask for them every few seconds, and few change.

What is kept is forgotten when this process writes the account, after each of its passes, and by age: another
instance may write, too. A read that began before a change isn't kept after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

#: how old an answer may be, in seconds, when another instance has changed the account
OLDEST = 2.0
MOST = 20_000

_T = TypeVar("_T")


class Statuses(Generic[_T]):
    """What was told of each account, for whoever owns it. Usable from any thread; never blocks for long."""

    def __init__(
        self, oldest: float = OLDEST, most: int = MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`oldest` in seconds; at `most` accounts all is forgotten."""
        self._oldest = oldest
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, str, _T]] = {}
        self._changes = 0

    def find(self, account_id: str, user_id: str) -> _T | None:
        """What is known of a user's own account; None if nothing is, or it is somebody else's."""
        found = self._kept.get(account_id)
        if found is None or found[1] != user_id or self._clock() >= found[0]:
            return None
        return found[2]

    @property
    def changes(self) -> int:
        """To be read before the database is, and given to `keep`."""
        return self._changes

    def keep(self, account_id: str, user_id: str, told: _T, since: int) -> None:
        """Keeps what was read after `changes` was `since`, unless something was changed meanwhile."""
        with self._lock:
            if self._changes == since:
                if len(self._kept) >= self._most:
                    self._kept.clear()
                self._kept[account_id] = (self._clock() + self._oldest, user_id, told)

    def forget(self, account_id: str) -> None:
        """This account was changed."""
        with self._lock:
            self._changes += 1
            self._kept.pop(account_id, None)

    def clear(self) -> None:
        """Any may have changed."""
        with self._lock:
            self._changes += 1
            self._kept = {}
