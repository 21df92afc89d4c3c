"""An order's whole life, a line for each thing that happened. Part of the journal.

A line is written in the transaction that makes the change of which it tells, so a crash leaves both or
neither, and what changes nothing writes none. An order's first line is its own row: placing an order writes
nothing more before it leaves. A line of a status holds the status before it, too. Where that isn't what the
line before left, something is missing (a version of this program that kept no lines has written the order
meanwhile, or there were too many lines), and whoever reads is told so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from broker.journal_rows import FOREIGN, REPLACEABLE, in_utc
from broker.models import (
    EntryKind,
    FieldChange,
    Fill,
    Order,
    OrderReport,
    Status,
    Timeline,
    TimelineEntry,
)
from broker.tables import order_timeline

#: lines kept of one order, the newest; those before them go, `_STEP` at a time
KEPT, _STEP = 1000, 100
#: characters kept of one message
MOST_TEXT = 2000
#: smaller differences of quantities are binary dust
_DUST = 1e-6
#: a status that is told together with its reason, even with one that was told before
_EXPLAINED = frozenset({Status.REJECTED, Status.CANCELLED, Status.EXPIRED, Status.UNKNOWN})
#: IBKR's remarks as they stand among an order's warnings: `399: Your order will not be placed ...`,
#: or what it asked before it took the order: `o163: The following order exceeds ...`
_CODED = re.compile(r"(o?\d{1,6}(?:,o\d{1,6})*): (.*)", re.DOTALL)

Line = dict[str, Any]

_row = order_timeline.c
_OF: Any = bindparam("of")
_NEXT = select(func.coalesce(func.max(_row.position), 0) + 1).where(_row.order_id == _OF).scalar_subquery()
# Made once: building a statement costs several times what executing it does.
_APPEND = insert(order_timeline).values(position=_NEXT).returning(_row.position)
_INSERT = insert(order_timeline)
_TRIM = delete(order_timeline).where((_row.order_id == _OF) & (_row.position <= bindparam("until")))
LINES = select(order_timeline).where(_row.order_id == _OF).order_by(_row.position)


def line(kind: str, at: datetime, **values: Any) -> Line:
    """A line to be written. Names as the table's columns."""
    empty = dict.fromkeys(("status", "was", "broker_status", "text", "code", "detail"))
    made = {**empty, "kind": kind, "at": at, **values}
    made["text"] = made["text"][:MOST_TEXT] if made["text"] else None
    return made


def append(db: Connection, order_id: str, lines: Iterable[Line]) -> None:
    """Write lines behind those that an order has. Its row must be locked, or new, in this transaction."""
    for one in lines:
        position = db.execute(_APPEND, {"of": order_id, "order_id": order_id, **one}).scalar_one()
        if position > KEPT and position % _STEP == 0:
            db.execute(_TRIM, {"of": order_id, "until": position - KEPT})


def begin(db: Connection, rows: Iterable[Mapping[str, Any]], now: datetime) -> None:
    """Write the first lines of orders that the broker shows, and nobody sent from here, at once."""
    made = [
        {"order_id": row["id"], "position": position, **one}
        for row in rows
        for position, one in enumerate(_first_seen(row, now), 1)
    ]
    if made:
        db.execute(_INSERT, made)


def _first_seen(row: Mapping[str, Any], now: datetime) -> list[Line]:
    seen = line(
        EntryKind.STATUS,
        now,
        status=row["status"],
        broker_status=row["broker_status"],
        text=row["reason"],
        code=row["reason_code"],
        detail=_filled(row) if row["filled_qty"] else None,
    )
    return [seen, *(remark(text, now) for text in row["warnings"])]


def lines_of(row: Any, changed: Mapping[str, Any], report: OrderReport, now: datetime) -> list[Line]:
    """What a report changes in a row (`changed`, by column), as lines."""
    at = report.at or now
    lines = []
    if any(name in changed for name in REPLACEABLE):
        told = [
            {"field": name, "before": getattr(row, name), "after": changed[name]}
            for name in REPLACEABLE
            if name in changed
        ]
        lines.append(line(EntryKind.CHANGED, at, detail={"changes": told}))
    reason = {"text": report.reason, "code": report.reason_code}
    new_reason = "reason" in changed or "reason_code" in changed
    if "status" in changed:
        explained = new_reason or changed["status"] in _EXPLAINED
        lines.append(
            line(
                EntryKind.STATUS,
                at,
                status=changed["status"],
                was=row.status,
                broker_status=report.broker_status,
                detail=_filled(changed) if "filled_qty" in changed else None,
                **(reason if explained else {}),
            )
        )
    elif new_reason:
        lines.append(line(EntryKind.MESSAGE, at, **reason))
    lines += [remark(text, at) for text in changed.get("warnings", ()) if text not in row.warnings]
    return lines


