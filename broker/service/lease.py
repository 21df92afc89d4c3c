"""Who holds the trading connection: a lease in the database, on the database's clock.

TWS takes a client id once, so the old and the new revision of a rollout would fight over it
(error 326). The newcomer is a standby that asks for the hand-over; the holder sees the request at its
next renewal, lets its running orders finish, disconnects and releases. Whoever has handed over
doesn't ask again: it takes the lease back only if nobody holds or wants it.

A holder that can't renew stops before its lease runs out. One that is frozen can't, and there
the gateway itself is the fence: it refuses the client id to the successor until the socket is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

log = structlog.get_logger("broker.service.lease")

#: a request for the hand-over that isn't repeated for this long is dead, in seconds
WANTED_SECONDS = 10.0

_TAKE = text("""
    insert into leases as held (name, holder, expires_at)
    values (:name, :holder, clock_timestamp() + :ttl * interval '1 second')
    on conflict (name) do update
       set holder = excluded.holder,
           expires_at = clock_timestamp() + :ttl * interval '1 second',
           wanted_by = case when held.wanted_by = :holder then '' else held.wanted_by end
     where held.holder = :holder
        or (held.expires_at <= clock_timestamp()
            and (held.wanted_by in ('', :holder)
                 or held.wanted_at < clock_timestamp() - :wanted * interval '1 second'))
    returning wanted_by <> '' and wanted_at >= clock_timestamp() - :wanted * interval '1 second'
""")
_ASK = text("""
    update leases set wanted_by = :holder, wanted_at = clock_timestamp()
     where name = :name and holder <> :holder
       and (wanted_by in ('', :holder) or wanted_at < clock_timestamp() - :wanted * interval '1 second')
""")
_RELEASE = text("""
    update leases set holder = '', expires_at = clock_timestamp() where name = :name and holder = :holder
""")


@dataclass(frozen=True)
class Taken:
    """The answer to an attempt: is the lease ours, and does another process ask for it."""

    held: bool
    wanted: bool


class LeaseStore:
    """The lease's row. Blocking; every call is one statement. Raises SQLAlchemyError."""

    def __init__(self, engine: Engine, name: str, holder: str, ttl: float) -> None:
        self._engine = engine
        self._values = {"name": name, "holder": holder, "ttl": ttl, "wanted": WANTED_SECONDS}

    def take(self) -> Taken:
        """Take a free lease or renew ours."""
        with self._engine.begin() as db:
            row = db.execute(_TAKE, self._values).first()
        return Taken(row is not None, bool(row and row[0]))

    def ask(self) -> None:
        """Ask the holder to hand over. To be repeated while it is wanted."""
        with self._engine.begin() as db:
            db.execute(_ASK, self._values)

    def release(self) -> None:
        """Free the lease if it is ours."""
        with self._engine.begin() as db:
            db.execute(_RELEASE, self._values)


class LeaseKeeper:
    """Keeps trying to hold the lease, and tells when that begins and ends."""

    def __init__(
        self,
        store: LeaseStore,
        ttl: float,
        begin: Callable[[], Awaitable[None]],
        end: Callable[[], Awaitable[None]],
    ) -> None:
        """`begin` runs once the lease is ours, `end` before it is given away (or after it was lost)."""
        self._store = store
        self._ttl = ttl
        self._interval = min(2.0, ttl / 5)
        self._begin = begin
        self._end = end
        self._valid_until = 0.0
        self._holding = False
        self._may_ask = True
        self._task: asyncio.Task[None] | None = None
        self.since = datetime.now(UTC)
        self.doing = "asking for the trading connection"

    @property
    def held(self) -> bool:
        """True while this process may use the connection."""
        return self._holding and time.monotonic() < self._valid_until

    def start(self) -> None:
        """Begin, without waiting for the lease."""
        self._task = asyncio.create_task(self._keep(), name="lease")

    async def stop(self) -> None:
        """End what the lease allowed, and release it at once, so that a successor needn't wait."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._holding:
            await self._hand_over("this instance is shutting down")

    async def _keep(self) -> None:
        while True:
            try:
                await self._step()
            except (SQLAlchemyError, OSError) as failure:
                log.warning("the lease can't be renewed", failure=type(failure).__name__)
                self.doing = "waiting for the database, which says who holds the trading connection"
            if self._holding and not self.held:
                log.error("the lease ran out without renewal")
                await self._lose()
            await asyncio.sleep(self._interval)

    async def _step(self) -> None:
        began = time.monotonic()
        # Not wait_for: before Python 3.12 it swallows a cancellation that comes with the answer.
        async with asyncio.timeout(self._ttl / 2):
            taken = await asyncio.to_thread(self._store.take)
        if taken.held:
            # Counted from before the call, with a margin: ours must end before the database's does.
            self._valid_until = began + self._ttl * 0.8
            if not self._holding:
                self._holding, self._may_ask = True, False
                self.since = datetime.now(UTC)
                log.info("holding the trading connection's lease")
                await self._begin()
            elif taken.wanted:
                await self._hand_over("another instance takes over the trading connection")
        elif self._holding:
            await self._lose()
        elif self._may_ask:
            await asyncio.to_thread(self._store.ask)
            self.doing = "asked the instance that holds the trading connection to hand over"

    async def _hand_over(self, why: str) -> None:
        log.info("handing over", why=why)
        await self._lose(why)
        with contextlib.suppress(SQLAlchemyError):  # then it runs out by itself
            await asyncio.to_thread(self._store.release)

    async def _lose(self, why: str = "the lease was lost") -> None:
        self._holding = False
        self.since = datetime.now(UTC)
        self.doing = f"{why}; it is taken back if nobody else holds it"
        await self._end()
