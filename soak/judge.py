"""What must never happen, decided by the exchange's own book."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from broker.models import Order, Status

#: the exchange's words for an order that lives
LIVE = frozenset({"PreSubmitted", "Submitted"})
#: smaller differences of quantities are binary dust
DUST = 1e-6
_OURS = {
    "Filled": frozenset({Status.FILLED}),
    "Cancelled": frozenset({Status.CANCELLED, Status.EXPIRED}),
    # Refused by the exchange. If the answer got lost, front ends that don't list refused orders leave
    # it unknown, and that is the truth.
    "Inactive": frozenset({Status.REJECTED, Status.INACTIVE, Status.CANCELLED, Status.UNKNOWN}),
    "PreSubmitted": frozenset({Status.PENDING, Status.ACCEPTED, Status.SUBMITTED}),
    "Submitted": frozenset(
        {Status.PENDING, Status.ACCEPTED, Status.SUBMITTED, Status.PARTIALLY_FILLED, Status.INACTIVE}
    ),
}
#: our statuses that say that the broker has the order
_HELD = frozenset(
    {
        Status.PENDING,
        Status.ACCEPTED,
        Status.SUBMITTED,
        Status.PARTIALLY_FILLED,
        Status.PENDING_CANCEL,
        Status.FILLED,
    }
)
#: statuses that say that nothing of the order is left to trade
_DEAD = frozenset({Status.REJECTED, Status.CANCELLED, Status.EXPIRED})


def shares(values: dict[str, float]) -> dict[str, float]:
    """Quantities without binary dust."""
    return {symbol: round(qty, 6) for symbol, qty in values.items()}


@dataclass
class Tally:
    """What one schedule came to. The first block must stay 0; `violations` says it in words."""

    duplicates: int = 0
    lost_fills: int = 0
    phantoms: int = 0
    false_rejections: int = 0
    false_empties: int = 0
    false_unsent: int = 0
    unjournalled: int = 0
    unsettled: int = 0
    hung: int = 0

    orders: int = 0
    in_book: int = 0
    fills: int = 0
    crashes: int = 0
    faults: int = 0
    unknown: int = 0
    unknown_in_book: int = 0
    unknown_settled: int = 0
    longest_recovery: float = 0.0
    violations: list[str] = field(default_factory=list)

    def violated(self, what: str, words: str) -> None:
        """Count one."""
        setattr(self, what, getattr(self, what) + 1)
        self.violations.append(f"{what}: {words}")


MUST_BE_ZERO = (
    "duplicates",
    "lost_fills",
    "phantoms",
    "false_rejections",
    "false_empties",
    "false_unsent",
    "unjournalled",
    "unsettled",
    "hung",
)


def agrees(row: dict[str, Any], order: Order | None) -> bool:
    """Whether the journal says of an order what the book says."""
    if order is None:
        return False
    same = order.status in _OURS[row["status"]] and abs(order.filled_qty - row["filled"]) < DUST
    return same and (row["status"] not in LIVE or terms(row) in ({}, _terms_of(order)))


def terms(row: dict[str, Any]) -> dict[str, float | None]:
    """The quantity and price of a working order; {} where the book doesn't fix them (notional orders)."""
    if "quantity" not in row or row.get("notional") is not None:
        return {}
    return {"qty": row["quantity"], "limit_price": row["limit_price"]}


def _terms_of(order: Order) -> dict[str, float | None]:
    return {"qty": order.qty, "limit_price": order.limit_price}


def by_reference(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The book's orders by client order id; those that replaced one under the same id aren't a second one."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["order_ref"]:
            found.setdefault(row["order_ref"], []).append(row)
    return {
        reference: [row for row in same if not (row.get("replaced_by") and len(same) > 1)]
        for reference, same in found.items()
    }


def judge_orders(
    tally: Tally,
    rows: list[dict[str, Any]],
    journal: list[Order],
    claims: dict[str, str],
    *,
    complete: bool = True,
) -> None:
    """Compare the book with the journal and with what callers were told, once everything is calm.

    `claims`: by client order id, what the last call that placed it ended in: a status, or `unsent`.
    `complete`: the book holds orders that ended, too.
    """
    held = by_reference(rows)
    known: dict[str, Order] = {order.client_order_id: order for order in journal}
    times = Counter(order.client_order_id for order in journal)
    tally.in_book = len(rows)
    for reference, same in held.items():
        if len(same) > 1:
            tally.violated("duplicates", f"{reference} stands {len(same)} times in the book")
        if times[reference] != 1:
            tally.violated("unjournalled", f"{reference} stands {times[reference]} times in the journal")
            continue
        _judge_one(tally, same[-1], known[reference], claims.get(reference, ""))
    for order in journal:
        _judge_absent(tally, order, order.client_order_id in held, complete)


def _judge_absent(tally: Tally, order: Order, in_book: bool, complete: bool) -> None:
    """An order that the journal has and the book hasn't: never one that works, filled, or may still leave."""
    if in_book or (not complete and order.status == Status.FILLED):
        return
    said = f"{order.client_order_id}: the journal says {order.status} with {order.filled_qty:g} filled"
    if order.status in _HELD or order.filled_qty:
        tally.violated("phantoms", f"{said}, and the book has no such order")
    elif order.status == Status.SENT:
        tally.violated("unsettled", f"{said}, and the book has no such order: what became of it isn't told")


def _judge_one(tally: Tally, row: dict[str, Any], order: Order, claim: str) -> None:
    said = f"{order.client_order_id}: the book says {row['status']} with {row['filled']:g} filled"
    said += f", {terms(row)}" if row["status"] in LIVE else ""
    shown = f"the journal {order.status} with {order.filled_qty:g} filled, {_terms_of(order)}"
    shown += f" ({order.reason or 'no reason'})"
    alive = row["status"] in LIVE or row["status"] == "Filled"
    if alive and (order.status in _DEAD or claim == Status.REJECTED):
        tally.violated("false_rejections", f"{said}, {shown}; the caller was told {claim or 'nothing'}")
    if claim == "unsent":
        tally.violated("false_unsent", f"{said}, and the caller was told that nothing was sent")
    if row["filled"] - order.filled_qty > DUST:
        tally.violated("lost_fills", f"{said}, {shown}")
    elif not agrees(row, order):
        tally.violated("unsettled", f"{said}, {shown}")


def judge_fills(
    tally: Tally, executions: list[dict[str, Any]], fills: dict[str, float] | None, *, complete: bool = True
) -> None:
    """Every fill of the book must be reported once, by its order's client order id.

    `fills`: shares by that id, None if the broker couldn't be asked. `complete`: no execution is missing.
    """
    if fills is None:
        tally.violated("hung", "get_fills() raised though everything had come to rest")
        return
    traded: Counter[str] = Counter()
    for row in executions:
        if row["order_ref"]:
            traded[row["order_ref"]] += row["quantity"]
    for reference in {**traded, **fills} if complete else traded:
        shares, told = traded[reference], fills.get(reference, 0.0)
        if abs(shares - told) > DUST:
            what = "lost_fills" if shares > told else "phantoms"
            tally.violated(what, f"{reference} traded {shares:g}, and get_fills() tells {told:g}")


def judge_positions(tally: Tally, held: dict[str, float], told: dict[str, float]) -> None:
    """Positions of the book and of the broker, once everything is calm."""
    if held and not told:
        tally.violated("false_empties", f"the account holds {held}, and get_positions() is empty")
    elif shares(held) != shares(told):
        tally.violated("unsettled", f"the account holds {held}, and get_positions() tells {told}")
