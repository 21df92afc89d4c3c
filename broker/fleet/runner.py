"""Runs passes by itself: right after a request, often while something is on the way, else now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from broker.fleet.digitalocean import Budget, Priority, passes_calls
from broker.fleet.reconciler import Pass, Reconciler

log = logging.getLogger(__name__)

#: as many ids of requests stand in the log lines of the pass that they asked for
_REQUESTS = 20
#: seconds in which the lease, which lasts 60, is taken anew between passes that are further apart
_KEEP = 20.0


class Runner:
    """A thread that runs passes. `wake` from any thread has one run at once, for a user who waits."""

    def __init__(
        self,
        reconciler: Reconciler,
        budget: Budget,
        moving: float = 2.0,
        resting: float = 60.0,
        standby: float = 5.0,
        on_pass: Callable[[Pass], None] = lambda _told: None,
    ) -> None:
        """Seconds between passes: `moving` while accounts are on the way, `resting` else; `standby` until
        it is looked again whether another instance still holds the lease.

        Both stretch with the number of list calls, so that lists leave most of the request budget alone. Of
        a fleet of several pages, passes in between look only at accounts that are on the way.
        """
        self._reconciler = reconciler
        self._budget = budget
        self._moving = moving
        self._resting = resting
        self._standby = standby
        self._on_pass = on_pass
        self._woken = threading.Event()
        self._requests: deque[str] = deque(maxlen=_REQUESTS)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)

    def start(self) -> None:
        """Begin, with a pass at once."""
        self._thread.start()

    def wake(self) -> None:
        """A request has changed what is wanted. Its id, if it has one, is in the next pass's log lines."""
        request = structlog.contextvars.get_contextvars().get("request_id")
        if request:
            self._requests.append(request)
        self._woken.set()

    def stop(self, seconds: float = 10.0) -> bool:
        """No more passes; waits for the one that runs. False: it hasn't ended, and will like a killed one."""
        self._ended.set()
        self._woken.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        priority, due = Priority.BACKGROUND, 0.0
        while not self._ended.is_set():
            pause = self._resting
            asking = {"request_ids": self._asking()} if self._requests else {}
            try:
                with structlog.contextvars.bound_contextvars(**asking):
                    told = self._reconciler.run_pass(priority, time.monotonic() >= due)
                if told is None:
                    pause = self._standby
                else:
                    if told.whole:
                        due = time.monotonic() + self.interval(told)
                    pause = min(max(0.0, due - time.monotonic()), self.next_look(told))
                    self._on_pass(told)
            except SQLAlchemyError as failure:
                pause = self._moving
                log.warning("no pass: the database can't be used: %s", type(failure).__name__)
            except Exception:
                log.exception("a pass failed")
            asked = self._wait(pause)
            self._woken.clear()
            priority = Priority.USER if asked else Priority.BACKGROUND

    def _wait(self, seconds: float) -> bool:
        """Until then, or a wake: True. The lease is kept meanwhile, lest each instance lists in its turn."""
        over = time.monotonic() + seconds
        while (left := over - time.monotonic()) > 0:
            if self._woken.wait(min(left, _KEEP)):
                return True
            if left > _KEEP:
                try:
                    self._reconciler.keep_lease()
                except SQLAlchemyError as failure:
                    log.warning("the lease isn't kept: %s", type(failure).__name__)
        return self._woken.is_set()

    def _asking(self) -> list[str]:
        found = []
        while self._requests:
            found.append(self._requests.popleft())
        return found

    def interval(self, told: Pass) -> float:
        """Seconds from a whole pass to the next one."""
        least = self._moving if told.moving and not told.problem else self._resting
        return self._budget.interval(passes_calls(told.droplets), least)

    def resting_interval(self, droplets: int) -> float:
        """Seconds from a whole pass over so many droplets to the next one, at rest."""
        return self._budget.interval(passes_calls(droplets), self._resting)

    def next_look(self, told: Pass) -> float:
        """Seconds until accounts on the way are looked at again: those lists get half as many calls."""
        if not told.moving or told.problem:
            return self._resting
        lists = min(told.moving, passes_calls(told.droplets)) if told.whole else told.lists
        return self._budget.interval(2 * lists, self._moving)
