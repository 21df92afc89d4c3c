"""C001 to C049: placing, identity, cancelling, replacing."""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import Any

import pytest

from broker.errors import (
    BrokerError,
    DuplicateClientOrderId,
    InsufficientFunds,
    InvalidRequest,
    OrderNotCancellable,
    OrderNotFound,
    OrderNotReplaceable,
    UnknownSymbol,
    UnsupportedOperation,
)
from broker.models import ACKNOWLEDGED_STATUSES, Status
from tests.conformance.desk import Book, Desk, eventually

WORKING = ("pending", "accepted", "submitted")


def test_c001_a_market_order_trades(desk: Desk, book: Book) -> None:
    """C001 guards that an order is one order: one in the book, filled, with its price and our ids."""
    order = desk.bought(5)
    assert (order.filled_qty, order.symbol, order.side) == (5, "AAPL", "buy")
    assert order.filled_price is not None
    assert 190 < order.filled_price < 210
    rows = [row for row in book.orders() if row["order_ref"] == order.client_order_id]
    assert [(row["status"], row["filled"]) for row in rows] == [("Filled", 5)]


def test_c002_a_limit_order_rests(desk: Desk) -> None:
    """C002 guards that a resting order is shown as living, with its own numbers and the broker's."""
    order = desk.rest("C002")
    assert order.status in ACKNOWLEDGED_STATUSES
    found = desk.reaches(order, "accepted", "submitted")
    assert (found.qty, found.limit_price, found.filled_qty) == (5, desk.resting_price, 0)
    assert found.client_order_id == "C002"
    assert found.broker_order_id
    assert found.id not in (found.broker_order_id, found.permanent_id), "Order.id is ours, not the broker's"
    desk.broker.cancel_order(order.id)


def test_c003_the_same_id_is_the_same_order(desk: Desk, book: Book) -> None:
    """C003 guards against duplicates: a caller that repeats its call after a crash gets the first order."""
    first = desk.rest("C003")
    assert desk.rest("C003").id == first.id
    assert len([row for row in book.orders() if row["order_ref"] == "C003"]) == 1


def test_c004_the_same_id_with_another_body_is_refused(desk: Desk) -> None:
    """C004 guards against a programming error: an id that names an order can't name another one."""
    order = desk.rest("C004")
    with pytest.raises(DuplicateClientOrderId) as refused:
        desk.rest("C004", qty=6)
    assert refused.value.existing.id == order.id
    desk.broker.cancel_order(order.id)


def test_c005_many_threads_with_one_id_send_one_order(desk: Desk, book: Book) -> None:
    """C005 guards the compare-and-set in the journal: whoever comes first sends, the others wait."""
    found: list[str] = []

    def place() -> None:
        found.append(desk.rest("C005").id)

    threads = [threading.Thread(target=place) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len([row for row in book.orders() if row["order_ref"] == "C005"]) == 1


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("qty", {"qty": 0}),
        ("qty", {"qty": -1}),
        ("qty", {"qty": float("nan")}),
        ("qty", {"qty": float("inf")}),
        ("qty", {"qty": 10**9}),
        ("side", {"side": "bye"}),
        ("symbol", {"symbol": "AA PL"}),
        ("symbol", {"symbol": ""}),
        ("limit_price", {"limit_price": -1.0}),
        ("limit_price", {"limit_price": float("nan")}),
        ("limit_price", {"limit_price": None}),
        ("order_type", {"order_type": "limti"}),
        ("time_in_force", {"time_in_force": "forever"}),
        ("client_order_id", {"client_order_id": "has spaces"}),
    ],
)
def test_c006_bad_input_is_refused_with_its_field(desk: Desk, field: str, changes: dict[str, Any]) -> None:
    """C006 guards that nonsense never leaves: the message names the field, and the journal has no order."""
    before = len(desk.broker.get_orders_history())
    with pytest.raises(InvalidRequest) as refused:
        desk.broker.place_order(desk.request(**changes))
    assert field in [problem.field for problem in refused.value.problems]
    assert len(desk.broker.get_orders_history()) == before


