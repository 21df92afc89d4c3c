"""AlpacaBroker's operations, over the real alpaca-py and the paper Alpaca's real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from broker.brokers.alpaca import AlpacaBroker
from broker.errors import (
    DuplicateClientOrderId,
    InsufficientFunds,
    InvalidRequest,
    NotAuthenticated,
    NotConnected,
    OrderNotCancellable,
    OrderNotFound,
    OrderNotReplaceable,
    OrderRejected,
    PaperLiveMismatch,
    UnknownSymbol,
    UnsupportedOperation,
)
from broker.factory import build_broker, settings_from_environment
from broker.journal import Journal
from broker.models import Order
from tests.broker.ordering import request, settled
from tests.broker.paper_alpaca import ACCOUNT, KEY, SECRET, PaperAlpaca, paper_alpaca
from tests.broker.paper_gateway import eventually


@pytest.fixture
def alpaca() -> Iterator[PaperAlpaca]:
    with paper_alpaca() as made:
        yield made


@pytest.fixture
def broker(alpaca: PaperAlpaca, journal: Journal) -> Iterator[AlpacaBroker]:
    made = alpaca.broker(journal)
    made.connect()
    yield made
    made.disconnect()


def rest(broker: AlpacaBroker, price: float = 90.0, **options: str) -> Order:
    """A limit order far enough from the market to stay, once it works."""
    order = broker.place_limit_order("AAPL", 10, "buy", price, **options)
    return settled(broker, order, "submitted")


def test_account_positions_clock_and_health_are_read(broker: AlpacaBroker) -> None:
    account = broker.get_account()
    assert (account.id, account.cash, account.currency) == (ACCOUNT, 100_000, "USD")
    assert broker.get_accounts() == [ACCOUNT]
    assert broker.get_positions() == []
    assert broker.get_position("AAPL") is None
    clock = broker.clock()
    assert clock.is_open
    assert clock.source == "broker"
    assert clock.next_close is not None
    health = broker.health()
    assert health.ok
    assert health.proved_at is not None
    assert health.round_trip_ms is not None


def test_a_short_position_is_negative(broker: AlpacaBroker) -> None:
    settled(broker, broker.place_market_order("AAPL", 5, "sell"), "filled")
    [position] = broker.get_positions()
    assert (position.symbol, position.qty) == ("AAPL", -5)
    assert position.market_value < 0
    held = broker.get_position("aapl")
    assert held is not None
    assert held.qty == -5


def test_a_quote_has_its_age_and_needs_a_named_host(
    alpaca: PaperAlpaca, broker: AlpacaBroker, journal: Journal
) -> None:
    quote = broker.get_quote("AAPL")
    assert (quote.bid, quote.ask) == (100.0, 100.01)
    assert quote.age_seconds >= 0
    nameless = alpaca.broker(journal, data_endpoint="")
    assert not nameless.capabilities.quotes
    with pytest.raises(UnsupportedOperation):
        nameless.get_quote("AAPL")


def test_a_market_order_fills_and_a_repeated_call_is_the_same_order(
    alpaca: PaperAlpaca, broker: AlpacaBroker
) -> None:
    order = broker.place_market_order("AAPL", 5, "buy", client_order_id="mine")
    done = settled(broker, order, "filled")
    assert (done.filled_qty, done.filled_price, done.account_id) == (5, 100.01, ACCOUNT)
    assert broker.place_market_order("AAPL", 5, "buy", client_order_id="mine").id == order.id
    assert alpaca.posts() == 1
    with pytest.raises(DuplicateClientOrderId):
        broker.place_market_order("AAPL", 6, "buy", client_order_id="mine")


@pytest.mark.parametrize(
    "changes",
    [
        {"order_type": "stop", "stop_price": 110.0},
        {"order_type": "stop_limit", "stop_price": 110.0, "limit_price": 111.0},
        {"order_type": "trailing_stop", "trail_amount": 5.0},
        {"order_type": "trailing_stop", "trail_percent": 2.5},
        {"order_type": "limit", "limit_price": 90.0, "time_in_force": "gtc"},
        {"order_type": "limit", "limit_price": 90.0, "extended_hours": True},
    ],
    ids=lambda changes: "-".join(str(v) for v in changes.values()),
)
def test_each_order_type_reaches_the_exchange_as_asked(
    alpaca: PaperAlpaca, broker: AlpacaBroker, changes: dict[str, object]
) -> None:
    order = settled(broker, broker.place_order(request(**changes)), "submitted")
    [row] = alpaca.book()
    for name in ("stop_price", "limit_price", "trail_amount", "trail_percent"):
        wanted = changes.get(name)
        assert getattr(order, name) == wanted
        assert row[name] == wanted or name == "stop_price", f"{name} was {row[name]}"
    assert (row["order_ref"], row["outside_rth"]) == (order.client_order_id, "extended_hours" in changes)


def test_money_and_fractions_buy_parts_of_shares(broker: AlpacaBroker) -> None:
    fraction = settled(broker, broker.place_order(request(qty=0.25)), "filled")
    assert fraction.filled_qty == 0.25
    money = broker.place_order(request(qty=0, notional=250.0, client_order_id="money"))
    done = settled(broker, money, "filled")
    assert done.notional == 250.0
    assert done.filled_qty == pytest.approx(2.49975, abs=1e-4)
    assert done.qty == done.filled_qty, "Alpaca decides the quantity"
    again = broker.place_order(request(qty=0, notional=250.0, client_order_id="money"))
    assert again.id == money.id, "it is still the order that was asked for"


def test_a_bracket_has_two_legs_of_which_one_fills(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    entry = broker.place_order(request(take_profit_price=110.0, stop_loss_price=90.0))
    entry = settled(broker, entry, "filled")
    assert len(entry.legs) == 2
    legs = [broker.get_order(leg) for leg in entry.legs]
    assert {(leg.side, leg.order_type, leg.parent_id) for leg in legs} == {
        ("sell", "limit", entry.id),
        ("sell", "stop", entry.id),
    }
    assert len(broker.get_orders_history()) == 3, "Alpaca's legs are those that were journalled"
    alpaca.price(111.0)
    profit, loss = sorted(legs, key=lambda leg: leg.order_type)
    settled(broker, profit, "filled")
    settled(broker, loss, "cancelled")
    assert broker.get_position("AAPL") is None
    told = {fill.client_order_id for fill in broker.get_fills()}
    assert told == {entry.client_order_id, f"{entry.client_order_id}.tp"}


def test_a_replaced_leg_is_still_its_brackets(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    entry = broker.place_order(request(take_profit_price=110.0, stop_loss_price=90.0))
    settled(broker, entry, "filled")
    gain, loss = entry.legs
    new = broker.replace_order(loss, stop_price=95.0)
    assert (new.parent_id, new.replaces, new.stop_price) == (entry.id, loss, 95.0)
    assert broker.get_order(entry.id).legs == [gain, new.id]
    settled(broker, broker.close_position("AAPL"), "filled")
    assert {broker.get_order(leg).status for leg in (gain, new.id)} == {"cancelled"}


def test_legs_stay_with_the_order_that_replaces_their_entry(
    alpaca: PaperAlpaca, broker: AlpacaBroker
) -> None:
    bracket = {"take_profit_price": 110.0, "stop_loss_price": 80.0, "time_in_force": "gtc"}
    entry = broker.place_order(request(order_type="limit", limit_price=90.0, **bracket))
    new = broker.replace_order(settled(broker, entry, "submitted").id, limit_price=91.0)
    assert new.legs == entry.legs
    assert {broker.get_order(leg).parent_id for leg in new.legs} == {new.id}
    broker.cancel_order(settled(broker, new, "submitted").id)
    for leg in new.legs:
        settled(broker, broker.get_order(leg), "cancelled")


def test_a_brackets_lost_answer_is_settled_with_its_legs(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    alpaca.fault("lose_answers", status=504, times=1, methods=["POST"])
    bracket = {"take_profit_price": 110.0, "stop_loss_price": 80.0, "time_in_force": "gtc"}
    entry = broker.place_order(request(order_type="limit", limit_price=90.0, **bracket))
    for leg in entry.legs:
        settled(broker, broker.get_order(leg), "accepted")
    assert len(broker.get_orders_history()) == 3


def test_fills_have_commissions_and_are_taken_down_once(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    alpaca.exchange_fault("largest_fill", 2.0)
    order = settled(broker, broker.place_market_order("AAPL", 5, "buy", time_in_force="gtc"), "filled")
    fills = broker.get_fills()
    assert [fill.qty for fill in fills] == [1, 2, 2], "newest first, from the stream and the activities"
    assert {(fill.order_id, fill.commission, fill.symbol) for fill in fills} == {(order.id, 0.0, "AAPL")}
    assert broker.get_order(order.id).commission == 0.0
    assert broker.get_fills(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert len(broker.get_fills(limit=1)) == 1


def test_fees_are_the_accounts_and_no_fills(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    """Alpaca books regulatory fees once a day for all trades together: they can't be told by order."""
    order = settled(broker, broker.place_market_order("AAPL", 5, "sell"), "filled")
    for day, amount in (("2026-11-18", 0.02), ("2026-11-20", 0.01), ("2026-11-19", -0.02)):
        alpaca.fault("book_fee", date=day, amount=amount, shares=5)
    fees = broker.get_fees()
    assert [(fee.date, fee.amount, fee.kind) for fee in fees] == [
        ("2026-11-20", 0.01, "FEE"),
        ("2026-11-19", -0.02, "FEE"),
        ("2026-11-18", 0.02, "FEE"),
    ], "newest first; what was given back is negative"
    assert {fee.account_id for fee in fees} == {ACCOUNT}
    assert len({fee.id for fee in fees}) == 3
    assert "5 shares" in fees[0].description
    since = datetime(2026, 11, 19, 15, tzinfo=UTC)
    assert [fee.date for fee in broker.get_fees(since)] == ["2026-11-20", "2026-11-19"], "whole days"
    assert len(broker.get_fees(limit=2)) == 2
    assert [fill.commission for fill in broker.get_fills()] == [0.0], "fees aren't fills"
    assert broker.get_order(order.id).commission == 0.0


