"""The last alerts, for the dashboard: in the database, since each instance sends its own.

What is kept is what was sent to the service's channels (see `broker.alerts`), without secrets like there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, Column, DateTime, Engine, Index, String, Table, Text, delete, func, select

from broker.tables import metadata

KEPT = timedelta(days=30)

alerts = Table(
    "alerts",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    #: the database's clock
    Column("at", DateTime(timezone=True), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("text", Text, nullable=False),
)
Index("ix_alerts_at", alerts.c.at)


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alert that was sent; `kind` is one of `broker.alert_kinds`."""

    at: datetime
    kind: str
    text: str


class AlarmStore:
    """The table. Blocking; usable from any thread. Raises SQLAlchemyError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, kind: str, text: str) -> None:
        """An alert of now; those of long ago go."""
        now = func.clock_timestamp()
        with self._engine.begin() as db:
            db.execute(alerts.insert().values(at=now, kind=kind[:32], text=text))
            db.execute(delete(alerts).where(alerts.c.at < now - KEPT))

    def recent(self, limit: int) -> list[Alarm]:
        """The last ones, the newest first."""
        query = select(alerts.c.at, alerts.c.kind, alerts.c.text).order_by(alerts.c.id.desc()).limit(limit)
        with self._engine.connect() as db:
            return [Alarm(*row) for row in db.execute(query)]
