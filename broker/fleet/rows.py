"""What all statements on accounts share: reading a row, changing it by its version, its history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Engine, func, update

from broker.fleet.account import Account, message_of
from broker.fleet.models import broker_account_events, broker_accounts

#: columns of an `Account`, in its order
ACCOUNT_COLUMNS = [broker_accounts.c[f.name] for f in fields(Account)]
#: the database's clock: the clocks of several instances may differ
NOW = func.clock_timestamp()


class Conflict(Exception):
    """Somebody else has changed the account since it was read; nothing was written. Read it again."""


def read_account(row: Any) -> Account:
    """From a row of `ACCOUNT_COLUMNS`."""
    return Account(*row)


def write_change(
    db: Connection, account: Account, kind: str, by: str, detail: str, values: Mapping[str, Any]
) -> Account:
    """Writes columns of the version that was read, within a transaction; the row as it is now.

    A new status or reason sets `status_since` and goes into the history, as does a given `kind`.
    Raises Conflict.
    """
    status = values.get("status", account.status)
    reason = values.get("status_reason", account.status_reason)
    moved = (status, reason) != (account.status, account.status_reason)
    more = {"status_since": NOW} if moved else {}
    column = broker_accounts.c
    row = db.execute(
        update(broker_accounts)
        .where(column.id == account.id, column.version == account.version)
        .values(**values, **more, version=column.version + 1, updated_at=NOW)
        .returning(*ACCOUNT_COLUMNS)
    ).first()
    if row is None:
        raise Conflict(account.id)
    written = read_account(row)
    if moved or kind:
        write_event(db, written, kind or "status", by, detail)
    return written


def write_event(db: Connection, account: Account, kind: str, by: str, detail: str = "") -> None:
    """One more line of an account's history, within a transaction."""
    db.execute(
        broker_account_events.insert().values(
            account_id=account.id,
            at=NOW,
            kind=kind,
            status=account.status,
            reason=account.status_reason,
            detail=detail or account.status_detail or message_of(account.status, account.status_reason),
            caused_by=by,
        )
    )


class Rows:
    """A part of the repository. Blocking; usable from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def change(
        self, account: Account, kind: str = "", by: str = "", detail: str = "", **values: Any
    ) -> Account:
        """Writes columns of the version that was read; the row as it is now.

        A new status or reason sets `status_since` and goes into the history, as does a given `kind`.
        Raises Conflict.
        """
        with self._engine.begin() as db:
            return write_change(db, account, kind, by, detail, values)
