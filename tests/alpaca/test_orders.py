"""An order's whole life at the paper Alpaca, through the unmodified TradingClient."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from alpaca.trading.enums import OrderClass, OrderSide, OrderStatus, QueryOrderStatus, TimeInForce
from alpaca.trading.requests import (
    GetOrderByIdRequest,
    GetOrdersRequest,
    ReplaceOrderRequest,
    StopLimitOrderRequest,
    StopLossRequest,
    StopOrderRequest,
    TakeProfitRequest,
    TrailingStopOrderRequest,
)

from localcloud.exchange.models import WORKING
from tests.alpaca.conftest import Alpaca, limit, market

DAY = {"symbol": "AAPL", "time_in_force": TimeInForce.DAY}


async def test_a_market_order_is_pending_new_and_then_filled_without_commission(alpaca: Alpaca) -> None:
    order = await alpaca.buy(10, client_order_id="mine-1")
    assert (order.status, order.client_order_id, order.qty) == ("pending_new", "mine-1", "10")
    filled = await alpaca.until(order, "filled")
    assert (filled.filled_qty, filled.filled_avg_price) == ("10", "100.01")
    assert filled.filled_at is not None
    account = await alpaca.trade(lambda client: client.get_account())
    assert account.cash == "98999.9", "Alpaca charges no commission on stocks"


async def test_an_order_is_found_by_its_own_id_and_by_the_clients(alpaca: Alpaca) -> None:
    order = await alpaca.rest(client_order_id="find me")
    by_id = await alpaca.trade(lambda client: client.get_order_by_id(order.id))
    by_client_id = await alpaca.trade(lambda client: client.get_order_by_client_id("find me"))
    assert by_id.id == by_client_id.id == order.id
    assert by_id.status == OrderStatus.NEW
    assert by_id.limit_price == "90", "prices are strings"


async def test_orders_are_listed_by_status_symbol_side_and_time_newest_first(alpaca: Alpaca) -> None:
    done = await alpaca.buy(1)
    await alpaca.until(done, "filled")
    first = await alpaca.rest(90)
    second = await alpaca.rest(100, symbol="MSFT")

    async def ids(**filters: Any) -> list[Any]:
        found = await alpaca.trade(lambda client: client.get_orders(GetOrdersRequest(**filters)))
        return [order.id for order in found]

    assert await ids() == [second.id, first.id], "open orders, newest first, are the default"
    assert await ids(status=QueryOrderStatus.CLOSED) == [done.id]
    assert await ids(status=QueryOrderStatus.ALL, direction="asc") == [done.id, first.id, second.id]
    assert await ids(symbols=["MSFT"]) == [second.id]
    assert await ids(status=QueryOrderStatus.ALL, limit=1) == [second.id]
    assert await ids(side=OrderSide.SELL, status=QueryOrderStatus.ALL) == []
    assert await ids(after=first.submitted_at) == [second.id]
    assert await ids(until=first.submitted_at) == [first.id]


async def test_a_replaced_order_gets_a_new_id_and_both_know_each_other(alpaca: Alpaca) -> None:
    order = await alpaca.rest(90, client_order_id="old")
    await alpaca.until(order, "new")
    change = ReplaceOrderRequest(limit_price=91.0, qty=20, client_order_id="new")
    new = await alpaca.trade(lambda client: client.replace_order_by_id(order.id, change))
    assert new.id != order.id
    assert (new.replaces, new.client_order_id, new.limit_price, new.qty) == (order.id, "new", "91", "20")
    old = await alpaca.until(order, "replaced")
    assert old.replaced_by == new.id
    working = [row for row in alpaca.book() if row["status"] in WORKING]
    assert [row["quantity"] for row in working] == [20], "one order is left in the market"


async def test_a_canceled_order_is_canceled_and_cancel_all_answers_for_each(alpaca: Alpaca) -> None:
    order = await alpaca.rest()
    await alpaca.trade(lambda client: client.cancel_order_by_id(order.id))
    canceled = await alpaca.until(order, "canceled")
    assert canceled.canceled_at is not None
    others = {(await alpaca.rest(price)).id for price in (80.0, 81.0)}
    answers = await alpaca.trade(lambda client: client.cancel_orders())
    assert {(answer.id, answer.status) for answer in answers} == {(number, 200) for number in others}
    assert await alpaca.trade(lambda client: client.get_orders()) == []


async def test_a_partial_fill_shows_what_has_traded(alpaca: Alpaca) -> None:
    await alpaca.admin.set_fault("largest_fill", 4.0)
    order = await alpaca.trade(lambda client: client.submit_order(market(10, time_in_force=TimeInForce.IOC)))
    ended = await alpaca.until(order, "canceled")
    assert (ended.qty, ended.filled_qty) == ("10", "4")


@pytest.mark.parametrize(
    ("options", "expected"), [({"notional": 250.0, "qty": None}, "2.499750024"), ({"qty": 0.5}, "0.5")]
)
async def test_fractions_trade_by_amount_and_by_quantity(
    alpaca: Alpaca, options: dict[str, Any], expected: str
) -> None:
    order = await alpaca.trade(lambda client: client.submit_order(market(**{"quantity": 1, **options})))
    filled = await alpaca.until(order, "filled")
    assert filled.filled_qty == expected
    assert filled.qty == (None if "notional" in options else "0.5"), "an amount's order has no quantity"
    position = await alpaca.trade(lambda client: client.get_open_position("AAPL"))
    assert position.qty == expected


async def test_stop_and_stop_limit_orders_wait_for_their_price(alpaca: Alpaca) -> None:
    await alpaca.until(await alpaca.buy(20), "filled")
    stop = StopOrderRequest(**DAY, side=OrderSide.SELL, qty=10, stop_price=95)
    stop_limit = StopLimitOrderRequest(**DAY, side=OrderSide.SELL, qty=10, stop_price=95, limit_price=94.5)
    orders = [await alpaca.trade(lambda c, r=request: c.submit_order(r)) for request in (stop, stop_limit)]
    for order in orders:
        await alpaca.until(order, "new")
    await alpaca.admin.set_price("AAPL", 94.8)
    for order in orders:
        await alpaca.until(order, "filled")


async def test_a_trailing_stop_follows_the_price_up_and_not_down(alpaca: Alpaca) -> None:
    await alpaca.until(await alpaca.buy(10), "filled")
    request = TrailingStopOrderRequest(**DAY, side=OrderSide.SELL, qty=10, trail_percent=5)
    order = await alpaca.trade(lambda client: client.submit_order(request))
    await alpaca.until(order, "new")
    await alpaca.admin.set_price("AAPL", 120.0)
    while float((found := await alpaca.until(order, "new")).hwm) < 119.9:
        pass
    await alpaca.admin.set_price("AAPL", 116.0)
    assert found.trail_percent == "5"
    assert float((await alpaca.until(order, "new")).stop_price) == pytest.approx(114.0, abs=0.05)
    await alpaca.admin.set_price("AAPL", 113.0)
    assert float((await alpaca.until(order, "filled")).filled_avg_price) < 113.1


def bracket(**options: Any) -> Any:
    return limit(
        101.0,
        order_class=OrderClass.BRACKET,
        take_profit=TakeProfitRequest(limit_price=110),
        stop_loss=StopLossRequest(stop_price=95),
        **options,
    )


async def test_of_a_bracket_the_profit_fills_and_the_stop_is_canceled(alpaca: Alpaca) -> None:
    order = await alpaca.trade(lambda client: client.submit_order(bracket()))
    assert [leg.type for leg in order.legs] == ["limit", "stop"]
    assert {leg.status for leg in order.legs} == {OrderStatus.HELD}, "legs wait for the entry"
    profit, stop = order.legs
    await alpaca.until(order, "filled")
    await alpaca.until(profit, "new")
    await alpaca.admin.set_price("AAPL", 111.0)
    await alpaca.until(profit, "filled")
    await alpaca.until(stop, "canceled")
    nested = await alpaca.trade(
        lambda client: client.get_order_by_id(order.id, GetOrderByIdRequest(nested=True))
    )
    assert [leg.status for leg in nested.legs] == [OrderStatus.FILLED, OrderStatus.CANCELED]
    assert await alpaca.trade(lambda client: client.get_all_positions()) == []


async def test_canceling_an_entry_takes_its_legs_with_it(alpaca: Alpaca) -> None:
    request = bracket()
    request.limit_price = 90.0
    order = await alpaca.trade(lambda client: client.submit_order(request))
    await alpaca.trade(lambda client: client.cancel_order_by_id(order.id))
    for ended in (order, *order.legs):
        await alpaca.until(ended, "canceled")


async def test_an_oco_pair_closes_the_shares_once(alpaca: Alpaca) -> None:
    await alpaca.until(await alpaca.buy(10), "filled")
    request = limit(
        110.0,
        side=OrderSide.SELL,
        order_class=OrderClass.OCO,
        take_profit=TakeProfitRequest(limit_price=110),
        stop_loss=StopLossRequest(stop_price=95),
    )
    order = await alpaca.trade(lambda client: client.submit_order(request))
    position = await alpaca.trade(lambda client: client.get_open_position("AAPL"))
    assert position.qty_available == "0"
    await alpaca.admin.set_price("AAPL", 94.0)
    await alpaca.until(order.legs[0], "filled")
    await alpaca.until(order, "canceled")


async def test_while_the_market_is_closed_orders_are_accepted_for_the_next_session(alpaca: Alpaca) -> None:
    await alpaca.admin.set_market("calendar")
    saturday, monday, bell = 1795291200.0, 1795444200.0, 1795467600.0  # 21 Nov 2026 15:00, 23 Nov 9:30, 16:00
    await alpaca.admin.set_clock(saturday, frozen=True)
    clock = await alpaca.trade(lambda client: client.get_clock())
    assert (clock.is_open, clock.next_open.timestamp(), clock.next_close.timestamp()) == (False, monday, bell)
    order = await alpaca.buy(1)
    resting = await alpaca.rest()
    assert (await alpaca.trade(lambda client: client.get_order_by_id(order.id))).status == "accepted"
    await alpaca.admin.set_clock(monday + 1, frozen=True)
    await alpaca.until(order, "filled")
    await alpaca.until(resting, "new")
    await alpaca.admin.set_clock(bell + 1, frozen=True)
    assert (await alpaca.until(resting, "expired")).expired_at is not None


async def test_orders_outlast_the_day_and_the_exchanges_session(alpaca: Alpaca) -> None:
    order = await alpaca.buy(1)
    await alpaca.until(order, "filled")
    await alpaca.admin.set_clock(alpaca.exchange.exchange.clock.now() + 3 * 86_400)
    await alpaca.admin.cut_links()
    found = await alpaca.trade(lambda client: client.get_order_by_id(order.id))
    assert found.status == OrderStatus.FILLED, "Alpaca remembers orders, not only today's"


async def test_a_rejection_by_the_market_comes_after_a_successful_answer(alpaca: Alpaca) -> None:
    await alpaca.admin.set_fault("reject_orders", "halted")
    order = await alpaca.buy(1)
    assert order.status == OrderStatus.PENDING_NEW
    assert (await alpaca.until(order, "rejected")).failed_at is not None


async def test_ids_are_uuids_that_never_change(alpaca: Alpaca) -> None:
    order = await alpaca.rest()
    assert isinstance(order.id, uuid.UUID)
    await alpaca.gateway.close()
    assert (await alpaca.trade(lambda client: client.get_orders()))[0].id == order.id
