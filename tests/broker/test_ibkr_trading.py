"""IBKRBroker on a healthy gateway: account, positions, orders, quotes, from threads and loops alike."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

from broker.brokers.ibkr import IBKRBroker
from broker.errors import (
    DuplicateClientOrderId,
    InsufficientFunds,
    InvalidRequest,
    OrderNotCancellable,
    OrderNotFound,
    OrderRejected,
    UnknownSymbol,
)
from tests.broker.ordering import request, settled
from tests.broker.paper_gateway import Paper


def test_the_account_is_the_logged_in_one_with_its_balances(broker: IBKRBroker, paper: Paper) -> None:
    account = broker.get_account()
    assert account.id == paper.account
    assert account.cash == pytest.approx(100_000)
    assert account.buying_power >= account.cash
    assert account.last_equity_source, "the caller must be able to tell what last_equity is"


def test_no_positions_is_an_empty_list_and_none(broker: IBKRBroker) -> None:
    assert broker.get_positions() == []
    assert broker.get_position("AAPL") is None


def test_a_market_order_fills_and_becomes_a_priced_position(broker: IBKRBroker, paper: Paper) -> None:
    order = broker.place_market_order("AAPL", 5, "buy", client_order_id="first")
    order = settled(broker, order, "filled")
    assert order.filled_qty == 5
    assert order.filled_price == pytest.approx(200, rel=0.01)
    assert order.permanent_id, "the broker's own number is kept beside ours"
    [booked] = paper.book()
    assert booked["order_ref"] == "first", "our client order id travels with the order"
    [position] = broker.get_positions()
    assert (position.symbol, position.qty) == ("AAPL", 5)
    assert position.market_value == pytest.approx(1000, rel=0.01)
    assert position.unrealized_pl == pytest.approx(
        5 * (position.current_price - position.avg_entry_price), abs=0.1
    )


def test_a_limit_order_rests_and_can_be_cancelled_once(broker: IBKRBroker, paper: Paper) -> None:
    order = broker.place_limit_order("AAPL", 5, "buy", 100.0, time_in_force="gtc")
    assert order.status in ("submitted", "accepted")
    assert broker.cancel_order(order.id) is True
    assert settled(broker, order, "cancelled").filled_qty == 0
    with pytest.raises(OrderNotCancellable):
        broker.cancel_order(order.id)
    assert [o["status"] for o in paper.book()] == ["Cancelled"]


def test_a_resting_order_fills_when_the_price_crosses_it(broker: IBKRBroker, paper: Paper) -> None:
    order = broker.place_limit_order("AAPL", 5, "buy", 150.0)
    paper.admin("set_price", symbol="AAPL", price=149.0)
    assert (settled(broker, order, "filled").filled_price or 0) <= 150.0


def test_partial_fills_add_up_to_one_filled_order(broker: IBKRBroker, paper: Paper) -> None:
    paper.fault("largest_fill", 2.0)
    order = settled(broker, broker.place_market_order("AAPL", 5, "buy"), "filled")
    assert order.filled_qty == 5


def test_the_history_is_newest_first_and_holds_what_others_placed(
    broker: IBKRBroker, make_broker: Callable[..., IBKRBroker], tmp_path: object
) -> None:
    ids = [broker.place_limit_order("AAPL", 1, "buy", 100.0 + n).id for n in range(3)]
    assert [o.id for o in broker.get_orders_history(2)] == ids[:0:-1]


def test_the_same_client_order_id_is_the_same_order(broker: IBKRBroker, paper: Paper) -> None:
    asked = request(client_order_id="once", order_type="limit", limit_price=100.0)
    with ThreadPoolExecutor(8) as threads:
        orders = list(threads.map(broker.place_order, [asked] * 8))
    assert len({o.id for o in orders}) == 1
    assert len(paper.book()) == 1, "eight callers, one order at the exchange"
    with pytest.raises(DuplicateClientOrderId):
        broker.place_order(request(client_order_id="once", order_type="limit", limit_price=101.0))
    assert len(paper.book()) == 1


def test_an_unknown_symbol_is_refused_before_anything_is_sent(broker: IBKRBroker, paper: Paper) -> None:
    with pytest.raises(UnknownSymbol) as refused:
        broker.place_market_order("NOSUCHX", 1, "buy")
    assert refused.value.problems[0].value == "NOSUCHX"
    assert paper.book() == []
    assert broker.get_orders_history() == [], "nothing was sent, so nothing is in the journal"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"qty": 0}, "qty"),
        ({"qty": -1}, "qty"),
        ({"qty": float("nan")}, "qty"),
        ({"qty": 1.5}, "qty"),
        ({"qty": 10**400}, "qty"),
        ({"qty": True}, "qty"),
        ({"side": "byu"}, "side"),
        ({"symbol": "AA PL"}, "symbol"),
        ({"symbol": "ＡＡＰＬ"}, "symbol"),
        ({"order_type": "limit"}, "limit_price"),
        ({"order_type": "limit", "limit_price": float("inf")}, "limit_price"),
        ({"limit_price": 10.0}, "limit_price"),
        ({"order_type": "stopp"}, "order_type"),
        ({"time_in_force": "forever"}, "time_in_force"),
        ({"client_order_id": "a b"}, "client_order_id"),
    ],
)
def test_bad_input_names_the_field(changes: dict[str, object], field: str) -> None:
    from broker.validation import check_order

    with pytest.raises(InvalidRequest) as refused:
        check_order(request(**changes), IBKRBroker.capabilities)
    assert [p.field for p in refused.value.problems] == [field]


def test_want_of_buying_power_is_told_apart_from_other_refusals(broker: IBKRBroker) -> None:
    with pytest.raises(InsufficientFunds) as refused:
        broker.place_market_order("AAPL", 1_000_000, "buy")
    assert refused.value.code == 201
    assert refused.value.order is not None
    assert broker.get_order(refused.value.order.id).status == "rejected"


def test_a_refusal_keeps_the_brokers_words_and_is_the_same_when_repeated(
    broker: IBKRBroker, paper: Paper
) -> None:
    paper.fault("reject_orders", "No trading permissions")
    asked = request(client_order_id="refused")
    for _ in range(2):
        with pytest.raises(OrderRejected, match="No trading permissions"):
            broker.place_order(asked)


def test_a_price_off_the_tick_is_refused_before_anything_is_sent(broker: IBKRBroker, paper: Paper) -> None:
    with pytest.raises(InvalidRequest, match="limit_price: must be a multiple of the tick") as refused:
        broker.place_limit_order("AAPL", 1, "buy", 100.00123)
    assert refused.value.problems[0].value == "100.00123"
    assert paper.book() == []


def test_an_unknown_order_id_is_not_found(broker: IBKRBroker) -> None:
    for order_id in (uuid.uuid4().hex, "1", "no such", "\x00"):
        with pytest.raises(OrderNotFound):
            broker.get_order(order_id)


def test_a_quote_has_prices_a_time_and_a_kind(broker: IBKRBroker, paper: Paper) -> None:
    quote = broker.get_quote("aapl")
    assert quote.bid is not None
    assert quote.ask is not None
    assert quote.bid < quote.ask
    assert quote.kind == "live"
    paper.admin("set_price", symbol="AAPL", price=250.0)
    assert broker.get_quote("AAPL").last == pytest.approx(250, rel=0.01), (
        "not the price of an earlier question"
    )
    paper.fault("market_data", "delayed")
    assert broker.get_quote("MSFT").kind == "delayed"


def test_quotes_of_one_symbol_asked_for_at_the_same_time_all_come(broker: IBKRBroker) -> None:
    with ThreadPoolExecutor(4) as threads:
        quotes = list(threads.map(broker.get_quote, ["AAPL"] * 4))
    assert all(q.bid and q.ask for q in quotes)


def test_health_is_proved_by_a_round_trip_and_from_beyond_the_gateway(
    broker: IBKRBroker, paper: Paper
) -> None:
    health = broker.health()
    assert (health.ok, health.state) == (True, "connected")
    assert health.round_trip_ms is not None
    assert health.proved_at is not None
    assert health.details["account"] == paper.account
    again = [broker.health() for _ in range(3)]
    assert all(h.ok for h in again), "two currentTime requests within a second must not hang"


def test_the_brokers_own_hours_win_over_the_calendar(broker: IBKRBroker) -> None:
    clock = broker.clock()
    assert clock.source == "broker"
    assert clock.is_open, "the paper exchange is always open by default"
    assert broker.is_market_open()


def test_threads_asyncio_and_uvloop_can_call_at_the_same_time(broker: IBKRBroker) -> None:
    async def ask() -> list[str]:
        accounts = await asyncio.gather(*(broker.get_account_async() for _ in range(20)))
        await broker.get_positions_async()
        return [a.id for a in accounts]

    def under(factory: Callable[[], asyncio.AbstractEventLoop]) -> list[str]:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(ask())

    with ThreadPoolExecutor(8) as threads:
        loops = [threads.submit(under, f) for f in (uvloop.new_event_loop, asyncio.new_event_loop) * 2]
        plain = [threads.submit(broker.get_account) for _ in range(20)]
        answers = [a for done in loops for a in done.result()] + [done.result().id for done in plain]
    assert len(set(answers)) == 1


def test_a_blocking_call_on_the_callers_running_loop_works_too(broker: IBKRBroker) -> None:
    async def careless() -> str:
        return broker.get_account().id

    assert asyncio.run(careless())
