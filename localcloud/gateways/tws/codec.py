"""Messages of the TWS API on the wire: framing, and fields read and written by table.

A message is a 4-byte big-endian length and that many bytes: fields, each ended by NUL
(ibapi/comm.py: make_msg, make_field, read_msg). Empty means unset; booleans are 0 and 1.

Tables (`requests.py`, `replies.py`) are sequences of:
    "name"                   one field
    Since(version, table)    fields that exist from a server version on
    Until(version, table)    fields that exist before a server version
    When(name, table, value) fields that follow if the named field is truthy, or has the value
    Repeat(name, table)      a count, and that many rows
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

HEADER = struct.Struct("!I")
# ibapi/common.py: the largest message that IBKR's own client reads.
LONGEST_MESSAGE = 0xFFFFFF
NOTHING = ("", "0", "0.0", "None", None, 0, False)


@dataclass(frozen=True)
class Since:
    """Fields from a server version on."""

    version: int
    table: Table


@dataclass(frozen=True)
class Until:
    """Fields before a server version."""

    version: int
    table: Table


@dataclass(frozen=True)
class When:
    """Fields that follow only if `name` is truthy (or equals `value`)."""

    name: str
    table: Table
    value: str | None = None


@dataclass(frozen=True)
class Repeat:
    """A count followed by rows of the same fields."""

    name: str
    table: Table


Item = str | Since | Until | When | Repeat
Table = tuple[Item, ...]


class Unreadable(Exception):
    """A message that doesn't fit its table: it has too few fields, or a number that is none."""


class Request(dict[str, Any]):
    """The fields of one request by name; numbers are read on demand."""

    def integer(self, name: str, default: int = 0) -> int:
        """A whole number; `default` when the field is empty. Raises Unreadable."""
        try:
            return int(self.get(name) or default)
        except ValueError:
            raise Unreadable(f"{name} must be a whole number, not {self[name]!r}") from None

    def number(self, name: str) -> float | None:
        """A number, None when the field is empty. Raises Unreadable."""
        text = self.get(name)
        if not text:
            return None
        try:
            return float(text)
        except ValueError:
            raise Unreadable(f"{name} must be a number, not {text!r}") from None

    def flag(self, name: str) -> bool:
        """A boolean."""
        return str(self.get(name, "")).lower() in ("1", "true")


def decode(table: Table, fields: list[str], version: int) -> Request:
    """Reads a message's fields by its table. Raises Unreadable when fields are missing."""
    request = Request()
    try:
        _read(table, iter(fields), version, request)
    except StopIteration:
        raise Unreadable(f"the message ends before its field number {len(request) + 1}") from None
    return request


def _read(table: Table, fields: Iterator[str], version: int, into: dict[str, Any]) -> None:
    for item in table:
        if isinstance(item, str):
            into[item] = next(fields)
        elif isinstance(item, Since):
            if version >= item.version:
                _read(item.table, fields, version, into)
        elif isinstance(item, Until):
            if version < item.version:
                _read(item.table, fields, version, into)
        elif isinstance(item, When):
            if _holds(item, into):
                _read(item.table, fields, version, into)
        else:
            rows = into[item.name] = []
            for _ in range(int(next(fields) or 0)):
                row: dict[str, Any] = {}
                _read(item.table, fields, version, row)
                rows.append(row)


def _holds(item: When, values: Mapping[str, Any]) -> bool:
    given = values.get(item.name)
    return given == item.value if item.value is not None else given not in NOTHING


def encode(table: Table, values: Mapping[str, Any], version: int) -> list[Any]:
    """The fields of a message by its table; what `values` lacks is sent empty."""
    fields: list[Any] = []
    _write(table, values, version, fields)
    return fields


def _write(table: Table, values: Mapping[str, Any], version: int, into: list[Any]) -> None:
    for item in table:
        if isinstance(item, str):
            into.append(values.get(item, ""))
        elif isinstance(item, Since):
            if version >= item.version:
                _write(item.table, values, version, into)
        elif isinstance(item, Until):
            if version < item.version:
                _write(item.table, values, version, into)
        elif isinstance(item, When):
            # A present but inactive delta-neutral order type is the word None, and its group is sent.
            if _holds(item, values) or values.get(item.name) == "None":
                _write(item.table, values, version, into)
        else:
            rows = values.get(item.name) or []
            into.append(len(rows))
            for row in rows:
                _write(item.table, row, version, into)


def text(value: Any) -> str:
    """One field as it is written."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


def frame(fields: Iterable[Any]) -> bytes:
    """A whole message, ready to be sent."""
    body = "".join(text(value) + "\0" for value in fields).encode()
    return HEADER.pack(len(body)) + body