def test_a_replacement_is_a_new_order_that_names_the_old_one(
    alpaca: PaperAlpaca, broker: AlpacaBroker
) -> None:
    old = rest(broker)
    new = broker.replace_order(old.id, limit_price=91.0, qty=12)
    assert new.id != old.id
    assert (new.replaces, new.limit_price, new.qty) == (old.id, 91.0, 12)
    gone = broker.get_order(old.id)
    assert (gone.status, gone.broker_status) == ("cancelled", "replaced")
    settled(broker, new, "submitted")
    assert broker.get_order_by_client_id(new.client_order_id).id == new.id
    with pytest.raises(OrderNotReplaceable):
        broker.replace_order(old.id, limit_price=92.0)
    assert len(alpaca.book()) == 2


def test_a_replacement_that_makes_no_sense_is_refused_before_it_is_sent(
    alpaca: PaperAlpaca, broker: AlpacaBroker
) -> None:
    order = rest(broker)
    for change in ({"qty": 10.5}, {"limit_price": 90.0}, {"stop_price": 80.0}, {}):
        with pytest.raises(InvalidRequest):
            broker.replace_order(order.id, **change)
    assert alpaca.sent("PATCH", "") == 0


def test_a_refused_replacement_leaves_the_order_as_it_was(broker: AlpacaBroker) -> None:
    order = rest(broker)
    with pytest.raises(OrderNotReplaceable, match="buying power"):
        broker.replace_order(order.id, qty=1_000_000)
    assert broker.get_order(order.id).status == "submitted"


