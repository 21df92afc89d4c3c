"""An SQLite file as the journal's database: durable, brought up to date, one connection."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.pool import QueuePool
from sqlalchemy.schema import CreateColumn

from broker.tables import metadata


def file_engine(path: str) -> Engine:
    """The engine of a file (`:memory:` for one that ends with the process), its tables made."""
    # One connection, so that threads take turns; a journal in memory exists on that connection only.
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        connect_args={"check_same_thread": False},
    )
    event.listen(engine, "connect", _durable)
    event.listen(engine, "begin", _begin)
    metadata.create_all(engine)
    _add_missing_columns(engine)
    return engine


def _add_missing_columns(engine: Engine) -> None:
    """Bring a file that an older version made up to date: SQLite files see no migration."""
    with engine.begin() as db:
        for table in metadata.sorted_tables:
            there = {column["name"] for column in inspect(db).get_columns(table.name)}
            for column in table.columns:
                if column.name not in there:
                    made = CreateColumn(column).compile(dialect=engine.dialect)
                    db.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {made}")


def _begin(connection: Connection) -> None:
    # Takes the write lock at once: two processes that read first would both fail to upgrade.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _durable(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # sqlite3 would begin transactions itself, and later than `_begin`
    # A committed order must survive a power cut; WAL with synchronous=NORMAL may lose the last ones.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=5000")
