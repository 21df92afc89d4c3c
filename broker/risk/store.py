"""What the limits remember, in the journal's database: it survives restarts and holds for all processes.

An order that passes is admitted: a row, written under a lock per account, against which the next one
is counted. So of two processes that ask at once for the last share a limit leaves, one gets it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, bindparam, case, delete, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from broker.errors import BrokerError, JournalUnavailable
from broker.models import FINAL_STATUSES, OrderRequest, Status
from broker.risk.switch import require_running
from broker.risk.tables import admissions, verifications
from broker.tables import orders

T = TypeVar("T")

#: an admitted order that isn't in the journal after this many seconds isn't on its way any more
UNDER_WAY_SECONDS = 30.0
#: a rate is counted over this many seconds
RATE_SECONDS = 60.0
#: admissions are of no use after this many days
_KEPT_DAYS = 2
#: advisory locks of ours in PostgreSQL: this number, and one per account
_LOCK = 7_401_002

# Made once: building a statement costs several times what executing it does.
_OWNER: Any = bindparam("owner")
_WHAT: Any = bindparam("what")
_MARK: Any = bindparam("mark")
_LAST_ADMISSION = select(func.max(admissions.c.id)).where(admissions.c.account == _OWNER)
_SAME = (orders.c.account == admissions.c.account) & (
    orders.c.client_order_id == admissions.c.client_order_id
)
# An order for an amount of money has no quantity until the broker tells one.
_QTY = case(
    (orders.c.qty > 0, orders.c.qty),
    else_=func.coalesce(select(admissions.c.qty).where(_SAME).correlate(orders).scalar_subquery(), 0.0),
)
_OPEN = (
    select(orders.c.id, orders.c.side, orders.c.filled_qty, orders.c.parent_id, _QTY - orders.c.filled_qty)
    .where((orders.c.account == _OWNER) & (orders.c.symbol == _WHAT))
    .where(orders.c.status.not_in([*FINAL_STATUSES, Status.RECORDED]))
    .order_by(orders.c.id)
)
_BY_NAME = select(orders.c.id, orders.c.parent_id).where(
    (orders.c.account == _OWNER) & (orders.c.client_order_id == _WHAT)
)
_BY_ID = select(orders.c.id, orders.c.parent_id).where((orders.c.account == _OWNER) & (orders.c.id == _WHAT))
_ADMITTED = (
    select(admissions, orders.c.id.label("order_id"), orders.c.status, orders.c.filled_qty)
    .select_from(admissions.outerjoin(orders, _SAME))
    .where((admissions.c.account == _OWNER) & (admissions.c.symbol == _WHAT))
    .where((admissions.c.admitted_at > bindparam("live")) | (admissions.c.id > _MARK))
)
_LATER = select(admissions.c.client_order_id).where(
    (admissions.c.account == _OWNER) & (admissions.c.id > _MARK)
)
_RECENT = (
    select(orders.c.side, func.sum(orders.c.filled_qty).label("shares"))
    .where((orders.c.account == _OWNER) & (orders.c.symbol == _WHAT))
    .where((orders.c.updated_at >= bindparam("since")) & (orders.c.filled_qty > 0))
    .where(orders.c.client_order_id.not_in(_LATER))
    .group_by(orders.c.side)
)
_COUNTS = (
    select(admissions.c.reduces, func.count().label("orders"))
    .where((admissions.c.account == _OWNER) & (admissions.c.admitted_at > bindparam("since")))
    .group_by(admissions.c.reduces)
)
_FORGET = delete(admissions).where(
    (admissions.c.account == _OWNER) & (admissions.c.client_order_id == bindparam("of"))
)
_FORGET_OLD = delete(admissions).where(
    (admissions.c.account == _OWNER) & (admissions.c.admitted_at < bindparam("before"))
)
_ADMIT = insert(admissions)
_LOCK_ACCOUNT = text("select pg_advisory_xact_lock(:kind, :account)")


@dataclass(frozen=True)
class Mark:
    """What was open before the position was asked for: later changes may or may not be in the answer."""

    last_admission: int = 0
    open_shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shares:
    """Quantities by side."""

    buy: float = 0.0
    sell: float = 0.0


@dataclass(frozen=True)
class Counts:
    """What has been admitted within the last minute: orders that open, and orders that reduce."""

    opening: int = 0
    reducing: int = 0


@dataclass(frozen=True)
class _Working:
    """A working order with the shares that it may still trade; `parent_id` of a bracket's leg."""

    id: str
    side: str
    filled_qty: float
    parent_id: str | None
    open: float


