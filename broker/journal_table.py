"""One database of orders: its transactions, and what is looked up in it."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, bindparam, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from broker.errors import JournalUnavailable, OrderNotFound
from broker.journal_rows import FOREIGN, order_of
from broker.models import FINAL_STATUSES, Order, Status
from broker.tables import orders

log = logging.getLogger(__name__)

T = TypeVar("T")

_ID = re.compile(r"[0-9a-f]{32}")
#: ids in one statement: a database takes so many parameters at once
_MANY = 500
# Made once: building a statement costs several times what executing it does.
BY_ID = select(orders).where(orders.c.id == bindparam("of"))
BY_ID_LOCKED = BY_ID.with_for_update()
_OF_ACCOUNT = select(orders).where(
    (orders.c.account == bindparam("owner")) & (orders.c.id == bindparam("of"))
)
BY_NAME = select(orders).where(
    (orders.c.account == bindparam("owner")) & (orders.c.client_order_id == bindparam("of"))
)
BY_NAME_LOCKED = BY_NAME.with_for_update()
_BY_NUMBER = select(orders).where(
    (orders.c.account == bindparam("owner")) & (orders.c.permanent_id == bindparam("of"))
)
_BY_NUMBERS = select(orders).where(
    (orders.c.account == bindparam("owner")) & orders.c.permanent_id.in_(bindparam("of", expanding=True))
)
_BY_NAMES = select(orders).where(
    (orders.c.account == bindparam("owner")) & orders.c.client_order_id.in_(bindparam("of", expanding=True))
)
_UNSETTLED = (
    select(orders)
    .where(orders.c.account == bindparam("owner"))
    .where(orders.c.status.not_in([*FINAL_STATUSES, Status.RECORDED]))
    .order_by(orders.c.created_at)
)
_RECENT = (
    select(orders)
    .where(orders.c.account == bindparam("owner"))
    .order_by(orders.c.created_at.desc(), orders.c.id)
    .limit(bindparam("most"))
)


class OrderTable:
    """The part of the journal that changes no order. Safe to use from any thread."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        self._failing_since: datetime | None = None
        self._open = threading.local()

    @property
    def engine(self) -> Engine:
        """The database's engine, for what else is kept beside the orders."""
        return self._engine

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Everything that this thread does to the journal inside is one transaction, or nothing is done.

        Raises `JournalUnavailable`. Nothing slow belongs inside: other threads wait for it.
        """
        with self._translated(), self._engine.begin() as db:
            self._open.db = db
            try:
                yield
            finally:
                self._open.db = None
        self._failing_since = None

    def find(self, account: str, client_order_id: str) -> Order | None:
        """The order of that client order id, or None. Raises `JournalUnavailable`."""
        return self._first(BY_NAME, owner=account, of=client_order_id)

    def get(self, account: str, order_id: str) -> Order:
        """One order by our id. Raises `OrderNotFound`, `JournalUnavailable`."""
        # What isn't an id of ours may hold what a database takes no parameter of, such as NUL.
        known = self._first(_OF_ACCOUNT, owner=account, of=order_id) if _ID.fullmatch(order_id) else None
        if known is None:
            raise OrderNotFound(f"no order has the id {order_id[:64]!a}")
        return known

    def recent(self, account: str, limit: int) -> list[Order]:
        """The newest orders of an account, newest first."""
        return self._all(_RECENT, owner=account, most=limit)

    def unsettled(self, account: str) -> list[Order]:
        """Orders that aren't final and may have left us, oldest first: what reconciliation looks up."""
        return self._all(_UNSETTLED, owner=account)

    def by_permanent_id(self, account: str, permanent_id: str) -> Order | None:
        """The order with the broker's own lasting number, or None."""
        return self._first(_BY_NUMBER, owner=account, of=permanent_id)

    def among(self, account: str, *, permanent_ids: Collection[str], names: Collection[str]) -> list[Order]:
        """The orders that have one of these permanent ids or client order ids."""
        found: dict[str, Order] = {}
        for query, wanted in ((_BY_NUMBERS, permanent_ids), (_BY_NAMES, names)):
            every = list(wanted)
            for start in range(0, len(every), _MANY):
                some = every[start : start + _MANY]
                found |= {order.id: order for order in self._all(query, owner=account, of=some)}
        return list(found.values())

    def legs_of(self, entry: Order) -> list[Order]:
        """A bracket's legs: take-profit, stop-loss."""
        return [self.get(entry.account_id, leg) for leg in entry.legs]

    def resting_legs(self, account: str, symbol: str, side: str) -> list[Order]:
        """The legs of brackets that may still trade, oldest first."""
        return [
            order
            for order in self.unsettled(account)
            if order.parent_id is not None and (order.symbol, order.side) == (symbol, side)
        ]

    def is_foreign(self, order_id: str) -> bool:
        """Whether an order was entered because the broker showed it, not placed through this journal."""
        query = select(orders.c.placed_by).where(orders.c.id == order_id)
        return self._do(lambda db: db.execute(query).scalar()) == FOREIGN

    def change_under_way(self, order_id: str) -> dict[str, Any] | None:
        """What a replacement that was sent and isn't confirmed changes, or None."""
        query = select(orders.c.change).where(orders.c.id == order_id)
        return self._do(lambda db: db.execute(query).scalar())

    def changed_since(self, account: str, moment: datetime, limit: int) -> list[Order]:
        """Orders that changed since a moment, oldest change first."""
        query = (
            select(orders)
            .where((orders.c.account == account) & (orders.c.updated_at >= moment.astimezone(UTC)))
            .order_by(orders.c.updated_at)
            .limit(limit)
        )
        return self._all(query)

    def _first(self, query: Any, **of: Any) -> Order | None:
        row = self._do(lambda db: db.execute(query, of).first())
        return None if row is None else order_of(row)

    def _all(self, query: Any, **of: Any) -> list[Order]:
        return [order_of(row) for row in self._do(lambda db: db.execute(query, of).all())]

    def _do(self, work: Callable[[Connection], T]) -> T:
        db: Connection | None = getattr(self._open, "db", None)
        if db is not None:
            return work(db)
        with self._translated(), self._engine.begin() as db:
            done = work(db)
        self._failing_since = None
        return done

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except SQLAlchemyError as failure:
            self._failing_since = self._failing_since or self._clock()
            # Only the kind of failure: a driver's text may hold parameters, and the caller isn't its reader.
            kind = type(getattr(failure, "orig", None) or failure).__name__
            log.exception("the order journal can't be used")
            raise JournalUnavailable(
                f"the order journal can't be used: {kind}",
                since=self._failing_since,
                doing="connecting to the database again at the next call",
            ) from failure
