"""Keeps one session alive for ever: connect, prove, lose, wait a little longer each time, connect again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from broker.brokers.ibkr.orders import OrderBook
from broker.brokers.ibkr.session import Session, SessionFailed
from broker.brokers.link import Link, State, unconnected
from broker.errors import BrokerError, NotConnected

log = logging.getLogger(__name__)

#: seconds: the first pause, and the longest. Connecting to the API asks nobody for a second factor,
#: so a gateway that restarts nightly may be tried often.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


class Supervisor:
    """Runs on the loop's thread; `link` and `session` may be read from anywhere."""

    def __init__(
        self,
        open_session: Callable[[Session], Awaitable[None]],
        reconcile: Callable[[Session], Awaitable[None]],
        watch: Callable[[Session], Coroutine[Any, Any, None]],
        new_book: Callable[[], OrderBook],
        *,
        client_id: int,
        timeout: float,
        heartbeat: float,
    ) -> None:
        """`watch` runs beside a connected session. `heartbeat`: seconds between round trips.

        Google drops connections that are idle for 10 minutes.
        """
        self.link: Link = unconnected()
        self.session: Session | None = None
        self.first_attempt = asyncio.Event()
        self._open = open_session
        self._reconcile = reconcile
        self._watch = watch
        self._new_book = new_book
        self._client_id = client_id
        self._timeout = timeout
        self._heartbeat = heartbeat
        self._restored = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        pause = FIRST_PAUSE
        while True:
            session = Session(self._client_id, self._timeout, self._new_book(), self._connectivity)
            self.session = session
            try:
                if self.link.state == State.DISCONNECTED and not self.link.reason:
                    self._set(State.CONNECTING, "not connected yet", "connecting")
                await self._open(session)
                await self._reconcile(session)
                # A gateway that has lost its own link answers all the same, with what it remembers.
                if self.link.state != State.LINK_LOST:
                    self._set(State.CONNECTED)
                self.first_attempt.set()
                pause = FIRST_PAUSE
                await self._hold(session)
                self._set(State.DISCONNECTED, session.why_lost, "connecting again")
            except SessionFailed as failure:
                self._set(
                    failure.state, failure.reason, f"trying again, every {LONGEST_PAUSE:g} s at the latest"
                )
            except BrokerError as failure:
                self._set(State.DISCONNECTED, failure.message, "connecting again")
            except Exception as failure:
                # Whatever it was, a supervisor that ends would leave the service silent for ever.
                log.exception("the connection failed unexpectedly")
                self._set(State.DISCONNECTED, f"unexpected: {type(failure).__name__}", "connecting again")
            finally:
                session.close()
                self.session = None
            self.first_attempt.set()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # so that many don't knock at once
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _hold(self, session: Session) -> None:
        heartbeat = asyncio.create_task(self._beat(session))
        restored = asyncio.create_task(self._catch_up(session))
        watching = asyncio.create_task(self._watch(session))
        losing = asyncio.create_task(session.lost.wait())
        beside = {heartbeat, restored, watching, losing}
        try:
            ended, _ = await asyncio.wait(beside, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()  # without one of them the link would stay as it is for ever: `run` begins anew
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _beat(self, session: Session) -> None:
        while True:
            await asyncio.sleep(self._heartbeat)
            try:
                await session.ping()
                if self.link.state == State.LINK_LOST:
                    await session.prove()  # in case 1102 itself was lost
                    self._restored.set()
            except NotConnected as failure:
                if self.link.state != State.LINK_LOST:
                    session.end(f"no heartbeat: {failure.reason}")
                    return

    async def _catch_up(self, session: Session) -> None:
        while True:
            await self._restored.wait()
            self._restored.clear()
            try:
                await session.refresh_positions()
                await session.refresh_orders()
                await self._reconcile(session)
                if not session.lost.is_set():
                    self._set(State.CONNECTED)
            except BrokerError as failure:
                session.end(f"the orders couldn't be read after the link came back: {failure.message}")

    def _connectivity(self, state: str, words: str) -> None:
        if state == State.LINK_LOST:
            self._set(state, words, "the gateway reconnects to IBKR by itself; orders are refused meanwhile")
        elif state == State.DISCONNECTED:
            # At once, not when `run` gets its turn: a call in between must say since when, and what goes on.
            if self.link.state in (State.CONNECTED, State.LINK_LOST):
                self._set(state, words, "connecting again")
        else:
            # Whatever the state was: a heartbeat may have taken the link for restored too early.
            self._restored.set()

    def _set(self, state: str, reason: str = "", doing: str = "") -> None:
        before, self.link = self.link, self.link.changed(state, reason, doing)
        if (before.state, before.reason) != (state, reason):
            log.info("the link to IBKR: %s %s", state, reason)
