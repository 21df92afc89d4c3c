"""Executions with their commissions, and whether they explain the positions. Part of the journal.

A broker may correct an execution later (IBKR: the same id with its last part counted up), tell its
commission in a message of its own, or tell it again after every connection. Here each execution is
one row, whose highest revision counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Row, bindparam, case, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from broker import timeline
from broker.models import EntryKind, Fill, PositionChange
from broker.tables import fills, orders, positions

T = TypeVar("T")

#: smaller differences of quantities are binary dust
DUST = 1e-6
#: the row that says when an account was compared
_MARK = ""


# Made once: building a statement costs several times what executing it does.
_OWNER: Any = bindparam("owner")
_BY_EXECUTION = (
    select(fills)
    .where((fills.c.account == _OWNER) & (fills.c.execution == bindparam("of")))
    .with_for_update()
)
_OF_ORDER = select(fills).where(fills.c.order_id == bindparam("of")).order_by(fills.c.time, fills.c.number)
_POSITIONS = select(positions).where(positions.c.account == _OWNER)
_MARKED = select(positions.c.qty).where((positions.c.account == _OWNER) & (positions.c.symbol == _MARK))
_FORGET_POSITIONS = delete(positions).where(positions.c.account == _OWNER)
_INSERT_POSITION = insert(positions)
_SIGNED = func.sum(case((fills.c.side == "buy", fills.c.qty), else_=-fills.c.qty))
_FILLED = select(fills.c.symbol, _SIGNED).where(fills.c.account == _OWNER).group_by(fills.c.symbol)
_CHANGE = update(fills).where(fills.c.number == bindparam("of"))
_TOTAL = select(func.sum(fills.c.commission)).where(fills.c.order_id == orders.c.id).scalar_subquery()
_ADD_UP = update(orders).where(orders.c.id == bindparam("of")).values(commission=_TOTAL)
_INSERT_UNLESS_THERE = {
    name: dialect.insert(fills)
    .on_conflict_do_nothing(index_elements=["account", "execution"])
    .execution_options(preserve_rowcount=True)
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
}


class Transaction(Protocol):
    """Runs work in a transaction of its own."""

    def __call__(self, work: Callable[[Connection], T]) -> T:
        """The work's result. Raises `JournalUnavailable`."""


