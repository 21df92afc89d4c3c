"""Filters of the Logging query language: read them, refuse wrong ones, and ask whether an entry matches.

What is read is what the language's page calls comparisons, joined by AND, OR and NOT, with parentheses
(cloud.google.com/logging/docs/view/logging-query-language): `field OP value` with =, !=, :, =~, !~, <, <=, >
and >=. Functions and bare words, which search everywhere, aren't.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Match = Callable[[Mapping[str, Any]], bool]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<paren>[()])
      | (?P<word>AND|OR|NOT)\b
      | (?P<field>[A-Za-z_][\w.]*)\s*(?P<op>=~|!~|!=|<=|>=|[=:<>])\s*
        (?P<value>"(?:[^"\\]|\\.)*"|[\w.+/-]+)
    )\s*""",
    re.VERBOSE,
)
_SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
_ROOTS = frozenset(
    ("resource", "severity", "logName", "labels", "jsonPayload", "textPayload", "protoPayload", "httpRequest")
)


class FilterError(ValueError):
    """The filter can't be read; the message says where."""


def compiled(text: str) -> Match:
    """A filter as a function of a log entry (as the API writes entries). Raises FilterError."""
    tokens = list(_tokens(text))
    if not tokens:
        raise FilterError("the filter is empty")
    match, rest = _any(tokens)
    if rest:
        raise FilterError(f"unexpected {rest[0][0]!r}")
    return match


def _tokens(text: str) -> Iterator[tuple[str, ...]]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise FilterError(f"syntax error at column {at + 1}: {text[at : at + 20]!r}")
        at = found.end()
        if found["field"]:
            yield _comparison(found["field"], found["op"], found["value"])
        else:
            yield (found["paren"] or found["word"],)


def _comparison(field: str, op: str, value: str) -> tuple[str, ...]:
    if field.partition(".")[0] not in _ROOTS:
        raise FilterError(f"a log entry has no field {field!r}")
    plain = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') and "~" not in op else value
    if "~" in op:
        plain = plain[1:-1].replace('\\"', '"') if plain.startswith('"') else plain
        try:
            re.compile(plain)
        except re.error as wrong:
            raise FilterError(f"{plain!r} isn't a regular expression: {wrong}") from None
    if field == "severity" and plain.upper() not in _SEVERITIES:
        raise FilterError(f"{plain!r} isn't a severity")
    return ("compare", field, op, plain)


_Tokens = list[tuple[str, ...]]


def _any(tokens: _Tokens) -> tuple[Match, _Tokens]:
    matches = []
    while True:
        match, tokens = _all(tokens)
        matches.append(match)
        if not tokens or tokens[0] != ("OR",):
            return lambda entry: any(m(entry) for m in matches), tokens
        tokens = tokens[1:]


def _all(tokens: _Tokens) -> tuple[Match, _Tokens]:
    matches = []
    while True:
        match, tokens = _one(tokens)
        matches.append(match)
        if tokens and tokens[0] == ("AND",):
            tokens = tokens[1:]
        elif not tokens or tokens[0] in ((")",), ("OR",)):
            return lambda entry: all(m(entry) for m in matches), tokens
        # else: two comparisons beside each other mean AND


def _one(tokens: _Tokens) -> tuple[Match, _Tokens]:
    if not tokens:
        raise FilterError("something is missing at the end")
    first, rest = tokens[0], tokens[1:]
    if first == ("NOT",):
        inner, rest = _one(rest)
        return lambda entry: not inner(entry), rest
    if first == ("(",):
        inner, rest = _any(rest)
        if not rest or rest[0] != (")",):
            raise FilterError("a parenthesis isn't closed")
        return inner, rest[1:]
    if first[0] != "compare":
        raise FilterError(f"unexpected {first[0]!r}")
    _, field, op, value = first
    return lambda entry: _holds(_value(entry, field), op, value), rest


def _value(entry: Mapping[str, Any], field: str) -> Any:
    found: Any = entry
    for part in field.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _holds(found: Any, op: str, value: str) -> bool:
    if isinstance(found, list):
        return any(_holds(item, op, value) for item in found)
    if op in ("!=", "!~"):
        # A field that isn't there equals nothing.
        return not _holds(found, op[1:] if op == "!=" else "=~", value)
    if found is None:
        return False
    text = str(found).lower() if isinstance(found, bool) else str(found)
    if op == "=~":
        return re.search(value, text) is not None
    if op == ":":
        return value.casefold() in text.casefold()
    if op == "=":
        return text.casefold() == value.casefold()
    left, right = _ordered(text), _ordered(value)
    if left is None or right is None:
        return False
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[op]


def _ordered(text: str) -> float | None:
    if text.upper() in _SEVERITIES:
        return float(_SEVERITIES.index(text.upper()))
    try:
        return float(text)
    except ValueError:
        return None
