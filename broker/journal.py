"""What was sent: an order is committed here before it leaves, so that none is lost or sent twice.

An order's life in the journal: `sent` (committed right before it leaves: only the broker knows
whether it arrived) -> what the broker says. The kill switch and the limits are asked in the very
transaction that enters it. `recorded` is an order of which its sender knows that it did not leave:
the step from there to `sent` is a compare-and-set, so of any number of threads and processes that
hold the same order one sends it.

Unique by (account, client order id): the same id with the same body is the same order.
PostgreSQL in the service, where migrations make the tables; SQLite for use as a library.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from broker.errors import DuplicateClientOrderId, JournalUnavailable, OrderNotFound
from broker.fills import FillBook
from broker.journal_file import file_engine
from broker.journal_rows import BODY, EMPTY, FOREIGN, changes_of, new_order, order_of, row_of
from broker.models import FINAL_STATUSES, Order, OrderReport, OrderRequest, Status
from broker.risk.switch import require_running
from broker.tables import orders

__all__ = ["FOREIGN", "Admit", "Journal"]

log = logging.getLogger(__name__)

T = TypeVar("T")
#: work in the transaction that enters an order; what it raises stops the order
Admit = Callable[[Connection], None]

_ID = re.compile(r"[0-9a-f]{32}")
#: what ends an entry before it trades, and the statuses of legs that the broker hasn't shown
_ENDED = frozenset({Status.REJECTED, Status.CANCELLED, Status.EXPIRED})
#: ids in one statement: a database takes so many parameters at once
_MANY = 500
_UNSEEN = (Status.RECORDED, Status.SENT, Status.UNKNOWN)

# Made once: building a statement costs several times what executing it does.
_BY_ID = select(orders).where(orders.c.id == bindparam("of"))
_BY_ID_LOCKED = _BY_ID.with_for_update()
_OF_ACCOUNT = select(orders).where(
    (orders.c.account == bindparam("owner")) & (orders.c.id == bindparam("of"))
)
_BY_NAME = select(orders).where(
    (orders.c.account == bindparam("owner")) & (orders.c.client_order_id == bindparam("of"))
)
_BY_NAME_LOCKED = _BY_NAME.with_for_update()
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
_INSERT = insert(orders)
_CHANGE = update(orders).where(orders.c.id == bindparam("of"))
_UNIQUE = ["account", "client_order_id"]
_INSERT_UNLESS_THERE = {
    name: dialect.insert(orders)
    .on_conflict_do_nothing(index_elements=_UNIQUE)
    .execution_options(preserve_rowcount=True)
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
}


def _now() -> datetime:
    return datetime.now(UTC)


class Journal:
    """The orders of one database. Safe to use from any thread."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = _now) -> None:
        self._engine = engine
        self._clock = clock
        self._failing_since: datetime | None = None
        self._open = threading.local()
        #: told of every order whose outcome becomes unknown; what it raises is logged
        self.outcome_unknown: Callable[[Order], None] | None = None
        #: executions with their commissions, and whether they explain the positions
        self.fills = FillBook(self._do, clock)

    @classmethod
    def in_file(cls, path: str) -> Self:
        """A journal in an SQLite file (`:memory:` for one that ends with the process)."""
        return cls(file_engine(path))

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
        return self._first(_BY_NAME, owner=account, of=client_order_id)

    def enter(
        self,
        account: str,
        request: OrderRequest,
        *,
        parent_id: str | None = None,
        replaces: str | None = None,
        legs: Sequence[OrderRequest] = (),
        admit: Admit | None = None,
    ) -> tuple[Order, bool]:
        """Commit an order as `sent`, right before it leaves, and say whether this caller may send it.

        One caller may; the others get the order that has this client order id and body already. One
        transaction holds the kill switch's consent, `admit`, the order and its `legs`; nothing is
        entered if any of them fails. `replaces`: our id of the order whose place it takes; `parent_id`:
        of the entry of a bracket, if that order is a leg.
        Raises `Halted`, what `admit` raises, `DuplicateClientOrderId` (its id, or a leg's, names an
        order with another body), `JournalUnavailable`.
        """
        now = self._clock()
        linked = {"parent_id": parent_id, "replaces": replaces}
        entry = row_of(account, request, now, **linked, status=Status.SENT, sent_at=now)
        rows = [
            row_of(account, leg, now, parent_id=entry["id"], status=Status.SENT, sent_at=now) for leg in legs
        ]
        entry["legs"] = [row["id"] for row in rows]

        def work(db: Connection) -> tuple[Order, bool]:
            order = new_order(EMPTY | entry)
            if db.execute(_INSERT_UNLESS_THERE[db.dialect.name], entry).rowcount == 1:
                if rows:
                    db.execute(_INSERT, rows)
            else:
                there = {"owner": account, "of": request.client_order_id}
                row = db.execute(_BY_NAME_LOCKED, there).one()
                order = order_of(row)
                _check_same(request, row)
                # A leg leaves with its entry, never by itself.
                if row.parent_id is not None or not self._mark_sent(db, order.id):
                    return order, False
                order = replace(order, status=Status.SENT)
            require_running(db)
            if admit is not None:
                admit(db)
            return order, True

        try:
            return self._do(work)
        except IntegrityError:
            raise self._taken(account, legs) from None

    def _record(self, db: Connection, account: str, request: OrderRequest, **values: Any) -> Order:
        row = row_of(account, request, self._clock(), **values)
        if db.execute(_INSERT_UNLESS_THERE[db.dialect.name], row).rowcount == 1:
            return new_order(EMPTY | row)
        existing = db.execute(_BY_NAME, {"owner": account, "of": request.client_order_id}).one()
        _check_same(request, existing)
        return order_of(existing)

    def _taken(
        self, account: str, legs: Sequence[OrderRequest]
    ) -> DuplicateClientOrderId | JournalUnavailable:
        for leg in legs:
            taken = self.find(account, leg.client_order_id)
            if taken is not None:
                return DuplicateClientOrderId(leg.client_order_id, taken)
        return JournalUnavailable("the journal refused the order and doesn't hold it")

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

    def _mark_sent(self, db: Connection, order_id: str) -> bool:
        now = self._clock()
        change = update(orders).values(status=Status.SENT, sent_at=now, updated_at=now)
        change = change.where(orders.c.status == Status.RECORDED)
        if db.execute(change.where(orders.c.id == order_id)).rowcount != 1:
            return False
        db.execute(change.where(orders.c.parent_id == order_id))  # a bracket leaves as one
        return True

    def mark_unsent(self, order_id: str) -> None:
        """Take the step to `sent` back. Only for a sender that knows that nothing left."""
        change = (
            update(orders)
            .where(_bracket(order_id) & orders.c.status.in_([Status.SENT, Status.UNKNOWN]))
            .values(status=Status.RECORDED, sent_at=None, updated_at=self._clock())
        )
        self._do(lambda db: db.execute(change))

    def update(self, order_id: str, report: OrderReport) -> Order:
        """Take over what the broker says. Only a fill changes a final order; filled quantities never fall."""
        order = self._do(
            lambda db: self._update(db, db.execute(_BY_ID_LOCKED, {"of": order_id}).one(), report)
        )
        if order.status == report.status == Status.UNKNOWN:
            self._tell_unknown(order)
        return order

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

    def adopt(
        self,
        account: str,
        request: OrderRequest,
        report: OrderReport,
        *,
        parent_id: str | None = None,
        replaces: str | None = None,
    ) -> Order:
        """Enter an order that the broker holds and this journal didn't send."""

        def work(db: Connection) -> Order:
            order = self._record(db, account, request, parent_id=parent_id, replaces=replaces)
            self._mark_sent(db, order.id)  # it is there, whether trading is halted or not
            return self._update(db, db.execute(_BY_ID_LOCKED, {"of": order.id}).one(), report)

        return self._do(work)

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

    def adopt_all(self, account: str, shown: Iterable[tuple[OrderRequest, OrderReport]]) -> list[Order]:
        """Enter orders that the broker holds and this journal didn't send, all in one transaction.

        None of their client order ids may be here yet. Raises `JournalUnavailable` if one is.
        """
        rows = []
        for request, report in shown:
            now = self._clock()
            row = EMPTY | row_of(account, request, now, status=Status.SENT, sent_at=now)
            rows.append(row | changes_of(SimpleNamespace(**row), report))
        try:
            if rows:
                self._do(lambda db: db.execute(_INSERT, rows))
        except IntegrityError:
            raise JournalUnavailable("another process enters the same orders at this moment") from None
        return [new_order(row) for row in rows]

    def is_foreign(self, order_id: str) -> bool:
        """Whether an order was entered because the broker showed it, not placed through this journal."""
        query = select(orders.c.placed_by).where(orders.c.id == order_id)
        return self._do(lambda db: db.execute(query).scalar()) == FOREIGN

    def check_same(self, request: OrderRequest, existing: Order) -> None:
        """Raise `DuplicateClientOrderId` unless the order asked for is the existing one.

        An order that was replaced since is still the one that was asked for at first.
        """
        self._do(lambda db: _check_same(request, db.execute(_BY_ID, {"of": existing.id}).one()))

    def begin_change(self, order_id: str, change: dict[str, Any]) -> None:
        """Commit that a replacement is about to be sent, with what it changes. Raises `Halted`."""

        def work(db: Connection) -> None:
            require_running(db)
            db.execute(_CHANGE, {"of": order_id, "change": change, "updated_at": self._clock()})

        self._do(work)

    def end_change(self, order_id: str, warning: str = "") -> Order:
        """Take down that no replacement is under way any more; a refused one leaves a warning."""

        def work(db: Connection) -> Order:
            row = db.execute(_BY_ID_LOCKED, {"of": order_id}).one()
            warnings = list(dict.fromkeys([*row.warnings, *([warning] if warning else [])]))
            values = {"change": None, "warnings": warnings, "updated_at": self._clock()}
            db.execute(_CHANGE, {"of": order_id, **values})
            return order_of(db.execute(_BY_ID, {"of": order_id}).one())

        return self._do(work)

    def change_under_way(self, order_id: str) -> dict[str, Any] | None:
        """What a replacement that was sent and isn't confirmed changes, or None."""
        query = select(orders.c.change).where(orders.c.id == order_id)
        return self._do(lambda db: db.execute(query).scalar())

    def attach(self, order_id: str, legs: list[str]) -> Order:
        """Take down an order's legs (our ids), and that it is their entry."""

        def work(db: Connection) -> Order:
            db.execute(_CHANGE, {"of": order_id, "legs": legs})
            db.execute(update(orders).where(orders.c.id.in_(legs)).values(parent_id=order_id))
            return order_of(db.execute(_BY_ID, {"of": order_id}).one())

        return self._do(work)

    def changed_since(self, account: str, moment: datetime, limit: int) -> list[Order]:
        """Orders that changed since a moment, oldest change first."""
        query = (
            select(orders)
            .where((orders.c.account == account) & (orders.c.updated_at >= moment.astimezone(UTC)))
            .order_by(orders.c.updated_at)
            .limit(limit)
        )
        return self._all(query)

    def mark_unknown(self, order_id: str, reason: str) -> None:
        """Note that nobody knows what became of an order that was sent, unless somebody does by now."""
        change = (
            update(orders)
            .where(orders.c.status == Status.SENT)
            .values(status=Status.UNKNOWN, reason=reason, updated_at=self._clock())
        )

        def work(db: Connection) -> Order | None:
            # Of a bracket, what isn't answered: its entry with its legs, or a leg of an entry that lives.
            here = _bracket(order_id) & (orders.c.status == Status.SENT)
            silent = select(orders.c.id).where(here).order_by(orders.c.parent_id.is_not(None))
            ids = list(db.execute(silent).scalars())
            if not ids:
                return None
            db.execute(change.where(orders.c.id.in_(ids)))
            return order_of(db.execute(_BY_ID, {"of": ids[0]}).one())

        order = self._do(work)
        if order is not None:
            self._tell_unknown(order)

    def _tell_unknown(self, order: Order) -> None:
        if self.outcome_unknown is not None:
            try:
                self.outcome_unknown(order)
            except Exception:
                log.exception("nobody could be told that the outcome of order %s is unknown", order.id)

    def _update(self, db: Connection, row: Any, report: OrderReport) -> Order:
        values = changes_of(row, report)
        if not values:
            return order_of(row)
        values["updated_at"] = self._clock()
        db.execute(_CHANGE, {"of": row.id, **values})
        if row.legs and values.get("status") in _ENDED and not values.get("filled_qty", row.filled_qty):
            self._end_legs(db, row.id, values["status"])
        return new_order(row._asdict() | values)

    def _end_legs(self, db: Connection, entry: str, status: str) -> None:
        """Legs that the broker never showed can't be there without their entry."""
        unseen = orders.c.permanent_id.is_(None) & orders.c.status.in_(_UNSEEN)
        values = {"status": status, "updated_at": self._clock(), "reason": f"its entry was {status}"}
        db.execute(update(orders).where((orders.c.parent_id == entry) & unseen).values(**values))

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


def _check_same(request: OrderRequest, row: Any) -> None:
    asked = row.asked or {}
    if any(getattr(request, name) != asked.get(name, getattr(row, name)) for name in BODY):
        raise DuplicateClientOrderId(request.client_order_id, order_of(row))


def _bracket(order_id: str) -> Any:
    """An order and its legs."""
    return (orders.c.id == order_id) | (orders.c.parent_id == order_id)