def test_cancel_is_confirmed_by_alpacas_own_status(broker: AlpacaBroker) -> None:
    order = rest(broker)
    assert broker.cancel_order(order.id)
    assert broker.get_order(order.id).status == "cancelled"
    with pytest.raises(OrderNotCancellable):
        broker.cancel_order(order.id)
    with pytest.raises(OrderNotFound):
        broker.cancel_order("0" * 32)


def test_cancel_all_leaves_what_others_placed(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    mine = [rest(broker), rest(broker, 91.0)]
    other = alpaca.broker(Journal.in_file(":memory:"))
    other.connect()
    theirs = rest(other, 92.0)
    cancelled = broker.cancel_all_orders()
    assert {(o.id, o.status) for o in cancelled} == {(o.id, "cancelled") for o in mine}
    assert other.get_order(theirs.id).status == "submitted"
    [last] = broker.cancel_all_orders(everyones=True)
    assert (last.client_order_id, last.status) == (theirs.client_order_id, "cancelled")
    other.disconnect()


def test_a_position_is_closed_once_however_often_it_is_asked(broker: AlpacaBroker) -> None:
    settled(broker, broker.place_market_order("AAPL", 5, "buy"), "filled")
    part = settled(broker, broker.close_position("AAPL", qty=2), "filled")
    assert (part.side, part.qty) == ("sell", 2)
    rest_of_it = settled(broker, broker.close_position("AAPL", client_order_id="out"), "filled")
    assert rest_of_it.qty == 3
    assert broker.close_position("AAPL", client_order_id="out").id == rest_of_it.id
    with pytest.raises(InvalidRequest, match="nothing is held"):
        broker.close_position("AAPL")


def test_orders_of_others_are_found_and_in_the_history(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    other = alpaca.broker(Journal.in_file(":memory:"))
    other.connect()
    theirs = rest(other, client_order_id="by-hand")
    other.disconnect()
    mine = rest(broker)
    found = broker.get_order_by_client_id("by-hand")
    assert found.permanent_id == theirs.permanent_id
    history = broker.get_orders_history()
    assert {o.id for o in history} == {mine.id, found.id}
    with pytest.raises(OrderNotFound):
        broker.get_order_by_client_id("nobodys")


def test_what_alpaca_cannot_do_says_so(broker: AlpacaBroker) -> None:
    assert not broker.capabilities.preview
    with pytest.raises(UnsupportedOperation):
        broker.preview_order(request())


def test_refusals_have_alpacas_words_and_code(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    with pytest.raises(InsufficientFunds) as poor:
        broker.place_market_order("AAPL", 1_000_000, "buy")
    assert poor.value.code == "40310000"
    with pytest.raises(OrderRejected, match="fractional"):
        broker.place_order(request(qty=0.5, time_in_force="gtc"))
    with pytest.raises(UnknownSymbol):
        broker.place_market_order("NOSUCH", 1, "buy")
    with pytest.raises(InvalidRequest, match="account"):
        broker.place_order(request(account="PA9"))
    assert alpaca.book() == []


def test_a_wrong_key_and_an_absent_server_are_told_apart(alpaca: PaperAlpaca, journal: Journal) -> None:
    wrong = alpaca.broker(journal, secret_key="wrong")
    with pytest.raises(NotAuthenticated):
        wrong.connect()
    nowhere = alpaca.broker(journal, endpoint="http://127.0.0.1:9", stream_endpoint="ws://127.0.0.1:9")
    with pytest.raises(NotConnected) as away:
        nowhere.connect()
    assert not isinstance(away.value, NotAuthenticated)
    assert not nowhere.health().ok
    nowhere.disconnect()


def test_the_environment_names_the_endpoints(alpaca: PaperAlpaca, journal: Journal) -> None:
    settings = settings_from_environment(
        {
            "ALPACA_API_KEY": KEY,
            "ALPACA_SECRET_KEY": SECRET,
            "ALPACA_ENDPOINT": f"{alpaca.url}/trading",
            "ALPACA_DATA_ENDPOINT": f"{alpaca.url}/data",
            "ALPACA_STREAM_ENDPOINT": f"ws{alpaca.url.removeprefix('http')}/stream",
        }
    )
    made = build_broker(settings, journal)
    made.connect()
    eventually(alpaca.listeners, "the stream listens")
    assert made.get_quote("AAPL").source == "alpaca iex"
    made.disconnect()


def test_after_disconnect_nothing_is_asked(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    broker.disconnect()
    before = len(alpaca.requests)
    with pytest.raises(NotConnected):
        broker.get_positions()
    assert len(alpaca.requests) == before
    broker.connect()
    assert broker.get_positions() == []


def test_paper_and_live_have_to_agree_with_the_account(alpaca: PaperAlpaca, journal: Journal) -> None:
    live = alpaca.broker(journal, paper=False)
    with pytest.raises(PaperLiveMismatch):
        live.connect()
    with pytest.raises(NotConnected):
        live.place_market_order("AAPL", 1, "buy")
    assert alpaca.posts() == 0


async def test_orders_and_their_events_reach_callers_on_a_loop(broker: AlpacaBroker) -> None:
    async with broker.order_updates_async() as updates:
        order = await broker.place_order_async(request(client_order_id="async"))
        kinds = []
        async for event in updates:
            assert event.order is not None
            assert event.order.id == order.id
            kinds.append(event.kind)
            if event.order.status == "filled" and "fill" in kinds:
                break
    fills = await broker.get_fills_async()
    assert [fill.order_id for fill in fills] == [order.id]
    other = await asyncio.to_thread(rest, broker)
    assert await broker.cancel_order_async(other.id)
    assert await broker.cancel_all_orders_async() == []


def test_the_stream_takes_orders_down_without_being_asked(
    alpaca: PaperAlpaca, broker: AlpacaBroker, journal: Journal
) -> None:
    eventually(alpaca.listeners, "the stream listens")
    order = rest(broker)
    with broker.order_updates() as updates:
        alpaca.price(89.0)
        events = [next(updates), next(updates)]
    assert {event.kind for event in events} == {"status", "fill"}
    assert journal.get(ACCOUNT, order.id).status == "filled"
