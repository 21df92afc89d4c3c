"""The soak's judge finds what it is there to find: a clean report would say nothing otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from broker.models import Order, Status
from soak.judge import Tally, judge_fills, judge_orders, judge_positions


def row(**changes: Any) -> dict[str, Any]:
    """An order in the exchange's book: five shares, working."""
    known = {"order_ref": "x", "status": "Submitted", "filled": 0.0, "quantity": 5.0, "limit_price": 198.0}
    return known | changes


def order(**changes: Any) -> Order:
    """The same order in the journal."""
    known = {"id": "1", "symbol": "AAPL", "side": "buy", "qty": 5.0, "order_type": "limit"}
    return Order(
        **(known | {"status": Status.SUBMITTED, "limit_price": 198.0, "client_order_id": "x"} | changes)
    )


@pytest.mark.parametrize(
    ("rows", "journal", "claims", "found"),
    [
        ([row()], [order()], {"x": Status.SUBMITTED}, ""),
        ([row(), row()], [order()], {}, "duplicates"),
        ([row()], [], {}, "unjournalled"),
        ([row(status="Filled", filled=5.0)], [order(status=Status.SUBMITTED)], {}, "lost_fills"),
        ([row()], [order(status=Status.REJECTED)], {}, "false_rejections"),
        ([row()], [order()], {"x": Status.REJECTED}, "false_rejections"),
        ([row()], [order()], {"x": "unsent"}, "false_unsent"),
        ([row()], [order(status=Status.UNKNOWN)], {}, "unsettled"),
        ([row(limit_price=199.0)], [order()], {}, "unsettled"),
        ([row(quantity=6.0)], [order()], {}, "unsettled"),
        ([], [order()], {}, "phantoms"),
        ([], [order(status=Status.CANCELLED, filled_qty=1.0)], {}, "phantoms"),
        ([], [order(status=Status.SENT)], {}, "unsettled"),
        ([], [order(status=Status.UNKNOWN)], {}, ""),
        ([], [order(status=Status.REJECTED)], {}, ""),
    ],
)
def test_book_and_journal_are_compared(
    rows: list[dict[str, Any]], journal: list[Order], claims: dict[str, str], found: str
) -> None:
    tally = Tally()
    judge_orders(tally, rows, journal, claims)
    kinds = [words.partition(":")[0] for words in tally.violations]
    # A false rejection also leaves the order unsettled, where the journal says so.
    assert kinds[:1] == [found] * bool(found)
    assert set(kinds[1:]) <= {"unsettled"}


@pytest.mark.parametrize(
    ("told", "found"),
    [({"x": 5.0}, ""), ({"x": 3.0}, "lost_fills"), ({"x": 10.0}, "phantoms"), (None, "hung")],
)
def test_fills_are_counted_once(told: dict[str, float] | None, found: str) -> None:
    tally = Tally()
    judge_fills(tally, [{"order_ref": "x", "quantity": 2.0}, {"order_ref": "x", "quantity": 3.0}], told)
    assert [words.partition(":")[0] for words in tally.violations] == [found] * bool(found)


@pytest.mark.parametrize(
    ("told", "found"), [({"AAPL": 5.0}, ""), ({}, "false_empties"), ({"AAPL": 4.0}, "unsettled")]
)
def test_positions_are_compared(told: dict[str, float], found: str) -> None:
    tally = Tally()
    judge_positions(tally, {"AAPL": 5.0}, told)
    assert [words.partition(":")[0] for words in tally.violations] == [found] * bool(found)
