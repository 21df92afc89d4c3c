"""What an account's droplets cost so far, from when each was made until it was gone, switched off or not.

DigitalOcean bills by the second, a cent at least for each droplet, and in a calendar month (UTC) at most 672
hours at the hourly rate, which is the monthly price (tools/prices.json: droplet-minimum, droplet-cap). The
price is the one that DigitalOcean told when the droplet was made. Its invoice is what counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from broker.fleet.digitalocean import Droplet
from broker.fleet.models import account_droplets, fleet_tombstones
from broker.fleet.rows import NOW, Rows

CAP_SECONDS = 672 * 3600.0
LEAST_USD = 0.01


@dataclass(frozen=True, slots=True)
class BilledDroplet:
    """One droplet of an account. `price_monthly` in dollars, None where DigitalOcean's answer was lost."""

    account_id: str
    size: str
    price_monthly: float | None
    began_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars so far: in this calendar month (UTC), and since the account was connected.

    None where a droplet counts whose price isn't known.
    """

    month: float | None
    total: float | None


def cost(droplets: Iterable[BilledDroplet], prices: Mapping[str, float], now: datetime) -> Cost:
    """What the droplets cost until now. `prices`: dollars a month by size, where a droplet's isn't known."""
    this_month = _month(now)
    month: float | None = 0.0
    total: float | None = 0.0
    for droplet in droplets:
        price = droplet.price_monthly if droplet.price_monthly is not None else prices.get(droplet.size)
        for begin, seconds in _months(droplet.began_at, min(droplet.ended_at or now, now)):
            spent = None if price is None else price * min(seconds, CAP_SECONDS) / CAP_SECONDS
            if spent is not None and begin == _month(droplet.began_at):
                spent = max(spent, LEAST_USD)
            total = _sum(total, spent)
            month = _sum(month, spent) if begin == this_month else month
    return Cost(*(None if dollars is None else round(dollars, 2) for dollars in (month, total)))


def _sum(dollars: float | None, more: float | None) -> float | None:
    return None if dollars is None or more is None else dollars + more


def _month(moment: datetime) -> datetime:
    """When its calendar month began."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _months(began: datetime, ended: datetime) -> Iterable[tuple[datetime, float]]:
    """Each calendar month of a span by its begin, with the seconds that fall into it."""
    begin = _month(began)
    while True:
        following = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
        yield begin, max(0.0, (min(ended, following) - max(began, begin)).total_seconds())
        if following > ended:
            return
        begin = following


class BillRows(Rows):
    """Reads what was written when droplets were adopted and found gone. Blocking."""

    def billed(self, account_ids: Collection[str]) -> dict[str, list[BilledDroplet]]:
        """The droplets that accounts have had, by account, with one statement."""
        column, tombstone = account_droplets.c, fleet_tombstones.c
        query = (
            select(
                column.account_id,
                column.size,
                column.price_monthly,
                column.began_at,
                # An older revision, which serves beside this one at a rollout, writes tombstones only.
                func.coalesce(column.ended_at, tombstone.gone_at),
            )
            .join(fleet_tombstones, tombstone.droplet_id == column.droplet_id, isouter=True)
            .where(column.account_id.in_(list(account_ids)))
        )
        found: dict[str, list[BilledDroplet]] = defaultdict(list)
        with self._engine.connect() as db:
            for row in db.execute(query.order_by(column.began_at)):
                found[row[0]].append(BilledDroplet(*row))
        return found


def write_began(db: Connection, account_id: str, droplet: Droplet, made: Mapping[str, Any]) -> None:
    """The account has this droplet, billed since DigitalOcean made it, within a transaction.

    `made`: what is known of its create, `size` and `price_monthly`; empty if its answer was lost.
    """
    row = {
        "droplet_id": droplet.id,
        "account_id": account_id,
        "size": droplet.size or made.get("size", ""),
        "price_monthly": made.get("price_monthly"),
        "began_at": _made_at(droplet),
    }
    # Adopted once more: it was taken for gone, and wasn't.
    again = (
        insert(account_droplets)
        .values(row)
        .on_conflict_do_update(index_elements=["droplet_id"], set_={"ended_at": None})
    )
    db.execute(again)


def write_ended(db: Connection, droplet_id: int) -> None:
    """DigitalOcean bills the droplet no longer, within a transaction."""
    column = account_droplets.c
    db.execute(
        update(account_droplets)
        .where(column.droplet_id == droplet_id)
        .values(ended_at=func.coalesce(column.ended_at, NOW))
    )


def _made_at(droplet: Droplet) -> Any:
    """When DigitalOcean says that it was made; now if it says nothing that can be read."""
    try:
        return datetime.fromisoformat(droplet.created_at).astimezone(UTC)
    except ValueError:
        return NOW
