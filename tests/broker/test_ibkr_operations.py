"""IBKRBroker beyond the plan's methods, on a healthy gateway; what an order became is read from the book."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.brokers.ibkr import IBKRBroker
from broker.errors import (
    InsufficientFunds,
    InvalidRequest,
    LimitExceeded,
    OrderNotFound,
    OrderNotReplaceable,
)
from broker.models import Fill, Order, OrderEvent, OrderRequest
from broker.placement import Enter
from tests.broker.ordering import request, settled
from tests.broker.paper_gateway import Paper, eventually


def resting(broker: IBKRBroker, price: float = 100.0, **options: Any) -> Order:
    return broker.place_limit_order("AAPL", 5, "buy", price, time_in_force="gtc", **options)


def events_of(broker: IBKRBroker) -> list[OrderEvent]:
    found: list[OrderEvent] = []
    broker.subscribe(found.append)
    return found


def test_a_stop_order_sleeps_until_its_price_is_reached(broker: IBKRBroker, paper: Paper) -> None:
    order = broker.place_stop_order("AAPL", 5, "buy", 210.0)
    assert order.status in ("accepted", "submitted")
    assert order.stop_price == 210.0
    paper.admin("set_price", symbol="AAPL", price=211.0)
    filled = settled(broker, order, "filled")
    assert filled.filled_price is not None
    assert filled.filled_price > 210
    [booked] = paper.book()
    assert (booked["order_type"], booked["stop_price"]) == ("STP", 210.0)


def test_a_stop_limit_order_has_both_prices(broker: IBKRBroker, paper: Paper) -> None:
    order = broker.place_stop_limit_order("AAPL", 5, "sell", 190.0, 189.5, time_in_force="gtc")
    [booked] = paper.book()
    assert (booked["order_type"], booked["stop_price"], booked["limit_price"]) == ("STP LMT", 190.0, 189.5)
    assert broker.get_order(order.id).limit_price == 189.5


@pytest.mark.parametrize("trail", [{"trail_amount": 5.0}, {"trail_percent": 2.5}], ids=str)
def test_a_trailing_stop_follows_the_price(broker: IBKRBroker, paper: Paper, trail: dict[str, float]) -> None:
    settled(broker, broker.place_market_order("AAPL", 5, "buy"), "filled")
    asked = request(side="sell", order_type="trailing_stop", time_in_force="gtc", **trail)
    order = broker.place_order(asked)
    for price in (220.0, 240.0):  # the stop moves up, and stays there
        paper.admin("set_price", symbol="AAPL", price=price)
    assert broker.get_order(order.id).status in ("accepted", "submitted")
    paper.admin("set_price", symbol="AAPL", price=230.0)
    assert settled(broker, order, "filled").filled_qty == 5


def test_an_order_is_found_by_the_id_that_its_caller_chose(broker: IBKRBroker) -> None:
    order = resting(broker, client_order_id="mine-1")
    assert broker.get_order_by_client_id("mine-1").id == order.id
    with pytest.raises(OrderNotFound):
        broker.get_order_by_client_id("never-placed")
    with pytest.raises(InvalidRequest):
        broker.get_order_by_client_id("no such id")


def test_a_replaced_order_keeps_our_id_and_its_place_in_the_book(broker: IBKRBroker, paper: Paper) -> None:
    order = resting(broker, client_order_id="one")
    changed = broker.replace_order(order.id, qty=7, limit_price=101.5)
    assert (changed.id, changed.qty, changed.limit_price) == (order.id, 7, 101.5)
    [booked] = paper.book()
    assert (booked["quantity"], booked["limit_price"]) == (7, 101.5)
    again = broker.place_limit_order("AAPL", 5, "buy", 100.0, time_in_force="gtc", client_order_id="one")
    assert again.id == order.id, "the order as it was first asked for is still that order"
    assert len(paper.book()) == 1


def test_a_live_order_that_the_library_takes_for_cancelled_can_still_be_replaced(
    broker: IBKRBroker, paper: Paper
) -> None:
    """Guards against 10349: both libraries then say Cancelled, and assert when the order is sent again."""
    order = resting(broker)
    number = int(order.broker_order_id or 0)
    paper.gateway("error", id=number, code=10349, message="Order TIF was set to DAY based on order preset.")
    eventually(lambda: broker.get_order(order.id).warnings, "the remark is kept")
    assert broker.replace_order(order.id, limit_price=102.0).limit_price == 102.0


def test_a_refused_change_leaves_the_order_as_it_works(broker: IBKRBroker, paper: Paper) -> None:
    """Guards against reading a change's 201 as the order's: it goes on working as it was."""
    order = resting(broker)
    with pytest.raises(OrderNotReplaceable, match="201") as refused:
        broker.replace_order(order.id, qty=1_000_000)
    assert refused.value.order is not None
    found = broker.get_order(order.id)
    assert (found.status, found.qty) == ("submitted", 5)
    assert any("change was refused" in w for w in found.warnings)
    assert [(o["status"], o["quantity"]) for o in paper.book()] == [("Submitted", 5)]


def test_what_is_final_or_not_changed_cannot_be_replaced(broker: IBKRBroker) -> None:
    order = resting(broker)
    for wrong, field in (({}, "qty"), ({"stop_price": 5.0}, "stop_price"), ({"qty": -1}, "qty")):
        with pytest.raises(InvalidRequest) as refused:
            broker.replace_order(order.id, **wrong)  # type: ignore[arg-type]
        assert [p.field for p in refused.value.problems] == [field]
    broker.cancel_order(order.id)
    with pytest.raises(OrderNotReplaceable, match="cancelled"):
        broker.replace_order(order.id, qty=6)


def test_cancel_all_ends_our_working_orders_and_leaves_others_alone(
    broker: IBKRBroker, make_broker: Callable[..., IBKRBroker], paper: Paper
) -> None:
    from broker.journal import Journal

    other = make_broker(client_id=7, journal=Journal.in_file(":memory:"))
    other.connect()
    theirs = resting(other)
    mine = [resting(broker, 100.0 + n).id for n in range(3)]
    ended = broker.cancel_all_orders()
    assert {o.id for o in ended} == set(mine)
    assert {o.status for o in ended} <= {"cancelled", "pending_cancel"}
    eventually(lambda: [o["status"] for o in paper.book()].count("Cancelled") == 3, "ours are cancelled")
    assert other.get_order(theirs.id).status == "submitted"
    broker.cancel_all_orders(everyones=True)
    assert settled(other, theirs, "cancelled"), "when asked to, everybody's"


def test_closing_a_position_sells_what_is_held_once(broker: IBKRBroker, paper: Paper) -> None:
    settled(broker, broker.place_market_order("AAPL", 5, "buy"), "filled")
    eventually(lambda: broker.get_position("AAPL"), "it is held")
    closing = broker.close_position("AAPL", qty=2, client_order_id="close-1")
    assert settled(broker, closing, "filled").filled_qty == 2
    again = broker.close_position("AAPL", qty=2, client_order_id="close-1")
    assert again.id == closing.id, "repeated, it is the same order"
    eventually(lambda: (p := broker.get_position("AAPL")) and p.qty == 3, "two were sold")
    settled(broker, broker.close_position("AAPL"), "filled")
    eventually(lambda: broker.get_position("AAPL") is None, "nothing is held")
    with pytest.raises(InvalidRequest, match="nothing is held"):
        broker.close_position("AAPL")
    assert len(paper.book()) == 3


def test_fills_come_with_their_commission_and_add_it_up_in_the_order(
    broker: IBKRBroker, paper: Paper
) -> None:
    paper.fault("largest_fill", 2.0)
    order = settled(broker, broker.place_market_order("AAPL", 5, "buy", client_order_id="f"), "filled")

    def complete() -> list[Fill] | None:
        found = broker.get_fills()
        return found if len(found) == 3 and all(f.commission is not None for f in found) else None

    fills = eventually(complete, "three fills, each with its commission")
    assert {(f.order_id, f.client_order_id) for f in fills} == {(order.id, "f")}
    assert sum(f.qty for f in fills) == 5
    commissions = [f.commission or 0.0 for f in fills]
    assert broker.get_order(order.id).commission == pytest.approx(sum(commissions))
    assert fills == sorted(fills, key=lambda f: f.time, reverse=True), "newest first"
    assert broker.get_fills(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert len(broker.get_fills(limit=2)) == 2


def test_a_preview_places_nothing(broker: IBKRBroker, paper: Paper) -> None:
    preview = broker.preview_order(request(qty=10))
    assert preview.estimated_cost == pytest.approx(2000, rel=0.01)
    assert preview.commission is not None
    assert preview.commission > 0
    assert preview.initial_margin_after is not None
    assert preview.equity_after is not None
    assert paper.book() == []
    assert broker.get_orders_history() == []
    with pytest.raises(InvalidRequest):
        broker.preview_order(request(qty=-1))


def test_an_account_that_the_login_does_not_have_is_refused(broker: IBKRBroker, paper: Paper) -> None:
    assert broker.get_accounts() == [paper.account]
    assert broker.place_order(request(account=paper.account)).account_id == paper.account
    with pytest.raises(InvalidRequest) as refused:
        broker.place_order(request(account="DU999"))
    assert refused.value.problems[0].field == "account"


def test_a_guard_refuses_before_anything_is_journalled_or_sent(
    make_broker: Callable[..., IBKRBroker], paper: Paper
) -> None:
    asked: list[tuple[float, str]] = []

    class Small:
        def __call__(self, wanted: OrderRequest, account: str) -> None:
            asked.append((wanted.qty, account))
            if wanted.qty > 5:
                raise LimitExceeded("max_qty", wanted.qty, 5)

        def admitting(self, wanted: OrderRequest, account: str, enter: Enter) -> tuple[Order, bool]:
            self(wanted, account)
            return enter(None)

    broker = make_broker(guard=Small())
    broker.connect()
    with pytest.raises(LimitExceeded, match="max_qty"):
        broker.place_market_order("AAPL", 6, "buy")
    order = resting(broker)
    with pytest.raises(LimitExceeded):
        broker.replace_order(order.id, qty=8)
    assert asked == [(6, paper.account), (5, paper.account), (8, paper.account)]
    assert [o["quantity"] for o in paper.book()] == [5]
    assert len(broker.get_orders_history()) == 1


def test_what_it_cannot_do_is_said_by_capabilities_and_raised(broker: IBKRBroker, paper: Paper) -> None:
    assert not broker.capabilities.notional
    with pytest.raises(InvalidRequest, match="notional"):
        broker.place_order(request(qty=0, notional=100.0))
    assert paper.book() == []


def test_each_change_of_an_order_is_told_once(broker: IBKRBroker) -> None:
    """Guards against duplicate statuses: TWS tells each at least twice (openOrder and orderStatus)."""
    events = events_of(broker)
    order = resting(broker)
    broker.cancel_order(order.id)
    eventually(lambda: [e for e in events if e.order and e.order.status == "cancelled"], "the end is told")
    broker.get_orders_history()
    # A cancelled order's reason (202) comes in a message of its own, and is news.
    told = [(e.order.status, e.order.reason) for e in events if e.kind == "status" and e.order is not None]
    assert len(told) == len(set(told)), told
    assert {e.order.id for e in events if e.order} == {order.id}


def test_a_listener_hears_of_fills_and_their_commissions_and_may_call_the_broker(broker: IBKRBroker) -> None:
    seen: list[tuple[str, float | None]] = []

    def listen(event: OrderEvent) -> None:
        if event.kind == "fill" and event.fill is not None:
            seen.append((broker.get_order(event.fill.order_id).id, event.fill.commission))

    stop = broker.subscribe(listen)
    order = broker.place_market_order("AAPL", 1, "buy")
    eventually(lambda: any(commission for _, commission in seen), "the commission is told")
    assert {order_id for order_id, _ in seen} == {order.id}
    stop()
    stop()  # ending it twice is no error


def test_order_updates_end_when_they_are_closed(broker: IBKRBroker) -> None:
    with broker.order_updates() as updates:
        order = resting(broker)
        first = next(updates)
        assert first.order is not None
        assert first.order.id == order.id
    assert [e for e in updates if e.kind == "gap"] == []


async def test_order_updates_come_on_the_callers_loop(broker: IBKRBroker) -> None:
    async with broker.order_updates_async() as updates:
        placed = await broker.place_order_async(
            request(order_type="limit", limit_price=100.0, time_in_force="gtc")
        )
        async with asyncio.timeout(20):
            async for event in updates:
                if event.order is not None and event.order.status == "submitted":
                    break
    assert event.order is not None
    assert event.order.id == placed.id


def test_health_tells_the_next_reset_and_the_accounts(broker: IBKRBroker, paper: Paper) -> None:
    health = broker.health()
    assert health.next_reset is not None
    assert datetime.fromisoformat(health.next_reset) > datetime.now(UTC)
    assert not health.second_factor
    assert health.details["accounts"] == [paper.account]


def test_a_quote_knows_its_age(broker: IBKRBroker) -> None:
    quote = broker.get_quote("AAPL")
    assert 0 <= quote.age_seconds < 60


def test_want_of_buying_power_refuses_a_stop_order_too(broker: IBKRBroker) -> None:
    with pytest.raises(InsufficientFunds):
        broker.place_stop_order("AAPL", 100_000, "buy", 210.0)


def test_an_immediate_order_that_cannot_trade_is_cancelled_by_the_exchange(broker: IBKRBroker) -> None:
    order = broker.place_limit_order("AAPL", 5, "buy", 100.0, time_in_force="ioc")
    assert settled(broker, order, "cancelled").filled_qty == 0
