"""A timeline's entries in words, for the command line and the dashboard alike."""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.models import EntryKind, FieldChange, Status, TimelineEntry

#: an execution that the journal learned of so much later is shown with its own time as well
LATE = timedelta(seconds=2)


def what(entry: TimelineEntry) -> str:
    """What happened, in a few words."""
    if entry.kind == EntryKind.STATUS:
        return _status(entry)
    if entry.kind in (EntryKind.CHANGED, EntryKind.CHANGE_REQUESTED):
        asked = "change requested" if entry.kind == EntryKind.CHANGE_REQUESTED else "changed"
        return f"{asked}: {changes(entry)}" if entry.changes else asked
    if entry.fill is not None and entry.kind == EntryKind.FILL:
        again = "execution corrected: " if entry.text else "executed "
        return f"{again}{number(entry.fill.qty)} at {_price(entry.fill.price)}"
    if entry.fill is not None:
        return f"commission of {number(entry.fill.qty)} at {_price(entry.fill.price)}"
    return "not known" if entry.kind == EntryKind.GAP else "broker's message"


def more(entry: TimelineEntry) -> str:
    """What there is to say beside it: reasons, the broker's words and codes, what an execution cost."""
    fill = entry.fill
    if fill is not None:
        known = fill.commission is not None
        return f"commission {_price(fill.commission)} {fill.currency}" if known else ""
    parts = [entry.text] if entry.text else []
    if entry.code:
        parts.append(f"({entry.code})")
    if entry.kind == EntryKind.STATUS and entry.changes:
        parts.append(f"({changes(entry)})")
    return " ".join(parts)


def changes(entry: TimelineEntry) -> str:
    """`limit price 190.00 → 191.00, qty 5 → 6`."""
    return ", ".join(_change(change) for change in entry.changes)


def executed_at(entry: TimelineEntry) -> str | None:
    """When the broker executed it, where the journal learned of that late."""
    if entry.fill is None or entry.kind != EntryKind.FILL:
        return None
    late = datetime.fromisoformat(entry.at) - datetime.fromisoformat(entry.fill.time) > LATE
    return entry.fill.time if late else None


def number(value: float | None) -> str:
    """A quantity without decimals that say nothing."""
    return "–" if value is None else f"{value:,.9f}".rstrip("0").rstrip(".")


def _status(entry: TimelineEntry) -> str:
    status = entry.status or ""
    said = "cancel requested" if status == Status.PENDING_CANCEL else status.replace("_", " ")
    # An execution may be told before the status that tells of it, which is the older one then.
    told = (entry.broker_status or "") if status != Status.FILLED else ""
    if told and told.lower() != status.replace("_", ""):
        said += f" (broker: {entry.broker_status})"
    if entry.filled_qty:
        traded = status in (Status.FILLED, Status.PARTIALLY_FILLED)
        said += f": {number(entry.filled_qty)}" if traded else f", {number(entry.filled_qty)} filled"
        said += f" at {_price(entry.filled_price)}" if entry.filled_price is not None else ""
    return said


def _change(change: FieldChange) -> str:
    name = {"qty": "shares"}.get(change.field, change.field.replace("_", " "))
    before = "" if change.before is None else f"{_value(change, change.before)} → "
    return f"{name} {before}{_value(change, change.after)}"


def _value(change: FieldChange, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "none"
    return _price(value) if change.field.endswith("price") else number(value)


def _price(value: float | None) -> str:
    """As many decimals as it needs, at least two."""
    whole, _, decimals = number(value).partition(".")
    return whole if value is None else f"{whole}.{decimals.ljust(2, '0')}"
