"""One event loop in a thread of its own, and how threads and other loops call into it.

The loop is asyncio's own, never uvloop's: the library was written for it, and it is never the loop
that the caller runs on, so nothing has to be nested or patched.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """A running event loop. Usable from any thread but its own."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.SelectorEventLoop()
        self._open: set[Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()
            for outcome in list(self._open):  # what came while the loop was being stopped
                outcome.cancel()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for its result. Blocks the calling thread."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a blocking broker call on the broker's own event loop would never end")
        return self._begin(work).result()

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for its result on the caller's own loop."""
        return await asyncio.wrap_future(self._begin(work))

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        # As asyncio.run_coroutine_threadsafe, but the caller has the result in the very step in which
        # the work ends, not in a later turn of the loop; and work that comes too late is cancelled.
        outcome: Future[T] = Future()
        self._open.add(outcome)
        outcome.add_done_callback(self._open.discard)

        async def attend() -> None:
            try:
                found = await work
            except asyncio.CancelledError:
                outcome.cancel()
                raise
            except BaseException as failure:
                if not outcome.cancelled():
                    outcome.set_exception(failure)
            else:
                if not outcome.cancelled():  # nobody waits any more
                    outcome.set_result(found)

        def begin() -> None:
            task = self.loop.create_task(attend())

            def ended(outcome: Future[T]) -> None:
                if outcome.cancelled():  # by a caller who gave up
                    with contextlib.suppress(RuntimeError):  # the loop is closed
                        self.loop.call_soon_threadsafe(task.cancel)

            outcome.add_done_callback(ended)

        try:
            self.loop.call_soon_threadsafe(begin)
        except RuntimeError:  # the loop is closed
            work.close()
            outcome.cancel()
        return outcome

    def stop(self) -> None:
        """Cancel what still runs there and end the thread."""

        async def cancel_all() -> None:
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel_all(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
