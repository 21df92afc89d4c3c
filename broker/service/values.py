"""What an account was worth: a value each minute while its connection is up, kept for a month's plot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import structlog
from sqlalchemy import Column, DateTime, Double, Engine, String, Table, delete, func, select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.exc import SQLAlchemyError

from broker.errors import BrokerError
from broker.models import AccountInfo
from broker.tables import metadata

log = structlog.get_logger("broker.service.values")

Span = Literal["day", "month"]

#: seconds between two values
EVERY = 60.0
KEPT = timedelta(days=32)
#: by span: how far back it goes, and the seconds that one point of its plot stands for
_SPANS: dict[Span, tuple[timedelta, int]] = {
    "day": (timedelta(days=1), 60),
    "month": (timedelta(days=31), 3600),
}

account_values = Table(
    "account_values",
    metadata,
    Column("connection", String(64), primary_key=True),
    #: the database's clock
    Column("at", DateTime(timezone=True), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("value", Double, nullable=False),
    Column("currency", String(8), nullable=False),
)


@dataclass
class Values:
    """Values over time: `times` in seconds since the epoch, oldest first, and as many `values`."""

    times: list[float]
    values: list[float]
    currency: str


class ValueStore:
    """The table. Blocking; usable from any thread. Raises SQLAlchemyError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, connection: str, account: AccountInfo) -> None:
        """The account's value of now; those of long ago go."""
        now = func.date_trunc("second", func.clock_timestamp())
        row = {
            "connection": connection,
            "at": now,
            "account": account.id,
            "value": account.portfolio_value,
            "currency": account.currency,
        }
        with self._engine.begin() as db:
            # Two instances may come in the same second.
            db.execute(insert(account_values).values(row).on_conflict_do_nothing())
            db.execute(
                delete(account_values).where(
                    account_values.c.connection == connection, account_values.c.at < now - KEPT
                )
            )

    def read(self, connection: str, account: str, span: Span) -> Values:
        """One account's values of the last day, or month: the last one of each minute, or hour."""
        back, seconds = _SPANS[span]
        column = account_values.c
        bucket = func.floor(func.extract("epoch", column.at) / seconds).label("bucket")
        query = (
            select(func.extract("epoch", column.at), column.value, column.currency)
            .where(
                column.connection == connection,
                column.account == account,
                column.at > func.clock_timestamp() - back,
            )
            .ext(distinct_on(bucket))
            .order_by(bucket, column.at.desc())
        )
        with self._engine.connect() as db:
            rows = db.execute(query).all()
        return Values([float(r[0]) for r in rows], [r[1] for r in rows], rows[-1][2] if rows else "USD")


class ValueKeeper:
    """Keeps the values of one connection while this process may use it."""

    def __init__(
        self,
        connection: str,
        account: Callable[[], Awaitable[AccountInfo]],
        store: ValueStore,
        every: float = EVERY,
    ) -> None:
        """`account` asks the broker; what it raises is a gap in the plot. `every` is in seconds."""
        self._connection = connection
        self._account = account
        self._store = store
        self._every = every
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="account values")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                # Not wait_for: before Python 3.12 it swallows a cancellation that comes with the answer.
                async with asyncio.timeout(self._every):
                    account = await self._account()
                await asyncio.to_thread(self._store.keep, self._connection, account)
            except (BrokerError, TimeoutError):
                pass
            except SQLAlchemyError as failure:
                log.warning("an account's value can't be kept", failure=type(failure).__name__)
            await asyncio.sleep(self._every)