def remark(text: str, at: datetime) -> Line:
    """The line of a warning."""
    coded = _CODED.fullmatch(text)
    code, said = coded.groups() if coded else (None, text)
    return line(EntryKind.MESSAGE, at, text=said, code=code)


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in ("filled_qty", "filled_price") if values.get(name) is not None}


def fill_line(kind: str, fill: Fill, key: str, now: datetime, text: str = "") -> Line:
    """The line of an execution, or of what it cost. `key`: what its corrections share."""
    return line(kind, now, text=text, detail={"execution": key, "fill": asdict(fill)})


def timeline_of(
    order: Order, placed_by: str, lines: Sequence[Any], fills: Mapping[str, Fill], replaced: Order | None
) -> Timeline:
    """An order's life from its row, its lines, and its executions by what their corrections share.

    `replaced`: the order whose place it took.
    """
    status: str | None = None
    entries: list[TimelineEntry] = []
    began = order.created_at or ""
    if placed_by == FOREIGN:
        said = "It wasn't placed from here: what happened before it was first seen isn't known."
        entries.append(TimelineEntry(began, EntryKind.GAP, text=said))
    else:
        status = Status.SENT
        entries.append(_entered(order, placed_by, replaced))
    if lines and lines[0].position > 1:
        said = f"{lines[0].position - 1} earlier entries weren't kept."
        entries.append(TimelineEntry(in_utc(lines[0].at).isoformat(), EntryKind.GAP, text=said))
        status = next((row.was for row in lines if row.kind == EntryKind.STATUS), order.status)
    for row in lines:
        if row.kind == EntryKind.STATUS:
            if status is not None and row.was != status:
                said = f"Statuses before this weren't kept. It was {_words(row.was)} at last."
                entries.append(TimelineEntry(in_utc(row.at).isoformat(), EntryKind.GAP, text=said))
            status = row.status
        entries.append(_entry(row))
    if order.status != status:
        changed = order.updated_at or began
        if status is not None:
            entries.append(TimelineEntry(changed, EntryKind.GAP, text="Statuses before this weren't kept."))
        now = TimelineEntry(changed, EntryKind.STATUS, order.status, order.broker_status, order.reason or "")
        entries.append(now)
    told = {(row.detail or {}).get("execution") for row in lines}
    for key, fill in fills.items():
        if key not in told:  # taken down by a version that kept no lines
            entry = TimelineEntry(fill.time, EntryKind.FILL, fill=fill)
            later = (i for i, one in enumerate(entries) if i and _moment(one.at) > _moment(fill.time))
            entries.insert(next(later, len(entries)), entry)
    # An order that took another's place counts what that one had filled.
    missing = 0.0 if order.replaces else order.filled_qty - sum(fill.qty for fill in fills.values())
    if missing > _DUST:
        said = f"Of {order.filled_qty:g} filled shares, executions of {missing:g} aren't known (yet)."
        entries.append(TimelineEntry(entries[-1].at, EntryKind.GAP, text=said))
    return Timeline(order, entries, all(entry.kind != EntryKind.GAP for entry in entries))


def _entered(order: Order, placed_by: str, replaced: Order | None) -> TimelineEntry:
    said = "entered in the journal, then sent"
    said += f", by {placed_by}" if placed_by else ""
    said += f", in place of order {order.replaces}" if order.replaces else ""
    changes = [] if replaced is None else _differences(replaced, order)
    return TimelineEntry(order.created_at or "", EntryKind.STATUS, Status.SENT, text=said, changes=changes)


def _differences(before: Order, after: Order) -> list[FieldChange]:
    pairs = [(name, getattr(before, name), getattr(after, name)) for name in REPLACEABLE]
    return [FieldChange(name, old, new) for name, old, new in pairs if old != new]


def _entry(row: Any) -> TimelineEntry:
    detail = row.detail or {}
    return TimelineEntry(
        at=in_utc(row.at).isoformat(),
        kind=row.kind,
        status=row.status,
        broker_status=row.broker_status,
        text=row.text or "",
        code=row.code,
        filled_qty=detail.get("filled_qty"),
        filled_price=detail.get("filled_price"),
        changes=[FieldChange(**change) for change in detail.get("changes", ())],
        fill=Fill(**detail["fill"]) if "fill" in detail else None,
    )


def _words(status: str | None) -> str:
    return (status or "nothing").replace("_", " ")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
