"""What the gateway's answers mean: numbers that are text, statuses, and the shapes of a 200."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.brokers.client_portal.questions import Question
from broker.models import OrderReport, Status

Json = dict[str, Any]

_NUMBER = re.compile(r"[-+]?(\d[\d,]*\.?\d*|\.\d+)")

_STATUS = {
    "PendingSubmit": Status.PENDING,
    "PreSubmitted": Status.ACCEPTED,
    "Submitted": Status.SUBMITTED,
    "Filled": Status.FILLED,
    "PendingCancel": Status.PENDING_CANCEL,
    "PreCancelled": Status.PENDING_CANCEL,
    "Cancelled": Status.CANCELLED,
    "Inactive": Status.INACTIVE,
    "WarnState": Status.INACTIVE,  # held back until somebody looks at its warning
}


def number(value: Any) -> float | None:
    """`"1,300"`, `"C168.42"`, `12.5`, `"1,042.16 USD (5 Shares)"` as a number; None where there is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value) if math.isfinite(value) else None
    found = _NUMBER.search(str(value))
    return float(found.group().replace(",", "")) if found else None


def is_no_session(text: str) -> bool:
    """Words of an answer that say that there is no brokerage session, so nothing was done."""
    words = text.lower()
    return "no bridge" in words or "no session" in words or "not authenticated" in words


def asks_for_accounts(text: str) -> bool:
    """Words that say that /accounts must be asked first; nothing was done."""
    return "query /accounts" in text.lower() or "query /iserver/accounts" in text.lower()


@dataclass(frozen=True)
class Taken:
    """IBKR took the order. Of a bracket: `order_ids` of all that it took, `refused` if not all of it."""

    order_id: str
    status: str
    order_ids: tuple[str, ...] = ()
    refused: str = ""
    #: what was asked first, and confirmed: `o163: The following order exceeds ...`
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """IBKR said no."""

    text: str


def order_answer(data: Any) -> Taken | Question | Refusal | None:
    """The shapes of a 200 to an order or a reply. None: it tells neither yes nor no.

    [{"order_id": "1370093239", "order_status": "PreSubmitted"}]
    [{"id": "07a13a5a", "message": ["... Are you sure ...?"], "isSuppressed": false, "messageIds": ["o163"]}]
    {"error": "We cannot accept an order at the limit price you selected..."}
    {"prompt": true, ...} is something that only a person at IBKR's own screen can answer
    """
    rows = data if isinstance(data, list) else [data]
    rows = [row for row in rows if isinstance(row, Mapping)]
    taken = [row for row in rows if row.get("order_id") not in (None, "")]
    if taken:
        refused = next((str(row["error"])[:500] for row in rows if row.get("error")), "")
        numbers = tuple(str(row["order_id"]) for row in taken)
        return Taken(numbers[0], str(taken[0].get("order_status") or ""), numbers, refused)
    for row in rows:
        if row.get("error"):
            return Refusal(str(row["error"])[:500])
        if row.get("id") and row.get("message"):
            said = row["message"]
            text = " ".join(map(str, said)) if isinstance(said, list) else str(said)
            ids = row.get("messageIds") or []
            return Question(str(row["id"]), text, tuple(map(str, ids)))
    return None


def status_of(word: str, filled: float, ended: bool = False) -> str:
    """Our status of an order. A word that isn't known is `unknown`, never a guess."""
    status = _STATUS.get(word, Status.UNKNOWN)
    if status == Status.INACTIVE and ended:
        return Status.REJECTED
    if status in (Status.SUBMITTED, Status.ACCEPTED) and filled > 0:
        return Status.PARTIALLY_FILLED
    return status


def report_of_status(shown: Json) -> OrderReport:
    """An answer of /iserver/account/order/status, where numbers are text.

    {"order_id": 13, "order_status": "Filled", "cum_fill": "5.0", "average_price": "192.26", "side": "S"}
    """
    word, filled = str(shown.get("order_status") or ""), number(shown.get("cum_fill")) or 0.0
    ended = bool(shown.get("cannot_cancel_order")) and bool(shown.get("order_not_editable"))
    status = status_of(word, filled, ended)
    reason = str(shown.get("order_status_description") or "") if status == Status.REJECTED else ""
    return OrderReport(
        status=status,
        broker_status=word,
        filled_qty=filled,
        filled_price=number(shown.get("average_price")) if filled else None,
        broker_order_id=str(shown["order_id"]),
        permanent_id=str(shown["order_id"]),
        reason=reason or None,
    )


def report_of_row(row: Json) -> OrderReport:
    """A row of /iserver/account/orders, or of the websocket's `sor`; it may hold only what changed.

    {"acct": "DU1", "orderId": 13, "ticker": "AAPL", "side": "BUY", "status": "Submitted",
     "filledQuantity": 2.0, "totalSize": 5.0, "avgPrice": "200.01", "order_ref": "x"}
    """
    word, filled = str(row.get("status") or ""), number(row.get("filledQuantity")) or 0.0
    return OrderReport(
        status=status_of(word, filled),
        broker_status=word,
        filled_qty=filled,
        filled_price=number(row.get("avgPrice")) if filled else None,
        broker_order_id=str(row["orderId"]),
        permanent_id=str(row["orderId"]),
    )
