"""alpaca-py's TradingStream on a loop and a thread of its own.

The library connects again by itself, with back-off and jitter, and tells nobody. Alpaca repeats
nothing after a gap. So each acknowledged subscription is told here: what happened before it has to
be looked up. Handlers are called on the stream's loop and mustn't block it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from broker.errors import BrokerFailure

log = logging.getLogger(__name__)

#: seconds between attempts to connect: the first, and the most
BACK_OFF = (1.0, 30.0)
#: seconds within which the thread ends
ENDS = 5.0


class UpdateStream:
    """From construction to `stop`."""

    def __init__(
        self,
        api_key: str,
        secret_key: str,
        *,
        paper: bool,
        endpoint: str,
        updated: Callable[[Any], None],
        listening: Callable[[], None],
    ) -> None:
        self._stream = _stream(api_key, secret_key, paper, endpoint, updated, self._heard(listening))
        self._told = 0
        self._stopped = False
        self._left = False
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="alpaca-stream", daemon=True)
        self._thread.start()

    @property
    def state(self) -> str:
        """connecting, connected or reconnecting."""
        if self._stream._running and self._told:
            return "connected"
        return "reconnecting" if self._told else "connecting"

    def stop(self) -> None:
        """Close the connection and end the thread."""
        self._stopped = True
        with self._starting:
            loop, task = self._loop, self._task
        if loop is not None and task is not None and loop.is_running():
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(self._cancel, loop, task)
        self._thread.join(ENDS)

    def _cancel(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
        # Again until it is heeded: Python 3.11's wait_for forgets a cancel that meets an answer.
        if not self._left:
            task.cancel()
            loop.call_later(0.05, self._cancel, loop, task)

    def _heard(self, listening: Callable[[], None]) -> Callable[[], None]:
        def heard() -> None:
            self._told += 1
            listening()

        return heard

    def _run(self) -> None:
        try:
            asyncio.run(self._listen())
        except Exception:
            log.exception("the stream of order updates ended")

    async def _listen(self) -> None:
        with self._starting:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        # The library's own `stop` is heeded every five seconds only.
        with contextlib.suppress(asyncio.CancelledError):
            if not self._stopped:
                await self._stream._run_forever()
        self._left = True
        await self._stream.close()


def _stream(
    api_key: str,
    secret_key: str,
    paper: bool,
    endpoint: str,
    updated: Callable[[Any], None],
    listening: Callable[[], None],
) -> Any:
    from alpaca.trading.stream import TradingStream

    class Told(TradingStream):
        """A TradingStream that tells when it listens."""

        async def _dispatch(self, msg: dict[str, Any]) -> None:
            if msg.get("stream") == "listening":
                listening()
            await super()._dispatch(msg)

    async def handle(update: Any) -> None:
        updated(update)

    if not hasattr(TradingStream, "_dispatch"):
        raise BrokerFailure("this version of alpaca-py hides when its stream listens: gaps would go unseen")
    url: Any = endpoint or None
    stream = Told(api_key, secret_key, paper=paper, url_override=url)
    stream._reconnect_min_backoff, stream._reconnect_max_backoff = BACK_OFF
    stream.subscribe_trade_updates(handle)
    return stream
