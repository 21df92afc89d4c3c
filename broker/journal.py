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

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from broker.errors import DuplicateClientOrderId, JournalUnavailable
from broker.fills import FillBook
from broker.journal_file import file_engine
from broker.journal_rows import BODY, EMPTY, FOREIGN, changes_of, new_order, order_of, row_of
from broker.journal_table import BY_ID, BY_ID_LOCKED, BY_NAME, BY_NAME_LOCKED, OrderTable
from broker.models import Order, OrderReport, OrderRequest, Status
from broker.risk.switch import require_running
from broker.tables import orders

__all__ = ["FOREIGN", "Admit", "Journal"]

log = logging.getLogger(__name__)

T = TypeVar("T")
#: work in the transaction that enters an order; what it raises stops the order
Admit = Callable[[Connection], None]

#: what ends an entry before it trades, and the statuses of legs that the broker hasn't shown
_ENDED = frozenset({Status.REJECTED, Status.CANCELLED, Status.EXPIRED})
_UNSEEN = (Status.RECORDED, Status.SENT, Status.UNKNOWN)

# Made once: building a statement costs several times what executing it does.
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


class Journal(OrderTable):
    """The orders of one database. Safe to use from any thread."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = _now) -> None:
        super().__init__(engine, clock)
        #: told of every order whose outcome becomes unknown; what it raises is logged
        self.outcome_unknown: Callable[[Order], None] | None = None
        #: executions with their commissions, and whether they explain the positions
        self.fills = FillBook(self._do, clock)

    @classmethod
    def in_file(cls, path: str) -> Self:
        """A journal in an SQLite file (`:memory:` for one that ends with the process)."""
        return cls(file_engine(path))

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
                row = db.execute(BY_NAME_LOCKED, there).one()
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
        existing = db.execute(BY_NAME, {"owner": account, "of": request.client_order_id}).one()
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
            lambda db: self._update(db, db.execute(BY_ID_LOCKED, {"of": order_id}).one(), report)
        )
        if order.status == report.status == Status.UNKNOWN:
            self._tell_unknown(order)
        return order

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
            return self._update(db, db.execute(BY_ID_LOCKED, {"of": order.id}).one(), report)

        return self._do(work)

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

    def check_same(self, request: OrderRequest, existing: Order) -> None:
        """Raise `DuplicateClientOrderId` unless the order asked for is the existing one.

        An order that was replaced since is still the one that was asked for at first.
        """
        self._do(lambda db: _check_same(request, db.execute(BY_ID, {"of": existing.id}).one()))

    def begin_change(self, order_id: str, change: dict[str, Any]) -> None:
        """Commit that a replacement is about to be sent, with what it changes. Raises `Halted`."""

        def work(db: Connection) -> None:
            require_running(db)
            db.execute(_CHANGE, {"of": order_id, "change": change, "updated_at": self._clock()})

        self._do(work)

    def end_change(self, order_id: str, warning: str = "") -> Order:
        """Take down that no replacement is under way any more; a refused one leaves a warning."""

        def work(db: Connection) -> Order:
            row = db.execute(BY_ID_LOCKED, {"of": order_id}).one()
            warnings = list(dict.fromkeys([*row.warnings, *([warning] if warning else [])]))
            values = {"change": None, "warnings": warnings, "updated_at": self._clock()}
            db.execute(_CHANGE, {"of": order_id, **values})
            return order_of(db.execute(BY_ID, {"of": order_id}).one())

        return self._do(work)

    def attach(self, order_id: str, legs: list[str]) -> Order:
        """Take down an order's legs (our ids), and that it is their entry."""

        def work(db: Connection) -> Order:
            db.execute(_CHANGE, {"of": order_id, "legs": legs})
            db.execute(update(orders).where(orders.c.id.in_(legs)).values(parent_id=order_id))
            return order_of(db.execute(BY_ID, {"of": order_id}).one())

        return self._do(work)

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
            return order_of(db.execute(BY_ID, {"of": ids[0]}).one())

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


def _check_same(request: OrderRequest, row: Any) -> None:
    asked = row.asked or {}
    if any(getattr(request, name) != asked.get(name, getattr(row, name)) for name in BODY):
        raise DuplicateClientOrderId(request.client_order_id, order_of(row))


def _bracket(order_id: str) -> Any:
    """An order and its legs."""
    return (orders.c.id == order_id) | (orders.c.parent_id == order_id)