class RiskStore:
    """Admissions and verifications of one database. Usable from any thread."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        self._tidied: datetime | None = None

    def mark(self, account: str, symbol: str) -> Mark:
        """Take note of what is open. To be called before the position is asked for.

        Raises `Halted`, `JournalUnavailable`.
        """

        def work(db: Connection) -> Mark:
            require_running(db)
            last = db.execute(_LAST_ADMISSION, {"owner": account}).scalar()
            open_shares = {row.id: max(row.open, 0.0) for row in _open(db, account, symbol)}
            return Mark(last or 0, open_shares)

        return self._do(work)

    def admission(
        self,
        account: str,
        request: OrderRequest,
        qty: float,
        mark: Mark,
        lag: float,
        decide: Callable[[Shares, Shares, Counts], bool],
    ) -> Callable[[Connection], None]:
        """Work for a transaction: enter the order if `decide` lets it pass.

        No other order of the account is decided until the transaction ends. `decide` gets the shares
        pending, those filled within the last `lag` seconds, and the counts; it says whether the order
        reduces, or raises, and so does the work then.
        """
        return lambda db: self._admit(db, account, request, qty, mark, lag, decide)

    def alone(self, admit: Callable[[Connection], None]) -> None:
        """Run an admission in a transaction of its own. Raises what that raises, and `Halted`."""

        def work(db: Connection) -> None:
            require_running(db)
            admit(db)

        self._do(work)

    def record_verification(
        self, account: str, gateway: str, by: str, passed: bool, results: Mapping[str, bool]
    ) -> None:
        """Enter what a verification found. Raises `JournalUnavailable`."""
        values = {
            "account": account,
            "gateway": gateway,
            "verified_by": by[:256],
            "verified_at": self._clock(),
            "passed": passed,
            "results": dict(results),
        }
        self._do(lambda db: db.execute(insert(verifications).values(**values)))

    def last_verification(self, account: str, gateway: str) -> Row[Any] | None:
        """The newest verification of an account on a gateway, passed or not. Raises `JournalUnavailable`."""
        where = (verifications.c.account == account) & (verifications.c.gateway == gateway)
        query = select(verifications).where(where).order_by(verifications.c.id.desc()).limit(1)
        return self._do(lambda db: db.execute(query).first())

    def _admit(
        self,
        db: Connection,
        account: str,
        request: OrderRequest,
        qty: float,
        mark: Mark,
        lag: float,
        decide: Callable[[Shares, Shares, Counts], bool],
    ) -> None:
        _lock_account(db, account)
        now = self._clock()
        # A repeated call is the same order, counted once.
        db.execute(_FORGET, {"owner": account, "of": request.client_order_id})
        pending = self._pending(db, account, request, mark, now)
        since = now - timedelta(seconds=lag)
        recent = _recent(db, account, request, mark, since) if lag else Shares()
        reduces = decide(pending, recent, _counts(db, account, now))
        values = {
            "account": account,
            "client_order_id": request.client_order_id,
            "symbol": request.symbol,
            "side": request.side,
            "qty": qty,
            "reduces": reduces,
            "admitted_at": now,
        }
        db.execute(_ADMIT, values)
        if self._tidied is None or now - self._tidied > timedelta(hours=1):
            self._tidied = now
            db.execute(_FORGET_OLD, {"owner": account, "before": now - timedelta(days=_KEPT_DAYS)})

    def _pending(
        self, db: Connection, account: str, request: OrderRequest, mark: Mark, now: datetime
    ) -> Shares:
        """Shares that working orders and admitted ones may still trade."""
        found = {"buy": 0.0, "sell": 0.0}
        counted: set[str] = set()
        symbol = request.symbol
        query, name = (_BY_ID, request.replaces) if request.replaces else (_BY_NAME, request.client_order_id)
        own = db.execute(query, {"owner": account, "what": name}).first()
        for row in _open(db, account, symbol):
            counted.add(row.id)
            if own is not None and own.parent_id is not None and own.parent_id in (row.id, row.parent_id):
                # A leg closes what its entry opens: what that hasn't filled yet backs it. The two legs
                # are one.
                found[request.side] -= row.open if row.id == own.parent_id else 0.0
            elif own is not None and row.id == own.id:
                # A replacement takes the place of the order of its id, and what that has filled is held.
                found[row.side] -= row.filled_qty
            else:
                found[row.side] += max(mark.open_shares.get(row.id, 0.0), row.open)
        # What was open at the mark and is final now: its fills may not be in the position yet.
        gone = [order_id for order_id in mark.open_shares if order_id not in counted]
        sides = select(orders.c.id, orders.c.side).where(orders.c.id.in_(gone))
        for order_id, side in db.execute(sides).all():
            found[side] += mark.open_shares[order_id]
        for entry in _admitted(db, account, symbol, mark, now):
            if entry.order_id is None or entry.status == Status.RECORDED:
                found[entry.side] += entry.qty  # admitted, and about to leave
            elif entry.id > mark.last_admission:
                # Admitted after the mark: the position may hold none of its fills, so all of it counts.
                found[entry.side] += entry.filled_qty
        return Shares(**found)

    def _do(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as db:
                return work(db)
        except BrokerError:
            raise
        except SQLAlchemyError as failure:
            kind = type(getattr(failure, "orig", None) or failure).__name__
            raise JournalUnavailable(f"the limits' counts can't be used: {kind}") from failure


def _open(db: Connection, account: str, symbol: str) -> list[_Working]:
    """Working orders; of a bracket's legs the first, with what the bracket has opened and not closed yet.

    Of the two legs one closes that. Until the entry has filled, they can't trade, and the entry counts.
    """
    rows = [_Working(*row) for row in db.execute(_OPEN, {"owner": account, "what": symbol})]
    entries = {row.id: row.open for row in rows if row.parent_id is None}
    legs: dict[str, _Working] = {}
    for row in rows:
        if row.parent_id is not None and row.parent_id not in legs:
            closes = max(row.open - entries.get(row.parent_id, 0.0), 0.0)
            legs[row.parent_id] = replace(row, open=closes)
    return [row for row in rows if row.parent_id is None] + list(legs.values())


def _admitted(
    db: Connection, account: str, symbol: str, mark: Mark, now: datetime
) -> Sequence[Row[*tuple[Any, ...]]]:
    live = now - timedelta(seconds=UNDER_WAY_SECONDS)
    known = {"owner": account, "what": symbol, "live": live, "mark": mark.last_admission}
    return db.execute(_ADMITTED, known).all()


def _recent(db: Connection, account: str, request: OrderRequest, mark: Mark, since: datetime) -> Shares:
    """Shares filled since, of orders admitted before the mark (later ones are pending in full)."""
    known = {"owner": account, "what": request.symbol, "since": since, "mark": mark.last_admission}
    return Shares(**{row.side: row.shares for row in db.execute(_RECENT, known).all()})


def _counts(db: Connection, account: str, now: datetime) -> Counts:
    since = now - timedelta(seconds=RATE_SECONDS)
    rows = db.execute(_COUNTS, {"owner": account, "since": since}).all()
    found = {bool(row.reduces): row.orders for row in rows}
    return Counts(found.get(False, 0), found.get(True, 0))


def utc(moment: datetime) -> datetime:
    """A database's time; SQLite gives it back without the zone that it was stored in."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _lock_account(db: Connection, account: str) -> None:
    # SQLite's transactions here begin with the write lock already.
    if db.dialect.name == "postgresql":
        number = zlib.crc32(account.encode()) - 2**31  # PostgreSQL wants a signed 32-bit number
        db.execute(_LOCK_ACCOUNT, {"kind": _LOCK, "account": number})