def test_c007_a_symbol_that_does_not_exist_is_said(desk: Desk) -> None:
    """C007 guards that a misspelt symbol is an error of its own, not a rejection by the exchange."""
    with pytest.raises(UnknownSymbol):
        desk.broker.place_market_order("ZZZQQ", 1, "buy")


def test_c008_an_order_that_cannot_be_paid_for_says_so(desk: Desk, book: Book) -> None:
    """C008 guards the kind of a refusal: no money is told apart from every other no."""
    with pytest.raises(InsufficientFunds) as refused:
        desk.broker.place_market_order(desk.symbol, 900_000, "buy")
    assert refused.value.reason
    assert not book.positions()


def test_c009_the_plan_s_calls_work_unchanged(desk: Desk) -> None:
    """C009 guards callers that were written against the migration plan: positional arguments, no ids."""
    order = desk.broker.place_limit_order(desk.symbol, 1, "buy", desk.resting_price)
    assert order.client_order_id, "a fresh one is made"
    assert desk.broker.cancel_order(order.id) is True


def test_c010_an_order_is_found_by_both_ids(desk: Desk) -> None:
    """C010 guards looking up after a crash: the caller may know only the id that it chose itself."""
    order = desk.rest("C010")
    assert desk.broker.get_order(order.id).client_order_id == "C010"
    assert desk.broker.get_order_by_client_id("C010").id == order.id
    for unknown in ("no-such-id", "0" * 32, "\x00"):
        with pytest.raises(OrderNotFound):
            desk.broker.get_order(unknown)
    with pytest.raises(OrderNotFound):
        desk.broker.get_order_by_client_id("C010-other")
    desk.broker.cancel_order(order.id)


def test_c011_history_is_newest_first_and_limited(desk: Desk) -> None:
    """C011 guards the order and the length of a list that people page through."""
    placed = [desk.rest(f"C011-{n}") for n in range(3)]
    told = [order.client_order_id for order in desk.broker.get_orders_history(2)]
    assert told == ["C011-2", "C011-1"]
    for order in placed:
        desk.broker.cancel_order(order.id)


def test_c012_a_cancelled_order_ends(desk: Desk) -> None:
    """C012 guards that True means that the cancel is on its way or done, and that a second one is refused."""
    order = desk.rest("C012")
    assert desk.broker.cancel_order(order.id) is True
    ended = desk.reaches(order, "cancelled")
    assert ended.filled_qty == 0
    with pytest.raises(OrderNotCancellable):
        desk.broker.cancel_order(order.id)


def test_c013_a_filled_order_cannot_be_cancelled(desk: Desk, book: Book) -> None:
    """C013 guards the race that every trader meets: the error says that it was filled."""
    order = desk.bought(1)
    with pytest.raises(OrderNotCancellable, match="filled"):
        desk.broker.cancel_order(order.id)
    assert book.positions() == {"AAPL": 1}


def test_c014_cancelling_what_is_not_there_says_so(desk: Desk) -> None:
    """C014 guards that an unknown id is never taken for a cancelled order."""
    with pytest.raises(OrderNotFound):
        desk.broker.cancel_order("0" * 32)


def test_c015_cancel_all_ends_every_working_order(desk: Desk, book: Book) -> None:
    """C015 guards the panic button."""
    placed = [desk.rest(f"C015-{n}") for n in range(3)]
    assert {o.client_order_id for o in desk.broker.cancel_all_orders()} == {f"C015-{n}" for n in range(3)}
    for order in placed:
        desk.reaches(order, "cancelled")
    assert {row["status"] for row in book.orders()} == {"Cancelled"}
    assert desk.broker.cancel_all_orders() == []


def test_c016_a_price_can_be_replaced(desk: Desk) -> None:
    """C016 guards replacing: one living order with the new price, found by the id that is returned."""
    order = desk.rest("C016")
    lower = round(desk.resting_price - 1, 2)
    if not desk.broker.capabilities.replace:
        with pytest.raises(UnsupportedOperation):
            desk.broker.replace_order(order.id, limit_price=lower)
        return
    changed = desk.broker.replace_order(order.id, limit_price=lower)
    found = eventually(
        lambda: (o := desk.broker.get_order(changed.id)).limit_price == lower and o.status in WORKING and o,
        "the changed order works",
    )
    assert found.id == order.id or found.replaces == order.id
    working = [o for o in desk.broker.get_orders_history() if o.status in WORKING]
    assert [o.id for o in working] == [changed.id], "never two of them"
    desk.broker.cancel_order(changed.id)


