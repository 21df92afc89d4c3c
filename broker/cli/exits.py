"""Exit codes, and what an error looks like to a program."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, is_dataclass
from datetime import datetime
from enum import IntEnum
from math import isfinite
from typing import Any

from broker import errors
from broker.errors import BrokerError


class Exit(IntEnum):
    """What a command ended in. A script may rely on the numbers."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_CONNECTED = 3
    REJECTED = 4
    OUTCOME_UNKNOWN = 5
    NOT_ALLOWED = 6
    NOT_FOUND = 7
    COME_BACK_LATER = 8
    NOT_CONFIRMED = 9
    UNSUPPORTED = 10
    INTERRUPTED = 130


#: for `--help` and the documentation
MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILED: "a failure of this program or an answer that makes no sense",
    Exit.USAGE: "the command, the order or a setting is wrong; nothing was sent",
    Exit.NOT_CONNECTED: "the broker can't be reached or isn't logged in; nothing was sent",
    Exit.REJECTED: "the broker said no",
    Exit.OUTCOME_UNKNOWN: "an order was sent and nobody knows what became of it: look, don't repeat",
    Exit.NOT_ALLOWED: "a limit, the kill switch, the live lock or the paper/live guard; nothing was sent",
    Exit.NOT_FOUND: "no such order",
    Exit.COME_BACK_LATER: "a rate limit is used up, or there is no price now",
    Exit.NOT_CONFIRMED: "a live order, or a gateway's new certificate, wasn't confirmed; nothing was sent",
    Exit.UNSUPPORTED: "this broker can't do that",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}


class NotConfirmed(BrokerError):
    """A live order wasn't confirmed, and nothing was sent. Confirm it at the terminal, or give --yes."""

    kind = "not-confirmed"


class UsageError(BrokerError):
    """The command line is wrong and nothing was sent. See `python -m broker COMMAND --help`."""

    kind = "usage"


#: the first that fits decides
_EXITS: tuple[tuple[type[BrokerError], Exit], ...] = (
    (errors.OrderOutcomeUnknown, Exit.OUTCOME_UNKNOWN),
    (errors.PaperLiveMismatch, Exit.NOT_ALLOWED),
    (errors.LiveLocked, Exit.NOT_ALLOWED),
    (errors.Halted, Exit.NOT_ALLOWED),
    (errors.LimitExceeded, Exit.NOT_ALLOWED),
    (errors.OrderRejected, Exit.REJECTED),
    (errors.OrderNotCancellable, Exit.REJECTED),
    (errors.OrderNotReplaceable, Exit.REJECTED),
    (errors.OrderNotFound, Exit.NOT_FOUND),
    (errors.RateLimited, Exit.COME_BACK_LATER),
    (errors.MarketDataUnavailable, Exit.COME_BACK_LATER),
    (errors.UnsupportedOperation, Exit.UNSUPPORTED),
    (errors.NotConnected, Exit.NOT_CONNECTED),
    (errors.InvalidRequest, Exit.USAGE),
    (errors.DuplicateClientOrderId, Exit.USAGE),
    (errors.ConfigurationError, Exit.USAGE),
    (UsageError, Exit.USAGE),
    (NotConfirmed, Exit.NOT_CONFIRMED),
)


def exit_of(failure: BrokerError) -> Exit:
    """The exit code of an error."""
    return next((code for kind, code in _EXITS if isinstance(failure, kind)), Exit.FAILED)


def advice(failure: BrokerError) -> str:
    """What the caller does next: the first paragraph of the error's own documentation."""
    return " ".join((inspect.getdoc(type(failure)) or "").partition("\n\n")[0].split())


def error_document(failure: BrokerError) -> dict[str, Any]:
    """The one document that `--json` prints for a failed command."""
    members = {name: value for name, value in vars(failure).items() if name not in ("message", "args")}
    return {
        "error": {"kind": failure.kind, "message": failure.message, "exit_code": int(exit_of(failure))}
        | {"advice": advice(failure)}
        | {name: plain(value) for name, value in members.items() if not name.startswith("_")}
    }


def plain(value: Any) -> Any:
    """A value as JSON can hold it: data classes as objects, times as ISO 8601, no NaN."""
    if is_dataclass(value) and not isinstance(value, type):
        extra = {"age_seconds": round(value.age_seconds, 3)} if hasattr(value, "age_seconds") else {}
        return {name: plain(part) for name, part in asdict(value).items()} | extra
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | bool) or value is None else str(value)


def as_json(document: Any, indent: int | None = 2) -> str:
    """A document as text."""
    return json.dumps(plain(document), indent=indent, allow_nan=False)
