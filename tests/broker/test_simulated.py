"""SimulatedBroker: the interface without a network. Prices come from a seed, time from an argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.brokers.simulated import SimulatedBroker
from broker.errors import InsufficientFunds, NotConnected, OrderNotReplaceable, UnknownSymbol
from broker.journal import Journal
from broker.models import OrderRequest

NOON = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)


class Time:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def broker(time: Time) -> SimulatedBroker:
    made = SimulatedBroker(clock=time)
    made.connect()
    return made


def test_the_same_seed_gives_the_same_prices(time: Time) -> None:
    def walk(seed: int) -> list[float | None]:
        time.now = NOON
        broker = SimulatedBroker(seed=seed, clock=time)
        broker.connect()
        prices = []
        for _ in range(5):
            time.now += timedelta(seconds=10)
            prices.append(broker.get_quote("AAPL").last)
        return prices

    assert walk(1) == walk(1)
    assert walk(1) != walk(2)


def test_buying_and_selling_move_cash_and_average_price(broker: SimulatedBroker) -> None:
    broker.set_price("AAPL", 100.0)
    broker.place_market_order("AAPL", 10, "buy")
    broker.set_price("AAPL", 110.0)
    broker.place_market_order("AAPL", 10, "buy")
    position = broker.get_position("AAPL")
    assert position is not None
    assert position.avg_entry_price == pytest.approx(105.01)
    assert position.unrealized_plpc == pytest.approx((110 - 105.01) / 105.01)
    broker.place_market_order("AAPL", 20, "sell")
    assert broker.get_position("AAPL") is None
    assert broker.get_account().cash == pytest.approx(100_000 + 20 * 109.99 - 20 * 105.01)


def test_a_limit_order_fills_when_time_brings_the_price(broker: SimulatedBroker, time: Time) -> None:
    price = broker.get_quote("AAPL").last or 0.0
    order = broker.place_limit_order("AAPL", 1, "buy", round(price * 0.9995, 2))
    for _ in range(3600):
        time.now += timedelta(seconds=1)
        if broker.get_order(order.id).status == "filled":
            return
    pytest.fail("the walk never came down by five hundredths of a per cent")


def test_refusals_name_what_is_wrong(broker: SimulatedBroker) -> None:
    with pytest.raises(UnknownSymbol):
        broker.place_market_order("NOSUCH", 1, "buy")
    with pytest.raises(InsufficientFunds):
        broker.place_market_order("AAPL", 1e6, "buy")


def test_a_closed_book_is_an_error_not_an_empty_list(broker: SimulatedBroker) -> None:
    broker.disconnect()
    with pytest.raises(NotConnected):
        broker.get_positions()
    assert not broker.health().ok


def test_orders_of_a_book_that_ended_are_cancelled(time: Time) -> None:
    journal = Journal.in_file(":memory:")
    first = SimulatedBroker(journal, clock=time)
    first.connect()
    order = first.place_limit_order("AAPL", 1, "buy", 1.0)
    second = SimulatedBroker(journal, clock=time)
    second.connect()
    found = second.get_order(order.id)
    assert (found.status, found.reason) == ("cancelled", "the simulated book ended with its process")


def test_a_stop_order_wakes_at_its_price_and_a_trailing_one_follows(broker: SimulatedBroker) -> None:
    broker.set_price("AAPL", 100.0)
    broker.place_market_order("AAPL", 10, "buy")
    stop = broker.place_stop_order("AAPL", 5, "sell", 90.0)
    trail = broker.place_order(OrderRequest("AAPL", "sell", 5, "trailing_stop", trail_amount=5.0))
    broker.set_price("AAPL", 120.0)
    broker.set_price("AAPL", 116.0)
    assert broker.get_order(trail.id).status == "submitted", "its stop stands at 115"
    broker.set_price("AAPL", 114.0)
    assert broker.get_order(trail.id).status == "filled"
    assert broker.get_order(stop.id).status == "submitted"
    broker.set_price("AAPL", 89.0)
    assert broker.get_order(stop.id).filled_price == pytest.approx(88.99)


def test_a_stop_limit_order_waits_for_its_limit_once_awake(broker: SimulatedBroker) -> None:
    broker.set_price("AAPL", 100.0)
    order = broker.place_stop_limit_order("AAPL", 1, "buy", 105.0, 106.0)
    broker.set_price("AAPL", 110.0)
    assert broker.get_order(order.id).status == "submitted"
    broker.set_price("AAPL", 104.0)
    assert broker.get_order(order.id).status == "filled", "awake since 110, though 104 is below the stop"


def test_of_a_brackets_legs_one_fills_and_the_other_ends(broker: SimulatedBroker) -> None:
    broker.set_price("AAPL", 100.0)
    asked = OrderRequest(
        "AAPL", "buy", 5, "limit", limit_price=95.0, take_profit_price=110.0, stop_loss_price=90.0
    )
    entry = broker.get_order(broker.place_order(asked).id)
    gain, loss = (broker.get_order(leg) for leg in entry.legs)
    assert (gain.status, loss.status, gain.parent_id) == ("accepted", "accepted", entry.id)
    broker.set_price("AAPL", 94.0)
    assert broker.get_order(gain.id).status == "submitted", "the entry filled"
    broker.set_price("AAPL", 111.0)
    assert [broker.get_order(leg).status for leg in entry.legs] == ["filled", "cancelled"]
    assert broker.get_positions() == []


def test_a_brackets_legs_end_with_an_entry_that_never_filled(broker: SimulatedBroker) -> None:
    asked = OrderRequest(
        "AAPL", "buy", 5, "limit", limit_price=1.0, take_profit_price=2.0, stop_loss_price=0.5
    )
    entry = broker.place_order(asked)
    broker.cancel_order(entry.id)
    assert {broker.get_order(leg).status for leg in broker.get_order(entry.id).legs} == {"cancelled"}


def test_an_order_for_an_amount_never_spends_more(broker: SimulatedBroker) -> None:
    broker.set_price("AAPL", 99.99)
    asked = OrderRequest("AAPL", "buy", 0, "market", notional=50.0, client_order_id="n1")
    order = broker.place_order(asked)
    assert order.qty == pytest.approx(0.5)
    assert broker.get_account().cash >= 99_950
    assert broker.place_order(asked).id == order.id, "the same amount is the same order"


def test_orders_are_replaced_cancelled_and_previewed(broker: SimulatedBroker) -> None:
    broker.set_price("AAPL", 100.0)
    order = broker.place_limit_order("AAPL", 5, "buy", 90.0, client_order_id="r1")
    assert broker.replace_order(order.id, limit_price=100.5).status == "filled"
    with pytest.raises(OrderNotReplaceable):
        broker.replace_order(order.id, qty=9)
    resting = broker.place_limit_order("AAPL", 5, "buy", 90.0)
    assert [o.status for o in broker.cancel_all_orders()] == ["cancelled"]
    assert broker.get_order(resting.id).status == "cancelled"
    assert broker.preview_order(OrderRequest("AAPL", "buy", 10, "market")).estimated_cost == pytest.approx(
        1000.1
    )
    assert broker.get_order_by_client_id("r1").id == order.id
    assert [f.order_id for f in broker.get_fills()] == [order.id]


def test_an_immediate_order_ends_at_once(broker: SimulatedBroker) -> None:
    assert broker.place_limit_order("AAPL", 1, "buy", 1.0, time_in_force="ioc").status == "cancelled"