def test_c017_a_final_order_cannot_be_replaced(desk: Desk) -> None:
    """C017 guards against replacing a dead order by a new living one."""
    order = desk.rest("C017")
    desk.broker.cancel_order(order.id)
    desk.reaches(order, "cancelled")
    with pytest.raises((OrderNotReplaceable, UnsupportedOperation)):
        desk.broker.replace_order(order.id, limit_price=desk.resting_price - 1)


@pytest.mark.parametrize(
    ("order_type", "prices"),
    [
        ("stop", {"stop_price": 240.0}),
        ("stop_limit", {"stop_price": 240.0, "limit_price": 241.0}),
        ("trailing_stop", {"trail_percent": 5.0}),
    ],
)
def test_c018_an_order_type_works_or_is_refused_before_it_leaves(
    desk: Desk, book: Book, order_type: str, prices: dict[str, float]
) -> None:
    """C018 guards that capabilities tell the truth: what is named rests, what isn't never leaves."""
    asked = desk.request(order_type=order_type, client_order_id="C018", **({"limit_price": None} | prices))
    if order_type not in desk.broker.capabilities.order_types:
        with pytest.raises((InvalidRequest, UnsupportedOperation)):
            desk.broker.place_order(asked)
        assert book.orders() == []
        return
    order = desk.reaches(desk.broker.place_order(asked), *WORKING)
    assert order.order_type == order_type
    assert order.filled_qty == 0
    desk.broker.cancel_order(order.id)
    desk.reaches(order, "cancelled")


def test_c019_a_stop_order_wakes_at_its_price(desk: Desk, book: Book) -> None:
    """C019 guards the plan's way out of a position: a stop sells once the price has fallen to it."""
    desk.bought(5)
    if "stop" not in desk.broker.capabilities.order_types:
        with pytest.raises((InvalidRequest, UnsupportedOperation)):
            desk.broker.place_stop_order(desk.symbol, 5, "sell", 190.0)
        return
    stop = desk.broker.place_stop_order(desk.symbol, 5, "sell", 190.0)
    book.set_price("AAPL", 189.0)
    desk.reaches(stop, "filled")
    eventually(lambda: book.positions() == {}, "the position is closed")


def test_c020_a_limit_order_fills_when_the_price_comes(desk: Desk, book: Book) -> None:
    """C020 guards that a fill long after the answer is noticed without being asked for."""
    order = desk.rest("C020")
    book.set_price("AAPL", desk.resting_price - 5)
    found = desk.reaches(order, "filled")
    assert found.filled_qty == 5
    assert found.filled_price is not None
    assert found.filled_price <= desk.resting_price


def test_c021_an_amount_of_money_works_or_is_refused(desk: Desk, book: Book) -> None:
    """C021 guards notional orders: only where the broker takes them."""
    asked = desk.request(
        order_type="market",
        limit_price=None,
        qty=0,
        notional=500.0,
        time_in_force="day",
        client_order_id="C021",
    )
    if not desk.broker.capabilities.notional:
        with pytest.raises((InvalidRequest, UnsupportedOperation)):
            desk.broker.place_order(asked)
        assert book.orders() == []
        return
    found = desk.reaches(desk.broker.place_order(asked), "filled")
    assert found.filled_price is not None
    assert found.filled_qty * found.filled_price == pytest.approx(500, rel=0.01)


def test_c022_half_a_share_works_or_is_refused(desk: Desk, book: Book) -> None:
    """C022 guards fractions: never rounded, never sent where they aren't taken."""
    if not desk.broker.capabilities.fractional:
        with pytest.raises(InvalidRequest, match="qty"):
            desk.broker.place_market_order(desk.symbol, 0.5, "buy")
        assert book.orders() == []
        return
    assert desk.bought(0.5).filled_qty == 0.5
    assert book.positions() == {"AAPL": 0.5}


