"""The fleet as its operators see it: counts, quarantine, and everybody's accounts without their secrets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, or_, select, text

from broker.fleet.account import Account, State
from broker.fleet.models import broker_account_events, broker_accounts, fleet_quarantine
from broker.fleet.rows import ACCOUNT_COLUMNS, NOW, Rows, read_account


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A droplet with our tags that this database can't explain."""

    droplet_id: int
    name: str
    account_id: str
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Counted:
    """How many accounts have a status and reason, and since when the first of them."""

    status: str
    reason: str
    accounts: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Trouble:
    """That an account's status got a reason that people are told of. `text` is the status' sentence."""

    at: datetime
    account_id: str
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Sought:
    """Which accounts: empty fields don't matter. Deleted ones only if that is the status.

    `search` is a part of the id, of the user or of the user's part of the droplet's name, in any case of
    letters.
    """

    status: str = ""
    reason: str = ""
    environment: str = ""
    region: str = ""
    search: str = ""

    def terms(self) -> list[ColumnElement[bool]]:
        """What a row has to satisfy."""
        column = broker_accounts.c
        found = [column.status == self.status if self.status else column.status != State.DELETED]
        exact = {"status_reason": self.reason, "environment": self.environment, "do_region": self.region}
        found += [column[name] == value for name, value in exact.items() if value]
        if self.search:
            names = (column.id, column.username, column.user_id)
            found.append(or_(*(name.icontains(self.search, autoescape=True) for name in names)))
        return found


_ALL = Sought()


class OverviewRows(Rows):
    """Reads only. Blocking; usable from several threads."""

    def counts(self, sought: Sought = _ALL) -> list[Counted]:
        """Accounts by status and reason, in their order."""
        column = broker_accounts.c
        by = (column.status, column.status_reason)
        query = select(*by, func.count(), func.min(column.status_since)).where(*sought.terms())
        with self._engine.connect() as db:
            return [Counted(*row) for row in db.execute(query.group_by(*by).order_by(*by))]

    def regions(self) -> list[str]:
        """Where there are droplets."""
        region = broker_accounts.c.do_region
        with self._engine.connect() as db:
            return list(
                db.execute(select(region).where(region.is_not(None)).distinct().order_by(region)).scalars()
            )

    def troubles(self, user_id: str, reasons: Collection[str], limit: int) -> list[Trouble]:
        """When the status of one of a user's accounts got one of the reasons, newest first, of 30 days."""
        event, account = broker_account_events.c, broker_accounts.c
        before = func.lag(event.reason, 1, "").over(partition_by=event.account_id, order_by=event.id)
        begun = (
            select(event.id, event.at, event.account_id, event.reason, event.detail, before.label("before"))
            .join(broker_accounts, account.id == event.account_id)
            .where(account.user_id == user_id, event.at > NOW - text("interval '30 days'"))
            .subquery()
            .c
        )
        query = (
            select(begun.at, begun.account_id, begun.reason, begun.detail)
            .where(begun.reason.in_(list(reasons)), begun.reason != begun.before)
            .order_by(begun.id.desc())
            .limit(limit)
        )
        with self._engine.connect() as db:
            return [Trouble(*row) for row in db.execute(query)]

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

    def all_accounts(self, sought: Sought = _ALL, limit: int = 50, after: str = "") -> list[Account]:
        """Everybody's accounts by id, those behind `after`."""
        column = broker_accounts.c
        query = select(*ACCOUNT_COLUMNS).where(*sought.terms(), column.id > after).order_by(column.id)
        with self._engine.connect() as db:
            return [read_account(row) for row in db.execute(query.limit(limit))]
