"""The kill switch: one row in the journal's database that every order passes on its way out.

`require_running` is called in the very transaction that marks an order as sent, under a lock that
`halt` needs too. So once `halt` returns, no process that shares the database marks another order as
sent, whatever its own limits did; what was marked before is in `Halt.under_way`. A switch that can't
be read stops orders as well: the transaction fails, and nothing leaves.

For use as a library there are two more ways to halt, which need no database: the environment
variable `BROKER_HALT` (any value but 0, false, no: it is the reason), and a file at
`BROKER_HALT_FILE` (its first line is the reason). They hold in addition to the row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from broker.errors import FieldProblem, Halted, InvalidRequest, JournalUnavailable
from broker.models import Status
from broker.risk.tables import switch_changes, switches
from broker.tables import orders

T = TypeVar("T")

_ALL = "all"
_OFF = ("", "0", "false", "no")
LONGEST_REASON = 500
# Made once: building a statement costs several times what executing it does.
_SWITCH = select(switches).where(switches.c.name == _ALL)
_SHARED, _LOCKED = _SWITCH.with_for_update(read=True), _SWITCH.with_for_update()


@dataclass(frozen=True)
class SwitchState:
    """Whether trading is halted, and who changed that last, when (UTC) and why."""

    halted: bool
    since: datetime | None = None
    by: str = ""
    reason: str = ""
    #: database, environment or file: where it must be lifted
    source: str = "database"


@dataclass(frozen=True)
class Halt:
    """What `KillSwitch.halt` did."""

    state: SwitchState
    #: our ids of orders that had left, or were leaving, and have no answer yet: look at them
    under_way: list[str] = field(default_factory=list)


def _now() -> datetime:
    return datetime.now(UTC)


class KillSwitch:
    """Halts and resumes the orders of all processes that share a journal. Usable from any thread."""

    def __init__(
        self,
        engine: Engine,
        *,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._engine = engine
        self._environment = environment
        self._clock = clock

    def state(self) -> SwitchState:
        """The switch as it is now. Raises `JournalUnavailable`."""
        outside = _outside(self._environment)
        return outside if outside is not None else self._do(_read)

    def changes(self, limit: int = 20) -> list[dict[str, Any]]:
        """The latest halts and resumes, newest first. Raises `JournalUnavailable`."""
        query = select(switch_changes).order_by(switch_changes.c.id.desc()).limit(limit)
        rows = self._do(lambda db: db.execute(query).all())
        return [
            {"action": r.action, "at": _utc(r.changed_at), "by": r.changed_by, "reason": r.reason}
            for r in rows
        ]

    def halt(self, by: str, reason: str) -> Halt:
        """Stop all orders from now on. Repeating it keeps the first halt's time, person and reason.

        Raises `InvalidRequest` (no person or no reason), `JournalUnavailable` (nothing was halted).
        """
        return self._do(lambda db: self._halt(db, *_said(by, reason)))

    def resume(self, by: str, reason: str) -> SwitchState:
        """Let orders leave again. The environment's and the file's halt must be lifted where they are.

        Raises `InvalidRequest`, `JournalUnavailable`.
        """
        self._do(lambda db: self._change(db, False, *_said(by, reason)))
        return self.state()

    def _halt(self, db: Connection, by: str, reason: str) -> Halt:
        state = self._change(db, True, by, reason)
        # The switch is locked: a sender has either committed `sent` by now, or will see the halt.
        leaving = select(orders.c.id).where(orders.c.status.in_([Status.SENT, Status.UNKNOWN]))
        return Halt(state, [row.id for row in db.execute(leaving).all()])

    def _change(self, db: Connection, halted: bool, by: str, reason: str) -> SwitchState:
        before = _read(db, exclusive=True)
        now = self._clock()
        action = "halt" if halted else "resume"
        db.execute(insert(switch_changes).values(action=action, changed_at=now, changed_by=by, reason=reason))
        if before.halted and halted:
            return before
        db.execute(
            update(switches)
            .where(switches.c.name == _ALL)
            .values(halted=halted, changed_at=now, changed_by=by, reason=reason)
        )
        return SwitchState(halted, now, by, reason)

    def _do(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as db:
                return work(db)
        except SQLAlchemyError as failure:
            kind = type(getattr(failure, "orig", None) or failure).__name__
            raise JournalUnavailable(f"the kill switch can't be used: {kind}") from failure


def require_running(db: Connection, environment: Mapping[str, str] | None = None) -> None:
    """Raise `Halted` unless orders may leave; a halt waits until the caller's transaction has ended."""
    state = _outside(environment) or _read(db)
    if state.halted:
        raise Halted(state.since, state.by, state.reason)


def _read(db: Connection, exclusive: bool = False) -> SwitchState:
    row = db.execute(_LOCKED if exclusive else _SHARED).first()
    if row is None:
        # A new database: the row is made by whoever looks first, so that there is one to lock.
        made = (postgresql if db.dialect.name == "postgresql" else sqlite).insert(switches)
        db.execute(made.values(name=_ALL, halted=False).on_conflict_do_nothing())
        row = db.execute(_SHARED).one()
    return SwitchState(row.halted, _utc(row.changed_at), row.changed_by, row.reason)


def _outside(environment: Mapping[str, str] | None) -> SwitchState | None:
    """The halt that the environment or a file declares, or None."""
    environment = os.environ if environment is None else environment
    said = (environment.get("BROKER_HALT") or "").strip()
    if said.lower() not in _OFF:
        return SwitchState(True, None, "BROKER_HALT", said[:LONGEST_REASON], "environment")
    name = environment.get("BROKER_HALT_FILE")
    if not name:
        return None
    path = Path(name)
    try:
        changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        text = path.read_text("utf-8", "replace")[:LONGEST_REASON].strip()
    except FileNotFoundError:
        return None
    except OSError as failure:
        # Somebody declared a switch here: one that can't be read stops orders.
        reason = f"the file can't be read: {type(failure).__name__}"
        return SwitchState(True, None, "BROKER_HALT_FILE", reason, "file")
    reason = text.splitlines()[0] if text else "the file is there"
    return SwitchState(True, changed, "BROKER_HALT_FILE", reason, "file")


def _said(by: str, reason: str) -> tuple[str, str]:
    problems = [
        FieldProblem(name, "is required: who halts or resumes, and why, is kept", "nothing")
        for name, value in (("by", by), ("reason", reason))
        if not value.strip()
    ]
    if problems:
        raise InvalidRequest(problems)
    # PostgreSQL's text takes no NUL, and a log line no line break.
    plain = (" ".join(value.replace("\0", " ").split()) for value in (by, reason))
    name, why = plain
    return name[:256], why[:LONGEST_REASON]


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
