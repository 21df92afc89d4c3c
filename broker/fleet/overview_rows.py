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

    def quarantined(self, limit: int = 200) -> list[Quarantined]:
        """Unknown droplets, those first that were seen last."""
        column = fleet_quarantine.c
        query = select(
            column.droplet_id, column.name, column.account_id, column.first_seen, column.last_seen
        ).order_by(column.last_seen.desc(), column.droplet_id)
        with self._engine.connect() as db:
            return [Quarantined(*row) for row in db.execute(query.limit(limit))]

    def all_accounts(self, status: str = "", limit: int = 50, after: str = "") -> list[Account]:
        """Everybody's accounts by id, those behind `after`; of one status, or all but deleted ones."""
        column = broker_accounts.c
        wanted = column.status == status if status else column.status != State.DELETED
        query = select(*ACCOUNT_COLUMNS).where(wanted, column.id > after).order_by(column.id).limit(limit)
        with self._engine.connect() as db:
            return [read_account(row) for row in db.execute(query)]
