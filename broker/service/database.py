"""The service's database: PostgreSQL, reached with short deadlines so that a slow one is an answer too."""

from __future__ import annotations

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

#: the newest migration; `readyz` compares it with the database's, and a test with the migrations' own
SCHEMA_REVISION = "0010"


def make_engine(url: str, statement_seconds: int = 10) -> Engine:
    """An engine that gives up a connection after 5 s and a statement after `statement_seconds` (0: never).

    A transaction that nothing is done in for so long ends too: a process that was frozen in the middle of one
    would keep everybody else from the rows that it has locked.
    """
    given_up = f"-c statement_timeout={statement_seconds}s"
    given_up += f" -c idle_in_transaction_session_timeout={statement_seconds}s"
    return create_engine(
        url,
        pool_pre_ping=True,
        hide_parameters=True,  # an error's text is logged
        pool_size=8,
        max_overflow=8,
        pool_timeout=5,
        connect_args={"connect_timeout": 5, "options": given_up},
    )


def why_not_ready(engine: Engine) -> str:
    """Empty when the database answers and has the schema; else what is wrong, without secrets."""
    try:
        with engine.connect() as db:
            found = db.execute(text("select to_regclass('alembic_version')")).scalar()
            if found is None:
                return "the database has no schema: run the migration job"
            revision = db.execute(text("select version_num from alembic_version")).scalar()
    except SQLAlchemyError as failure:
        return f"the database can't be used: {type(failure).__name__}"
    # A newer schema is fine: during a rollout the old revision serves beside migrations of the new one.
    if revision is None or str(revision) < SCHEMA_REVISION:
        found = revision or "nothing"
        return f"the schema is at {found}, and {SCHEMA_REVISION} is needed: run the migration job"
    return ""
