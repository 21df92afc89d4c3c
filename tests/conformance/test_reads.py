"""C050 to C099: account, positions, fills, prices, clock, health, events."""

from __future__ import annotations

import asyncio
import queue
from datetime import datetime

import pytest

from broker.errors import InvalidRequest, OrderRejected, UnknownSymbol, UnsupportedOperation
from broker.models import OrderEvent
from tests.conformance.desk import Book, Desk, eventually


def test_c050_the_account_adds_up(desk: Desk) -> None:
    """C050 guards the plan's fields: numbers, not texts, and `last_equity` says where it comes from."""
    account = desk.broker.get_account()
    assert account.id
    assert account.currency == "USD"
    for amount in (account.cash, account.buying_power, account.equity, account.last_equity):
        assert isinstance(amount, float)
    assert account.last_equity_source


def test_c051_no_positions_is_an_empty_list(desk: Desk, book: Book) -> None:
    """C051 guards that empty means none."""
    assert book.positions() == {}
    assert desk.broker.get_positions() == []
    assert desk.broker.get_position("AAPL") is None


def test_c052_a_purchase_becomes_a_position(desk: Desk, book: Book) -> None:
    """C052 guards quantity, cost and value of what is held, against the book's own."""
    desk.bought(5)
    position = eventually(lambda: desk.broker.get_position("AAPL"), "the position is shown")
    assert {"AAPL": position.qty} == book.positions()
    assert position.avg_entry_price == pytest.approx(200, abs=1)
    assert position.market_value == pytest.approx(5 * position.current_price, rel=0.01)
    assert [p.symbol for p in desk.broker.get_positions()] == ["AAPL"]


def test_c053_a_short_position_is_negative(desk: Desk, book: Book) -> None:
    """C053 guards the sign of a short sale."""
    desk.reaches(desk.broker.place_market_order("AAPL", 3, "sell"), "filled")
    position = eventually(lambda: desk.broker.get_position("AAPL"), "the position is shown")
    assert position.qty == -3
    assert position.market_value < 0
    assert book.positions() == {"AAPL": -3}


def test_c054_closing_a_position_leaves_nothing(desk: Desk, book: Book) -> None:
    """C054 guards that closing sells what is held and no more."""
    desk.bought(5)
    eventually(lambda: desk.broker.get_position("AAPL"), "the position is shown")
    desk.reaches(desk.broker.close_position("AAPL"), "filled")
    assert book.positions() == {}
    eventually(lambda: desk.broker.get_positions() == [], "the position is gone")
    with pytest.raises(InvalidRequest):
        desk.broker.close_position("AAPL")


def test_c055_every_fill_of_the_book_is_told(desk: Desk, book: Book) -> None:
    """C055 guards fills: each once, under our order's id, with price and quantity of the book."""
    order = desk.bought(5)
    if not desk.broker.capabilities.fills:
        with pytest.raises(UnsupportedOperation):
            desk.broker.get_fills()
        return
    fills = eventually(desk.broker.get_fills, "the fill is told")
    assert {fill.order_id for fill in fills} == {order.id}
    assert sum(fill.qty for fill in fills) == sum(row["quantity"] for row in book.executions()) == 5
    assert fills[0].price == pytest.approx(book.executions()[0]["price"])
    assert datetime.fromisoformat(fills[0].time).tzinfo is not None


def test_c056_a_preview_places_nothing(desk: Desk, book: Book) -> None:
    """C056 guards what-if: it costs nothing and leaves no order."""
    asked = desk.request(order_type="market", limit_price=None, time_in_force="day")
    if not desk.broker.capabilities.preview:
        with pytest.raises(UnsupportedOperation):
            desk.broker.preview_order(asked)
        return
    preview = desk.broker.preview_order(asked)
    assert (preview.symbol, preview.side, preview.qty) == ("AAPL", "buy", 5)
    assert book.orders() == []
    assert desk.broker.get_orders_history() == []
    with pytest.raises((OrderRejected, InvalidRequest)):
        desk.broker.preview_order(desk.request(symbol="ZZZQQ"))


def test_c057_a_quote_has_its_time(desk: Desk) -> None:
    """C057 guards prices: with kind and age, None where there is none, never zero."""
    if not desk.broker.capabilities.quotes:
        with pytest.raises(UnsupportedOperation):
            desk.broker.get_quote(desk.symbol)
        return
    quote = desk.broker.get_quote(desk.symbol)
    assert quote.symbol == desk.symbol
    assert (quote.last or quote.bid or 0) > 0
    assert quote.kind
    assert quote.age_seconds < 3600
    with pytest.raises(UnknownSymbol):
        desk.broker.get_quote("ZZZQQ")


def test_c058_the_clock_knows_when_it_changes(desk: Desk) -> None:
    """C058 guards `is_market_open`: it agrees with the clock, and the clock says who told it."""
    clock = desk.broker.clock()
    assert datetime.fromisoformat(clock.time).tzinfo is not None
    assert desk.broker.is_market_open() == clock.is_open
    assert clock.source in ("broker", "calendar")


def test_c059_health_is_proved(desk: Desk) -> None:
    """C059 guards that healthy means a round trip, with the time of the last proof."""
    health = desk.broker.health()
    assert health.ok
    assert health.state == "connected"
    assert health.proved_at
    assert health.round_trip_ms is not None


def test_c060_the_account_is_among_the_accounts(desk: Desk) -> None:
    """C060 guards logins with several accounts: the connection's own comes first."""
    assert desk.broker.get_accounts()[0]


def test_c061_events_tell_of_an_order_s_life(desk: Desk) -> None:
    """C061 guards the stream: an order that is placed and cancelled is told of without being asked for."""
    heard: queue.Queue[OrderEvent] = queue.Queue()
    if not desk.broker.capabilities.stream:
        with pytest.raises(UnsupportedOperation):
            desk.broker.subscribe(heard.put)
        return
    unsubscribe = desk.broker.subscribe(heard.put)
    order = desk.rest("C061")
    desk.broker.cancel_order(order.id)
    seen: set[str] = set()
    while "cancelled" not in seen:
        event = heard.get(timeout=15)
        if event.order is not None and event.order.id == order.id:
            seen.add(event.order.status)
    unsubscribe()


def test_c062_the_same_on_an_event_loop(desk: Desk) -> None:
    """C062 guards callers on a loop, sync and async at once: neither blocks the other."""

    async def both() -> None:
        account, positions = await asyncio.gather(
            desk.broker.get_account_async(), desk.broker.get_positions_async()
        )
        assert account.id == desk.broker.get_account().id
        assert positions == desk.broker.get_positions()
        order = await desk.broker.place_order_async(desk.request(client_order_id="C062"))
        assert await desk.broker.cancel_order_async(order.id)

    asyncio.run(both())


@pytest.mark.parametrize("symbol", ["", "AA PL", "aapl;", "A" * 40])
def test_c063_reads_refuse_what_is_no_symbol(desk: Desk, symbol: str) -> None:
    """C063 guards reads against bad input as orders are guarded: None would say that it isn't held."""
    with pytest.raises(InvalidRequest):
        desk.broker.get_position(symbol)
