"""C050 to C069: trailing stops and brackets."""

from __future__ import annotations

from typing import Any

import pytest

from broker.errors import (
    InsufficientFunds,
    InvalidRequest,
    OrderNotCancellable,
    OrderNotReplaceable,
    UnsupportedOperation,
)
from broker.models import Order
from tests.conformance.desk import Book, Desk, eventually

WORKING = ("pending", "accepted", "submitted")
LEGS = {"take_profit_price": 220.0, "stop_loss_price": 180.0}


def bracket(desk: Desk, reference: str, **changes: Any) -> Order:
    """Five shares at the market, to be sold at 220 or 180. Every broker has brackets."""
    asked = desk.request(**({"order_type": "market", "limit_price": None, **LEGS} | changes))
    asked = desk.request(**(vars(asked) | {"client_order_id": reference}))
    return desk.broker.place_order(asked)


def become(desk: Desk, entry: Order, *statuses: tuple[str, ...] | str) -> None:
    """Wait until entry, take-profit and stop-loss have these statuses."""
    for number, wanted in zip((entry.id, *entry.legs), statuses, strict=True):
        desk.reaches(desk.broker.get_order(number), *((wanted,) if isinstance(wanted, str) else wanted))


def references(book: Book) -> dict[str, str]:
    return {row["order_ref"]: row["status"] for row in book.orders()}


@pytest.mark.parametrize(
    ("price", "ends", "way_out"),
    [(221.0, ("filled", "cancelled"), ".tp"), (179.0, ("cancelled", "filled"), ".sl")],
)
def test_c050_of_a_brackets_legs_one_closes_the_position(
    desk: Desk, book: Book, price: float, ends: tuple[str, str], way_out: str
) -> None:
    """C050 guards the whole of a bracket: three orders, two fills, nothing held, each fill its order's."""
    entry = bracket(desk, "C050")
    become(desk, entry, "filled", WORKING, WORKING)
    assert len(entry.legs) == 2
    assert {desk.broker.get_order(leg).parent_id for leg in entry.legs} == {entry.id}
    book.set_price("AAPL", price)
    become(desk, entry, "filled", *ends)
    eventually(lambda: book.positions() == {}, "the position is closed")
    told = eventually(lambda: len(f := desk.broker.get_fills()) == 2 and f, "both fills are told")
    assert {fill.client_order_id for fill in told} == {"C050", f"C050{way_out}"}
    assert len(desk.broker.get_orders_history()) == 3, "no leg is taken for somebody else's order"


def test_c051_a_bracket_repeated_is_the_same_bracket(desk: Desk, book: Book) -> None:
    """C051 guards against doubling three orders where one id was repeated."""
    first = bracket(desk, "C051", order_type="limit", limit_price=190.0)
    second = bracket(desk, "C051", order_type="limit", limit_price=190.0)
    assert (first.id, first.legs) == (second.id, second.legs)
    assert sorted(references(book)) == ["C051", "C051.sl", "C051.tp"]
    assert len(book.orders()) == 3
    desk.broker.cancel_order(first.id)


def test_c052_legs_wait_for_their_entry_and_end_with_it(desk: Desk, book: Book) -> None:
    """C052 guards against a leg that sells what was never bought."""
    entry = bracket(desk, "C052", order_type="limit", limit_price=190.0)
    become(desk, entry, WORKING, WORKING, WORKING)
    book.set_price("AAPL", 221.0)
    desk.broker.cancel_order(entry.id)
    become(desk, entry, "cancelled", "cancelled", "cancelled")
    assert book.positions() == {}
    assert set(references(book).values()) == {"Cancelled"}


def test_c053_a_refused_bracket_leaves_nothing(desk: Desk, book: Book) -> None:
    """C053 guards legs that outlive the refusal of their entry."""
    with pytest.raises(InsufficientFunds):
        bracket(desk, "C053", qty=900_000)
    entry = desk.broker.get_order_by_client_id("C053")
    become(desk, entry, "rejected", "rejected", "rejected")
    assert not set(references(book).values()) & {"PreSubmitted", "Submitted", "Filled"}


def test_c054_a_leg_can_be_replaced_and_its_quantity_cannot(desk: Desk, book: Book) -> None:
    """C054 guards moving a stop: the one change that everybody makes to a bracket."""
    entry = bracket(desk, "C054")
    become(desk, entry, "filled", WORKING, WORKING)
    _, loss = entry.legs
    with pytest.raises(InvalidRequest, match="qty"):
        desk.broker.replace_order(loss, qty=3)
    moved = desk.broker.replace_order(loss, stop_price=190.0)
    desk.reaches(moved, *WORKING)
    book.set_price("AAPL", 189.0)
    desk.reaches(moved, "filled")
    eventually(lambda: book.positions() == {}, "the position is closed")
    desk.reaches(desk.broker.get_order(entry.legs[0]), "cancelled")


