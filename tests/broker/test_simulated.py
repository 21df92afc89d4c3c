"""SimulatedBroker: the interface without a network. Prices come from a seed, time from an argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.brokers.simulated import SimulatedBroker
from broker.errors import InsufficientFunds, NotConnected, UnknownSymbol
from broker.journal import Journal

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