class FillBook:
    """The executions of one database. Safe to use from any thread."""

    def __init__(self, transaction: Transaction, clock: Callable[[], datetime]) -> None:
        self._do = transaction
        self._clock = clock

    def record(self, fill: Fill, *, execution: str = "", revision: int = 0) -> Fill | None:
        """Take an execution down. The fill as it is kept if that is news, None if it was known.

        `execution` is the id that corrections share, `revision` which of them this is. A lower
        revision than the kept one is ignored. Raises `JournalUnavailable`.
        """
        values = _values(fill) | {"execution": execution or fill.id, "revision": revision}
        return self._do(lambda db: self._record(db, values))

    def recent(self, account: str, since: datetime | None, limit: int) -> list[Fill]:
        """The newest executions of an account, newest first; those since a moment if given."""
        query = select(fills).where(fills.c.account == account)
        if since is not None:
            query = query.where(fills.c.time >= since.astimezone(UTC))
        query = query.order_by(fills.c.time.desc(), fills.c.number.desc()).limit(limit)
        return [_fill(row) for row in self._do(lambda db: db.execute(query).all())]

    def of_order(self, order_id: str) -> list[Fill]:
        """An order's executions, oldest first."""
        return [_fill(row) for row in self._do(lambda db: db.execute(_OF_ORDER, {"of": order_id}).all())]

    def by_execution(self, db: Connection, order_id: str) -> dict[str, Fill]:
        """An order's executions, oldest first, by what their corrections share; within a transaction."""
        return {row.execution: _fill(row) for row in db.execute(_OF_ORDER, {"of": order_id})}

    def begin(self, account: str, held: Mapping[str, float]) -> None:
        """An account's first comparison: positions from before the journal need no explanation."""

        def work(db: Connection) -> None:
            if db.execute(_MARKED, {"owner": account}).first() is None:
                filled = _filled(db, account)
                rows = {s: (held.get(s, 0.0), filled.get(s, 0.0)) for s in {*held, *filled}}
                self._accept(db, account, rows)

        self._do(work)

    def compare(
        self, account: str, held: Mapping[str, float], *, accept: bool = True
    ) -> list[PositionChange]:
        """Positions that the fills since the last comparison don't explain.

        `held` are the shares by symbol that the broker shows now. With `accept` they are what the next
        comparison starts from, so that a change is reported once. An account's first explains everything.
        """

        def work(db: Connection) -> list[PositionChange]:
            before = {r.symbol: r for r in db.execute(_POSITIONS, {"owner": account})}
            filled = _filled(db, account)
            changes = []
            symbols = sorted({*before, *filled, *held} - {_MARK})
            for symbol in symbols if _MARK in before else []:
                row = before.get(symbol)
                was, counted = (row.qty, row.filled) if row is not None else (0.0, 0.0)
                expected, now = was + filled.get(symbol, 0.0) - counted, held.get(symbol, 0.0)
                if abs(expected - now) > DUST:
                    changes.append(PositionChange(symbol, account, was, round(expected, 9), now))
            if accept or _MARK not in before:
                self._accept(db, account, {s: (held.get(s, 0.0), filled.get(s, 0.0)) for s in symbols})
            return changes

        return self._do(work)

    def _accept(self, db: Connection, account: str, rows: Mapping[str, tuple[float, float]]) -> None:
        now = self._clock()
        db.execute(_FORGET_POSITIONS, {"owner": account})
        values = [
            {"account": account, "symbol": symbol, "qty": qty, "filled": filled, "compared_at": now}
            for symbol, (qty, filled) in {_MARK: (0.0, 0.0), **rows}.items()
        ]
        db.execute(_INSERT_POSITION, values)

    def _record(self, db: Connection, values: dict[str, Any]) -> Fill | None:
        if db.execute(_INSERT_UNLESS_THERE[db.dialect.name], values).rowcount == 1:
            fill = _fill(SimpleNamespace(**values))
            self._tell(db, fill, values["execution"], EntryKind.FILL)
            return fill
        row = _find(db, values["account"], values["execution"])
        assert row is not None  # it was there a moment ago, and none is ever deleted
        if values["revision"] < row.revision:
            return None
        news = dict(values) if values["revision"] > row.revision else {}
        for name in ("order_id", "client_order_id", "commission"):
            # What an earlier message told stays, unless this one tells it.
            news[name] = getattr(row, name) if values[name] in ("", None) else values[name]
        news = {name: value for name, value in news.items() if getattr(row, name) != value}
        return self._change(db, row, news) if news else None

    def _change(self, db: Connection, row: Row[Any], values: dict[str, Any]) -> Fill:
        db.execute(_CHANGE, {"of": row.number, **values})
        fill = _fill(SimpleNamespace(**{**row._asdict(), **values}))
        corrected = "qty" in values or "price" in values
        if corrected or "order_id" in values:
            self._tell(db, fill, row.execution, EntryKind.FILL, "corrected" if corrected else "")
        else:
            self._tell(db, fill, row.execution, EntryKind.COMMISSION if "commission" in values else None)
        return fill

    def _tell(self, db: Connection, fill: Fill, key: str, kind: str | None, text: str = "") -> None:
        """Let an execution's order know of it."""
        if fill.order_id:
            db.execute(_ADD_UP, {"of": fill.order_id})  # locks the order's row, too
            if kind is not None:
                line = timeline.fill_line(kind, fill, key, self._clock(), text)
                timeline.append(db, fill.order_id, [line])


def _filled(db: Connection, account: str) -> dict[str, float]:
    """What all fills known add up to, by symbol, sales negative."""
    return {symbol: float(total) for symbol, total in db.execute(_FILLED, {"owner": account})}


def _find(db: Connection, account: str, execution: str) -> Row[Any] | None:
    return db.execute(_BY_EXECUTION, {"owner": account, "of": execution}).one_or_none()


def _values(fill: Fill) -> dict[str, Any]:
    return {
        "account": fill.account_id,
        "execution_id": fill.id,
        "order_id": fill.order_id,
        "client_order_id": fill.client_order_id,
        "symbol": fill.symbol,
        "side": fill.side,
        "qty": fill.qty,
        "price": fill.price,
        "time": datetime.fromisoformat(fill.time).astimezone(UTC),
        "commission": fill.commission,
        "currency": fill.currency,
    }


def _fill(row: Any) -> Fill:
    # SQLite gives times back without their zone; they were stored in UTC.
    time = row.time.replace(tzinfo=UTC) if row.time.tzinfo is None else row.time.astimezone(UTC)
    return Fill(
        id=row.execution_id,
        order_id=row.order_id,
        client_order_id=row.client_order_id,
        symbol=row.symbol,
        side=row.side,
        qty=row.qty,
        price=row.price,
        time=time.isoformat(),
        commission=row.commission,
        currency=row.currency,
        account_id=row.account,
    )
