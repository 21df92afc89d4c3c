"""One clock for all: the database's, the cloud's and the processes'. It stands still unless it is moved."""

from __future__ import annotations

import asyncio
import heapq
import itertools

import psycopg

BEGIN = 1_763_650_800.0
"""2025-11-20 15:00 UTC: some Thursday on which the New York exchange is open."""

_DATABASE = """
create schema if not exists soak;
create table if not exists soak.clock (now timestamptz not null);
create or replace function soak.clock_timestamp() returns timestamptz language sql volatile
    as 'select now from soak.clock';
"""


class Clock:
    """Seconds since 1970. Reading it is for any thread, moving it for one."""

    def __init__(self, database: str) -> None:
        """`database`: its URL; see `prepare`."""
        self._connection = psycopg.connect(database, autocommit=True)
        self._sleeping: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self.now = BEGIN
        self.begin()

    @staticmethod
    def prepare(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
        """Puts this clock before PostgreSQL's own in a database, for connections from then on."""
        connection.execute(_DATABASE)
        connection.execute(f'alter database "{name}" set search_path = soak, pg_catalog, public')
        connection.execute(f'alter database "{name}" set synchronous_commit = off')  # nothing kills it here

    def begin(self) -> None:
        """Back to the beginning."""
        self.now = BEGIN
        self._sleeping.clear()
        self._connection.execute("truncate soak.clock")
        self._connection.execute("insert into soak.clock values (to_timestamp(%s))", [self.now])

    def read(self) -> float:
        """Now."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Time passes. Whoever sleeps is woken by `wake`."""
        self.now += seconds
        self._connection.execute("update soak.clock set now = to_timestamp(%s)", [self.now])

    async def sleep(self, seconds: float) -> None:
        """Until so much of this time has passed; in the loop that calls `wake`."""
        if seconds > 0:
            woken = asyncio.get_running_loop().create_future()
            heapq.heappush(self._sleeping, (self.now + seconds, next(self._numbers), woken))
            await woken

    async def wake(self) -> None:
        """Whoever's time has come goes on."""
        while self._sleeping and self._sleeping[0][0] <= self.now:
            woken = heapq.heappop(self._sleeping)[2]
            if not woken.done():
                woken.set_result(None)
        await asyncio.sleep(0)

    @property
    def sleepers(self) -> int:
        """How many sleep."""
        return len(self._sleeping)

    def close(self) -> None:
        """Gives the connection back."""
        self._connection.close()