def test_c055_cancelling_one_leg_ends_the_other(desk: Desk, book: Book) -> None:
    """C055 guards what a cancel of half a bracket means, the same for everybody: the entry's shares stay."""
    entry = bracket(desk, "C055")
    become(desk, entry, "filled", WORKING, WORKING)
    desk.broker.cancel_order(entry.legs[0])
    become(desk, entry, "filled", "cancelled", "cancelled")
    with pytest.raises((OrderNotCancellable, OrderNotReplaceable)):
        desk.broker.cancel_order(entry.legs[1])
    assert book.positions() == {"AAPL": 5}


def test_c056_closing_a_position_ends_its_bracket(desk: Desk, book: Book) -> None:
    """C056 guards against the leg that is left over and turns a closed position round."""
    entry = bracket(desk, "C056")
    become(desk, entry, "filled", WORKING, WORKING)
    with pytest.raises(InvalidRequest, match="qty"):
        desk.broker.close_position("AAPL", qty=2)
    desk.reaches(desk.broker.close_position("AAPL", client_order_id="C056-close"), "filled")
    become(desk, entry, "filled", "cancelled", "cancelled")
    book.set_price("AAPL", 221.0)
    assert book.positions() == {}


def test_c057_cancel_all_takes_brackets_along(desk: Desk, book: Book) -> None:
    """C057 guards the panic button: legs that end with their entry are no error."""
    resting = bracket(desk, "C057-a", order_type="limit", limit_price=190.0)
    filled = bracket(desk, "C057-b")
    become(desk, filled, "filled", WORKING, WORKING)
    desk.broker.cancel_all_orders()
    become(desk, resting, "cancelled", "cancelled", "cancelled")
    become(desk, filled, "filled", "cancelled", "cancelled")


def test_c058_a_bracket_outlives_its_connection(desk: Desk, book: Book) -> None:
    """C058 guards protection while nobody is connected, and that its end is known afterwards."""
    entry = bracket(desk, "C058")
    become(desk, entry, "filled", WORKING, WORKING)
    desk.broker.disconnect()
    desk.broker.connect()
    book.set_price("AAPL", 179.0)
    become(desk, entry, "filled", "cancelled", "filled")
    assert len(desk.broker.get_orders_history()) == 3


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_c059_legs_on_the_wrong_sides_are_refused(desk: Desk, side: str) -> None:
    """C059 guards against a bracket that would close at once: nothing leaves."""
    wrong = {"buy": (180.0, 220.0), "sell": (220.0, 180.0)}[side]
    before = len(desk.broker.get_orders_history())
    with pytest.raises(InvalidRequest):
        bracket(desk, "C059", side=side, take_profit_price=wrong[0], stop_loss_price=wrong[1])
    assert len(desk.broker.get_orders_history()) == before


@pytest.mark.parametrize("trail", [{"trail_amount": 5.0}, {"trail_percent": 2.5}], ids=str)
def test_c060_a_trailing_stop_follows_the_price_and_never_goes_back(
    desk: Desk, book: Book, trail: dict[str, float]
) -> None:
    """C060 guards the one order whose price nobody sends: it moves up with the price, and stays there."""
    desk.bought(5)
    asked = desk.request(
        side="sell", order_type="trailing_stop", limit_price=None, client_order_id="C060", **trail
    )
    if "trailing_stop" not in desk.broker.capabilities.order_types:
        with pytest.raises((InvalidRequest, UnsupportedOperation)):
            desk.broker.place_order(asked)
        return
    order = desk.reaches(desk.broker.place_order(asked), *WORKING)
    for price in (220.0, 240.0, 236.0):
        book.set_price("AAPL", price)
    assert desk.broker.get_order(order.id).status in WORKING, "236 is above both stops"
    book.set_price("AAPL", 233.0)
    filled = desk.reaches(order, "filled")
    assert (filled.order_type, filled.filled_qty) == ("trailing_stop", 5)
    assert [getattr(filled, name) for name in trail] == list(trail.values())


def test_c061_a_trailing_stop_needs_one_distance(desk: Desk) -> None:
    """C061 guards bad input: none, two, or a negative distance never leaves."""
    for trail in (
        {},
        {"trail_amount": 1.0, "trail_percent": 1.0},
        {"trail_amount": -1.0},
        {"trail_percent": 100},
    ):
        with pytest.raises(InvalidRequest):
            desk.broker.place_order(desk.request(order_type="trailing_stop", limit_price=None, **trail))