def test_c023_after_disconnect_no_answer_is_empty(desk: Desk, book: Book) -> None:
    """C023 guards against empty answers: a broker that isn't connected says so, or still tells the truth."""
    order = desk.bought(1)
    eventually(desk.broker.get_positions, "the position is shown")
    desk.broker.disconnect()
    for call in (desk.broker.get_positions, desk.broker.get_orders_history):
        # Alpaca's broker holds no connection: every call is a request of its own.
        with contextlib.suppress(BrokerError):
            assert call(), f"{book.positions()} is held, and {order.id} was placed"


def test_c024_an_order_outlives_its_connection(desk: Desk) -> None:
    """C024 guards that going away cancels nothing, and that coming back knows the order."""
    order = desk.reaches(desk.rest("C024"), *WORKING)
    desk.broker.disconnect()
    desk.broker.connect()
    assert desk.reaches(order, *WORKING).status != Status.UNKNOWN
    desk.broker.cancel_order(order.id)
    desk.reaches(order, "cancelled")


def test_c025_a_cancelled_orders_whole_life_is_told(desk: Desk) -> None:
    """C025 guards the timeline: every status once and in order, and that it was we who asked to cancel."""
    order = desk.reaches(desk.rest("C025"), *WORKING)
    desk.broker.cancel_order(order.id)
    desk.reaches(order, "cancelled")
    life = desk.broker.get_order_timeline(order.id)
    statuses = [entry.status for entry in life.entries if entry.status is not None]
    assert statuses[0] == Status.SENT
    assert statuses[-2:] == [Status.PENDING_CANCEL, Status.CANCELLED]
    assert {Status.PENDING, Status.ACCEPTED, Status.SUBMITTED} & set(statuses)
    assert all(one != after for one, after in itertools.pairwise(statuses)), "a repeated status is none"
    assert [entry.at for entry in life.entries] == sorted(entry.at for entry in life.entries)
    assert life.complete
    assert life.order.status == Status.CANCELLED
    again = desk.broker.get_order_timeline(order.id)
    assert again == life, "reading writes nothing"


def test_c026_a_filled_orders_life_has_its_executions_and_their_cost(desk: Desk, book: Book) -> None:
    """C026 guards that what was paid can be told from what was filled, execution by execution."""
    order = desk.bought(5)

    def whole() -> Any:
        life = desk.broker.get_order_timeline(order.id)
        costs = [e.fill.commission for e in life.entries if e.fill is not None]
        return life if life.complete and costs and costs[-1] is not None else None

    if desk.broker.name == "ibeam":
        desk.broker.get_fills()  # without a listener nobody else asks for the trades
    life = eventually(whole, lambda: str(desk.broker.get_order_timeline(order.id)))
    executed = {e.fill.id: e.fill.qty for e in life.entries if e.kind == "fill" and e.fill is not None}
    assert sum(executed.values()) == 5
    statuses = [entry.status for entry in life.entries if entry.status is not None]
    assert (statuses[0], statuses[-1]) == (Status.SENT, Status.FILLED)


def test_c027_a_replaced_orders_life_says_what_changed(desk: Desk) -> None:
    """C027 guards that a change is found where the order is: in it, or in the one in its place."""
    order = desk.reaches(desk.rest("C027"), *WORKING)
    if not desk.broker.capabilities.replace:
        return
    changed = desk.broker.replace_order(order.id, limit_price=desk.resting_price - 1)

    def told() -> list[tuple[str, Any, Any]]:
        life = desk.broker.get_order_timeline(changed.id)
        done = [e for e in life.entries if e.kind == "changed" or e.status is not None]
        return [(c.field, c.before, c.after) for e in done for c in e.changes]

    wanted = [("limit_price", desk.resting_price, desk.resting_price - 1)]
    eventually(lambda: told() == wanted, lambda: str(told()))
    first = [e.kind for e in desk.broker.get_order_timeline(order.id).entries]
    assert "changed" in first or "change_requested" in first
    desk.broker.cancel_order(changed.id)
    desk.reaches(changed, "cancelled")
