"""The fleet as its operators see it: counts, quarantine, and everybody's accounts without their secrets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from broker.fleet.account import Account, State
from broker.fleet.models import broker_accounts, fleet_quarantine
from broker.fleet.rows import ACCOUNT_COLUMNS, Rows, read_account


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A droplet with our tags that this database can't explain."""

    droplet_id: int
    name: str
    account_id: str
    first_seen: datetime
    last_seen: datetime


class OverviewRows(Rows):
    """Reads only. Blocking; usable from several threads."""

    def counts(self) -> dict[tuple[str, str], int]:
        """Accounts by status and reason; deleted ones are left out."""
        column = broker_accounts.c
        query = (
            select(column.status, column.status_reason, func.count())
            .where(column.status != State.DELETED)
            .group_by(column.status, column.status_reason)
        )
        with self._engine.connect() as db:
            return {(row[0], row[1]): row[2] for row in db.execute(query)}

    def quarantined(self, limit: int | None = 200) -> list[Quarantined]:
        """Unknown droplets, those first that were seen last.

        Among them those that an account of a restored database calls its own, and that hold a login which
        it doesn't know of.
        """
        column, account = fleet_quarantine.c, broker_accounts.c
        strange = select(
            column.droplet_id, column.name, column.account_id, column.first_seen, column.last_seen
        )
        recorded = select(
            account.do_droplet_id, account.do_droplet_name, account.id, account.status_since,
            func.coalesce(account.do_last_status_check, account.status_since),
        ).where(
            account.status == State.ERROR,
            account.status_reason == "unknown_droplet",
            account.do_droplet_id.is_not(None),
        )  # fmt: skip
        both = strange.union_all(recorded).subquery()
        query = select(both).order_by(both.c.last_seen.desc(), both.c.droplet_id)
        with self._engine.connect() as db:
            return [Quarantined(*row) for row in db.execute(query.limit(limit))]

    def all_accounts(self, status: str = "", limit: int = 50, after: str = "") -> list[Account]:
        """Everybody's accounts by id, those behind `after`; of one status, or all but deleted ones."""
        column = broker_accounts.c
        wanted = column.status == status if status else column.status != State.DELETED
        query = select(*ACCOUNT_COLUMNS).where(wanted, column.id > after).order_by(column.id).limit(limit)
        with self._engine.connect() as db:
            return [read_account(row) for row in db.execute(query)]
