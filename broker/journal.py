"""What was sent: an order is committed here before it leaves, so that none is lost or sent twice.

An order's life in the journal: `recorded` (committed, not sent: certain) -> `sent` (it may have
left: only the broker knows) -> what the broker says. The step from `recorded` to `sent` is a
compare-and-set, so of any number of threads and processes that hold the same order one sends it.

Unique by (account, client order id): the same id with the same body is the same order.
PostgreSQL in the service, where migrations make the tables; SQLite for use as a library.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, create_engine, event, insert, inspect, null, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import QueuePool
from sqlalchemy.schema import CreateColumn

from broker.errors import DuplicateClientOrderId, JournalUnavailable, OrderNotFound
from broker.fills import FillBook
from broker.models import FINAL_STATUSES, Order, OrderReport, OrderRequest, Status
from broker.risk.switch import require_running
from broker.tables import metadata, orders

log = logging.getLogger(__name__)

T = TypeVar("T")

_ID = re.compile(r"[0-9a-f]{32}")
#: an order's body: what must agree for the same client order id to be the same order
BODY = (
    "symbol",
    "side",
    "qty",
    "order_type",
    "limit_price",
    "time_in_force",
    "stop_price",
    "notional",
    "trail_amount",
    "trail_percent",
    "take_profit_price",
    "stop_loss_price",
    "extended_hours",
)
#: who placed an order that the broker showed and nobody sent from here
FOREIGN = "not through this journal"
#: what a replacement can change
REPLACEABLE = ("qty", "limit_price", "stop_price", "time_in_force")
#: what ends an entry before it trades, and the statuses of legs that the broker hasn't shown
_ENDED = frozenset({Status.REJECTED, Status.CANCELLED, Status.EXPIRED})
_UNSEEN = (Status.RECORDED, Status.SENT, Status.UNKNOWN)


def _now() -> datetime:
    return datetime.now(UTC)


class Journal:
    """The orders of one database. Safe to use from any thread."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = _now) -> None:
        self._engine = engine
        self._clock = clock
        self._failing_since: datetime | None = None
        #: told of every order whose outcome becomes unknown; what it raises is logged
        self.outcome_unknown: Callable[[Order], None] | None = None
        #: executions with their commissions, and whether they explain the positions
        self.fills = FillBook(self._do, clock)

    @classmethod
    def in_file(cls, path: str) -> Journal:
        """A journal in an SQLite file (`:memory:` for one that ends with the process)."""
        # One connection, so that threads take turns; a journal in memory exists on that connection only.
        engine = create_engine(
            f"sqlite:///{path}",
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            connect_args={"check_same_thread": False},
        )
        event.listen(engine, "connect", _durable)
        event.listen(engine, "begin", _begin)
        metadata.create_all(engine)
        _add_missing_columns(engine)
        return cls(engine)

    @property
    def engine(self) -> Engine:
        """The database's engine, for what else is kept beside the orders."""
        return self._engine

    def find(self, account: str, client_order_id: str) -> Order | None:
        """The order of that client order id, or None. Raises `JournalUnavailable`."""
        where = (orders.c.account == account) & (orders.c.client_order_id == client_order_id)
        rows = self._do(lambda db: db.execute(select(orders).where(where)).all())
        return _order(rows[0]) if rows else None

    def record(
        self,
        account: str,
        request: OrderRequest,
        *,
        parent_id: str | None = None,
        replaces: str | None = None,
        legs: Sequence[OrderRequest] = (),
    ) -> Order:
        """Commit an order as `recorded`, or return the one that has its client order id and body.

        `parent_id`: our id of the order that it is a leg of; `replaces`: of the one it takes the place of.
        `legs` are committed with it, or none of them is.
        Raises `DuplicateClientOrderId` if that id, or a leg's, names an order with another body,
        `JournalUnavailable`.
        """
        entry = self._row(account, request) | {"parent_id": parent_id, "replaces": replaces}
        rows = [self._row(account, leg) | {"parent_id": entry["id"]} for leg in legs]
        entry["legs"] = [row["id"] for row in rows]
        try:
            self._do(lambda db: [db.execute(insert(orders).values(**row)) for row in (entry, *rows)])
        except IntegrityError:
            existing = self.find(account, request.client_order_id)
            if existing is None:
                self._refuse_taken(account, legs)
                raise JournalUnavailable("the journal refused the order and doesn't hold it") from None
            self.check_same(request, existing)
            return existing
        return self.get(account, str(entry["id"]))

    def _row(self, account: str, request: OrderRequest) -> dict[str, Any]:
        now = self._clock()
        return {name: getattr(request, name) for name in BODY} | {
            "id": uuid.uuid4().hex,
            "account": account,
            "client_order_id": request.client_order_id,
            "placed_by": request.placed_by,
            "status": Status.RECORDED,
            "filled_qty": 0.0,
            "warnings": [],
            "legs": [],
            "created_at": now,
            "updated_at": now,
        }

    def _refuse_taken(self, account: str, legs: Sequence[OrderRequest]) -> None:
        for leg in legs:
            taken = self.find(account, leg.client_order_id)
            if taken is not None:
                raise DuplicateClientOrderId(leg.client_order_id, taken) from None

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

    def mark_sent(self, order_id: str) -> bool:
        """Commit that the order is about to leave. True for the one caller that may send it.

        Raises `Halted` (the kill switch is on, and the order stays `recorded`), `JournalUnavailable`.
        """

        def work(db: Connection) -> bool:
            require_running(db)
            return self._mark_sent(db, order_id)

        return self._do(work)

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
        order = self._do(lambda db: self._update(db, order_id, report))
        if order.status == report.status == Status.UNKNOWN:
            self._tell_unknown(order)
        return order

    def get(self, account: str, order_id: str) -> Order:
        """One order by our id. Raises `OrderNotFound`, `JournalUnavailable`."""
        where = (orders.c.account == account) & (orders.c.id == order_id)
        # What isn't an id of ours may hold what a database takes no parameter of, such as NUL.
        known = _ID.fullmatch(order_id)
        rows = self._do(lambda db: db.execute(select(orders).where(where)).all()) if known else []
        if not rows:
            raise OrderNotFound(f"no order has the id {order_id[:64]!a}")
        return _order(rows[0])

    def recent(self, account: str, limit: int) -> list[Order]:
        """The newest orders of an account, newest first."""
        query = (
            select(orders)
            .where(orders.c.account == account)
            .order_by(orders.c.created_at.desc(), orders.c.id)
            .limit(limit)
        )
        return [_order(row) for row in self._do(lambda db: db.execute(query).all())]

    def unsettled(self, account: str) -> list[Order]:
        """Orders that aren't final and may have left us, oldest first: what reconciliation looks up."""
        query = (
            select(orders)
            .where(orders.c.account == account)
            .where(orders.c.status.not_in([*FINAL_STATUSES, Status.RECORDED]))
            .order_by(orders.c.created_at)
        )
        return [_order(row) for row in self._do(lambda db: db.execute(query).all())]

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
        order = self.record(account, request, parent_id=parent_id, replaces=replaces)
        self._do(lambda db: self._mark_sent(db, order.id))  # it is there, whether trading is halted or not
        return self.update(order.id, report)

    def by_permanent_id(self, account: str, permanent_id: str) -> Order | None:
        """The order with the broker's own lasting number, or None."""
        where = (orders.c.account == account) & (orders.c.permanent_id == permanent_id)
        rows = self._do(lambda db: db.execute(select(orders).where(where)).all())
        return _order(rows[0]) if rows else None

    def is_foreign(self, order_id: str) -> bool:
        """Whether an order was entered because the broker showed it, not placed through this journal."""
        query = select(orders.c.placed_by).where(orders.c.id == order_id)
        return self._do(lambda db: db.execute(query).scalar()) == FOREIGN

    def check_same(self, request: OrderRequest, existing: Order) -> None:
        """Raise `DuplicateClientOrderId` unless the order asked for is the existing one.

        An order that was replaced since is still the one that was asked for at first.
        """
        query = select(orders.c.asked).where(orders.c.id == existing.id)
        asked = self._do(lambda db: db.execute(query).scalar()) or {}
        if any(getattr(request, name) != asked.get(name, getattr(existing, name)) for name in BODY):
            raise DuplicateClientOrderId(request.client_order_id, existing)

    def begin_change(self, order_id: str, change: dict[str, Any]) -> None:
        """Commit that a replacement is about to be sent, with what it changes. Raises `Halted`."""

        def work(db: Connection) -> None:
            require_running(db)
            values = {"change": change, "updated_at": self._clock()}
            db.execute(update(orders).where(orders.c.id == order_id).values(**values))

        self._do(work)

    def end_change(self, order_id: str, warning: str = "") -> Order:
        """Take down that no replacement is under way any more; a refused one leaves a warning."""

        def work(db: Connection) -> Order:
            row = db.execute(select(orders).where(orders.c.id == order_id).with_for_update()).one()
            warnings = list(dict.fromkeys([*row.warnings, *([warning] if warning else [])]))
            values = {"change": null(), "warnings": warnings, "updated_at": self._clock()}
            db.execute(update(orders).where(orders.c.id == order_id).values(**values))
            return _order(db.execute(select(orders).where(orders.c.id == order_id)).one())

        return self._do(work)

    def change_under_way(self, order_id: str) -> dict[str, Any] | None:
        """What a replacement that was sent and isn't confirmed changes, or None."""
        query = select(orders.c.change).where(orders.c.id == order_id)
        return self._do(lambda db: db.execute(query).scalar())

    def attach(self, order_id: str, legs: list[str]) -> Order:
        """Take down an order's legs (our ids)."""

        def work(db: Connection) -> Order:
            db.execute(update(orders).where(orders.c.id == order_id).values(legs=legs))
            return _order(db.execute(select(orders).where(orders.c.id == order_id)).one())

        return self._do(work)

    def changed_since(self, account: str, moment: datetime, limit: int) -> list[Order]:
        """Orders that changed since a moment, oldest change first."""
        query = (
            select(orders)
            .where((orders.c.account == account) & (orders.c.updated_at >= moment.astimezone(UTC)))
            .order_by(orders.c.updated_at)
            .limit(limit)
        )
        return [_order(row) for row in self._do(lambda db: db.execute(query).all())]

    def mark_unknown(self, order_id: str, reason: str) -> None:
        """Note that nobody knows what became of an order that was sent, unless somebody does by now."""
        change = (
            update(orders)
            .where(orders.c.status == Status.SENT)
            .values(status=Status.UNKNOWN, reason=reason, updated_at=self._clock())
        )

        def work(db: Connection) -> Order | None:
            if not db.execute(change.where(orders.c.id == order_id)).rowcount:
                return None
            db.execute(change.where(orders.c.parent_id == order_id))
            return _order(db.execute(select(orders).where(orders.c.id == order_id)).one())

        order = self._do(work)
        if order is not None:
            self._tell_unknown(order)

    def _tell_unknown(self, order: Order) -> None:
        if self.outcome_unknown is not None:
            try:
                self.outcome_unknown(order)
            except Exception:
                log.exception("nobody could be told that the outcome of order %s is unknown", order.id)

    def _update(self, db: Connection, order_id: str, report: OrderReport) -> Order:
        row = db.execute(select(orders).where(orders.c.id == order_id).with_for_update()).one()
        values: dict[str, Any] = {"updated_at": self._clock()}
        # A late or repeated status must not reopen a final order; a fill is a fact whatever came before.
        stale = report.filled_qty < row.filled_qty and report.status not in FINAL_STATUSES
        if (row.status not in FINAL_STATUSES and not stale) or report.status == Status.FILLED:
            values["status"] = report.status
        for name in ("broker_status", "broker_order_id", "permanent_id", "reason", "reason_code"):
            if getattr(report, name) is not None:
                values[name] = getattr(report, name)
        if report.filled_qty >= row.filled_qty and report.filled_price is not None:
            values |= {"filled_qty": report.filled_qty, "filled_price": report.filled_price}
        if row.status not in FINAL_STATUSES:
            values |= _replaced(row, report)
        values["warnings"] = list(dict.fromkeys([*row.warnings, *report.warnings]))
        db.execute(update(orders).where(orders.c.id == order_id).values(**values))
        if row.legs and values.get("status") in _ENDED and not values.get("filled_qty", row.filled_qty):
            self._end_legs(db, order_id, str(values["status"]))
        return _order(db.execute(select(orders).where(orders.c.id == order_id)).one())

    def _end_legs(self, db: Connection, entry: str, status: str) -> None:
        """Legs that the broker never showed can't be there without their entry."""
        unseen = orders.c.permanent_id.is_(None) & orders.c.status.in_(_UNSEEN)
        values = {"status": status, "updated_at": self._clock(), "reason": f"its entry was {status}"}
        db.execute(update(orders).where((orders.c.parent_id == entry) & unseen).values(**values))

    def _do(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as db:
                done = work(db)
            self._failing_since = None
            return done
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


def _bracket(order_id: str) -> Any:
    """An order and its legs."""
    return (orders.c.id == order_id) | (orders.c.parent_id == order_id)


def _replaced(row: Row[Any], report: OrderReport) -> dict[str, Any]:
    """What the broker shows otherwise than the journal; the body that was asked for is kept beside it."""
    told = {name: getattr(report, name) for name in REPLACEABLE}
    news = {n: value for n, value in told.items() if value is not None and value != getattr(row, n)}
    if not news:
        return {}
    # A broker that decides the quantity of a notional order replaces nothing.
    asked = row.asked or {name: getattr(row, name) for name in BODY}
    return {**news, "asked": asked, "change": null()}


def _add_missing_columns(engine: Engine) -> None:
    """Bring a file that an older version made up to date: SQLite files see no migration."""
    with engine.begin() as db:
        for table in metadata.sorted_tables:
            there = {column["name"] for column in inspect(db).get_columns(table.name)}
            for column in table.columns:
                if column.name not in there:
                    made = CreateColumn(column).compile(dialect=engine.dialect)
                    db.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {made}")


def _begin(connection: Connection) -> None:
    # Takes the write lock at once: two processes that read first would both fail to upgrade.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _durable(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # sqlite3 would begin transactions itself, and later than `_begin`
    # A committed order must survive a power cut; WAL with synchronous=NORMAL may lose the last ones.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=5000")


def _text(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    # SQLite gives times back without their zone; they were stored in UTC.
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)).isoformat()


def _order(row: Row[Any]) -> Order:
    return Order(
        id=row.id,
        symbol=row.symbol,
        side=row.side,
        qty=row.qty,
        order_type=row.order_type,
        status=row.status,
        limit_price=row.limit_price,
        filled_qty=row.filled_qty,
        filled_price=row.filled_price,
        created_at=_text(row.created_at),
        client_order_id=row.client_order_id,
        time_in_force=row.time_in_force,
        account_id=row.account,
        updated_at=_text(row.updated_at),
        reason=row.reason,
        reason_code=row.reason_code,
        broker_order_id=row.broker_order_id,
        permanent_id=row.permanent_id,
        broker_status=row.broker_status,
        warnings=list(row.warnings),
        stop_price=row.stop_price,
        notional=row.notional,
        trail_amount=row.trail_amount,
        trail_percent=row.trail_percent,
        take_profit_price=row.take_profit_price,
        stop_loss_price=row.stop_loss_price,
        extended_hours=bool(row.extended_hours),
        commission=row.commission,
        parent_id=row.parent_id,
        replaces=row.replaces,
        legs=list(row.legs or []),
    )
