"""What was sent: an order is committed here before it leaves, so that none is lost or sent twice.

An order's life in the journal: `sent` (committed right before it leaves: only the broker knows
whether it arrived) -> what the broker says. The kill switch and the limits are asked in the very
transaction that enters it. `recorded` is an order of which its sender knows that it did not leave:
the step from there to `sent` is a compare-and-set, so of any number of threads and processes that
hold the same order one sends it.

Each step is kept with its time, in the transaction that makes it: `broker.timeline`.

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

from broker import timeline
from broker.errors import DuplicateClientOrderId, JournalUnavailable
from broker.fills import FillBook
from broker.journal_file import file_engine
from broker.journal_rows import BODY, EMPTY, FOREIGN, changes_of, in_utc, new_order, order_of, row_of
from broker.journal_table import BY_ID, BY_ID_LOCKED, BY_NAME_LOCKED, OrderTable
from broker.models import FINAL_STATUSES, EntryKind, Order, OrderReport, OrderRequest, Status, Timeline
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
_STATUSES = select(orders.c.id, orders.c.status)
_PLACED_BY = select(orders.c.placed_by).where(orders.c.id == bindparam("of"))
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
        #: by order: when a cancel was sent that nothing has been taken down of
        self._cancels: dict[str, datetime] = {}

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
                if replaces is not None:
                    db.execute(BY_ID_LOCKED, {"of": replaces})
                    said = f"order {order.id} was sent to take its place"
                    timeline.append(db, replaces, [timeline.line(EntryKind.CHANGE_REQUESTED, now, text=said)])
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
        # A bracket leaves as one.
        legs = db.execute(change.where(orders.c.parent_id == order_id).returning(orders.c.id)).scalars()
        for one in [order_id, *legs]:
            sent = timeline.line(EntryKind.STATUS, now, status=Status.SENT, was=Status.RECORDED)
            timeline.append(db, one, [sent])
        return True

    def mark_unsent(self, order_id: str) -> None:
        """Take the step to `sent` back. Only for a sender that knows that nothing left."""
        left = _bracket(order_id) & orders.c.status.in_([Status.SENT, Status.UNKNOWN])

        def work(db: Connection) -> None:
            found = db.execute(_STATUSES.where(left).with_for_update()).all()
            values = {"status": Status.RECORDED, "sent_at": None, "updated_at": self._clock()}
            self._move(db, found, values, "nothing had left: it may be sent")

        self._do(work)

    def update(self, order_id: str, *reports: OrderReport) -> Order:
        """Take over what the broker says, oldest first, in one transaction.

        Only a fill changes a final order; filled quantities never fall.
        """
        order = self._do(
            lambda db: self._update(db, db.execute(BY_ID_LOCKED, {"of": order_id}).one(), *reports)
        )
        if order.status == reports[-1].status == Status.UNKNOWN:
            self._tell_unknown(order)
        return order

    def cancel_asked(self, order_id: str) -> None:
        """A cancel is about to be sent: what is taken down of the order next says when.

        In memory, so that a cancel waits for no commit. A process that dies before it hears of the cancel
        leaves no trace of having asked for it.
        """
        self._cancels[order_id] = self._clock()

    def cancel_not_sent(self, order_id: str) -> None:
        """Take `cancel_asked` back: it didn't leave, or the broker refused it."""
        self._cancels.pop(order_id, None)

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
        now = self._clock()
        row = _seen(account, request, report, now, parent_id=parent_id, replaces=replaces)

        def work(db: Connection) -> Order:
            if db.execute(_INSERT_UNLESS_THERE[db.dialect.name], row).rowcount == 1:
                timeline.begin(db, [row], now)
                return new_order(row)
            there = {"owner": account, "of": request.client_order_id}
            existing = db.execute(BY_NAME_LOCKED, there).one()
            _check_same(request, existing)
            # It is there, whether trading is halted or not.
            if self._mark_sent(db, existing.id):
                existing = db.execute(BY_ID, {"of": existing.id}).one()
            return self._update(db, existing, report)

        return self._do(work)

    def adopt_all(self, account: str, shown: Iterable[tuple[OrderRequest, OrderReport]]) -> list[Order]:
        """Enter orders that the broker holds and this journal didn't send, all in one transaction.

        None of their client order ids may be here yet. Raises `JournalUnavailable` if one is.
        """
        now = self._clock()
        rows = [_seen(account, request, report, now) for request, report in shown]

        def work(db: Connection) -> None:
            db.execute(_INSERT, rows)
            timeline.begin(db, rows, now)

        try:
            if rows:
                self._do(work)
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
            now = self._clock()
            db.execute(_CHANGE, {"of": order_id, "change": change, "updated_at": now})
            told = [{"field": name, "before": None, "after": value} for name, value in change.items()]
            asked = timeline.line(EntryKind.CHANGE_REQUESTED, now, detail={"changes": told})
            timeline.append(db, order_id, [asked])

        self._do(work)

    def end_change(self, order_id: str, warning: str = "") -> Order:
        """Take down that no replacement is under way any more; a refused one leaves a warning."""

        def work(db: Connection) -> Order:
            row = db.execute(BY_ID_LOCKED, {"of": order_id}).one()
            warnings = list(dict.fromkeys([*row.warnings, *([warning] if warning else [])]))
            now = self._clock()
            db.execute(_CHANGE, {"of": order_id, "change": None, "warnings": warnings, "updated_at": now})
            if warning:
                timeline.append(db, order_id, [timeline.remark(warning, now)])
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

        def work(db: Connection) -> Order | None:
            # Of a bracket, what isn't answered: its entry with its legs, or a leg of an entry that lives.
            here = _bracket(order_id) & (orders.c.status == Status.SENT)
            silent = _STATUSES.where(here).order_by(orders.c.parent_id.is_not(None)).with_for_update()
            found = db.execute(silent).all()
            if not found:
                return None
            values = {"status": Status.UNKNOWN, "reason": reason, "updated_at": self._clock()}
            self._move(db, found, values, reason)
            return order_of(db.execute(BY_ID, {"of": found[0].id}).one())

        order = self._do(work)
        if order is not None:
            self._tell_unknown(order)

    def _tell_unknown(self, order: Order) -> None:
        if self.outcome_unknown is not None:
            try:
                self.outcome_unknown(order)
            except Exception:
                log.exception("nobody could be told that the outcome of order %s is unknown", order.id)

    def _update(self, db: Connection, row: Any, *reports: OrderReport) -> Order:
        # What the broker said before it had the cancel may come after it was asked for.
        if row.id in self._cancels and reports[-1].status in (Status.PENDING_CANCEL, *FINAL_STATUSES):
            asked = max(self._cancels.pop(row.id), in_utc(row.updated_at))
            reports = (OrderReport(Status.PENDING_CANCEL, filled_qty=row.filled_qty, at=asked), *reports)
        now = self._clock()
        seen, lines = row, []
        values: dict[str, Any] = {}
        for report in reports:
            changed = changes_of(seen, report)
            if changed:
                lines += timeline.lines_of(seen, changed, report, now)
                values |= changed
                seen = SimpleNamespace(**{**row._asdict(), **values})
        if not values:
            return order_of(row)
        values["updated_at"] = now
        db.execute(_CHANGE, {"of": row.id, **values})
        timeline.append(db, row.id, lines)
        if row.legs and values.get("status") in _ENDED and not values.get("filled_qty", row.filled_qty):
            self._end_legs(db, row.id, values["status"])
        return new_order(row._asdict() | values)

    def _end_legs(self, db: Connection, entry: str, status: str) -> None:
        """Legs that the broker never showed can't be there without their entry."""
        unseen = orders.c.permanent_id.is_(None) & orders.c.status.in_(_UNSEEN)
        found = db.execute(_STATUSES.where((orders.c.parent_id == entry) & unseen).with_for_update()).all()
        reason = f"its entry was {status}"
        self._move(db, found, {"status": status, "updated_at": self._clock(), "reason": reason}, reason)

    def _move(self, db: Connection, found: Sequence[Any], values: dict[str, Any], why: str) -> None:
        """Give orders (ids and statuses, locked) other values, and each a line that says so."""
        if found:
            db.execute(update(orders).where(orders.c.id.in_([row.id for row in found])).values(**values))
        for row in found:
            told = {"status": values["status"], "was": row.status, "text": why}
            timeline.append(db, row.id, [timeline.line(EntryKind.STATUS, values["updated_at"], **told)])

    def timeline(self, order: Order) -> Timeline:
        """An order's whole life, as far as it was kept. Raises `JournalUnavailable`."""

        def work(db: Connection) -> Timeline:
            placed_by = db.execute(_PLACED_BY, {"of": order.id}).scalar() or ""
            lines = db.execute(timeline.LINES, {"of": order.id}).all()
            fills = self.fills.by_execution(db, order.id)
            before = db.execute(BY_ID, {"of": order.replaces}).first() if order.replaces else None
            replaced = None if before is None else order_of(before)
            return timeline.timeline_of(order, placed_by, lines, fills, replaced)

        return self._do(work)


def _seen(
    account: str, request: OrderRequest, report: OrderReport, now: datetime, **linked: Any
) -> dict[str, Any]:
    """The row of an order that the broker holds and this journal didn't send."""
    row = EMPTY | row_of(account, request, now, **linked, status=Status.SENT, sent_at=now)
    return row | changes_of(SimpleNamespace(**row), report)


def _check_same(request: OrderRequest, row: Any) -> None:
    asked = row.asked or {}
    if any(getattr(request, name) != asked.get(name, getattr(row, name)) for name in BODY):
        raise DuplicateClientOrderId(request.client_order_id, order_of(row))


def _bracket(order_id: str) -> Any:
    """An order and its legs."""
    return (orders.c.id == order_id) | (orders.c.parent_id == order_id)
