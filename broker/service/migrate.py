"""Brings the database to the newest schema: what the migration job runs before a new revision serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

MIGRATIONS = Path(__file__).parent / "migrations"
#: one migration at a time, whatever starts two: a number of our own for PostgreSQL's advisory locks
_LOCK = 7_401_001


class DatabaseAway(Exception):
    """The database didn't answer before the deadline."""


def migrate(
    engine: Engine, revision: str = "head", wait: float = 60.0, say: Callable[[str], None] = print
) -> None:
    """Upgrade (or with an older `revision` downgrade) the schema. Safe to repeat.

    Waits up to `wait` seconds for the database. Raises `DatabaseAway`.
    """
    _await_database(engine, wait, say)
    with engine.connect() as db:
        db.execute(text("select pg_advisory_lock(:lock)"), {"lock": _LOCK})
        db.commit()
        try:
            before = current_revision(db)
            target = ScriptDirectory(str(MIGRATIONS)).get_current_head() if revision == "head" else revision
            if before == target:
                say(f"the schema is at {before} already: nothing to do")
                return
            (command.downgrade if _is_older(target, before) else command.upgrade)(_config(db), revision)
            db.commit()
            nothing = "an empty database"
            say(f"migrated from {before or nothing} to {current_revision(db) or nothing}")
        finally:
            db.rollback()
            db.execute(text("select pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            db.commit()


def current_revision(db: Connection) -> str | None:
    """The schema's revision, or None in an empty database."""
    if db.execute(text("select to_regclass('alembic_version')")).scalar() is None:
        return None
    return db.execute(text("select version_num from alembic_version")).scalar()


def _is_older(target: str | None, current: str | None) -> bool:
    return target == "base" or (target or "") < (current or "")


def _config(db: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = db
    return config


def _await_database(engine: Engine, wait: float, say: Callable[[str], None]) -> None:
    deadline = time.monotonic() + wait
    told = False
    while True:
        try:
            with engine.connect() as db:
                db.execute(text("select 1"))
                return
        except OperationalError as failure:
            if time.monotonic() >= deadline:
                # The driver's text may hold the address but never the password.
                reason = str(failure.orig).strip().splitlines()[:1]
                raise DatabaseAway(f"no database after {wait:g} s: {''.join(reason)}") from None
            if not told:
                say(f"waiting for the database, {wait:g} s at most")
                told = True
            time.sleep(0.5)
