"""An order's life as the clients of both libraries see it."""

from __future__ import annotations

from typing import Any

import exchange_calendars  # noqa: F401 - it takes seconds to import, which no order should wait for
import pytest

from .conftest import World, codes, eventually, ib, running


def apple() -> Any:
    return ib.Stock("AAPL", "SMART", "USD")


def statuses(trade: Any) -> list[str]:
    """The statuses that a trade went through, without repetitions."""
    seen: list[str] = []
    for entry in trade.log:
        if not seen or seen[-1] != entry.status:
            seen.append(entry.status)
    return seen


async def test_a_market_order_is_filled_with_its_commission_and_position(world: World) -> None:
    client = await world.connect()
    trade = client.placeOrder(apple(), ib.MarketOrder("BUY", 10, orderRef="mine"))
    await eventually(trade.isDone)
    await eventually(lambda: trade.fills and trade.fills[0].commissionReport.commission)
    assert statuses(trade) == ["PendingSubmit", "PreSubmitted", "Submitted", "Filled"]
    (fill,) = trade.fills
    assert (fill.execution.shares, fill.execution.side, fill.execution.orderRef) == (10, "BOT", "mine")
    assert fill.commissionReport.commission == 1.0
    assert trade.orderStatus.avgFillPrice == fill.execution.price
    assert trade.order.permId == fill.execution.permId > 0
    await eventually(lambda: [p.position for p in client.positions()] == [10])
    await eventually(lambda: [i.position for i in client.portfolio()] == [10])


async def test_a_limit_order_rests_is_changed_and_is_filled(world: World) -> None:
    client = await world.connect()
    trade = client.placeOrder(apple(), ib.LimitOrder("BUY", 10, 90.0))
    await eventually(lambda: trade.orderStatus.status == "Submitted")
    trade.order.lmtPrice = 91.0
    client.placeOrder(trade.contract, trade.order)
    await eventually(lambda: any(entry.message == "Modified" for entry in trade.log))
    (placed,) = await world.admin.orders(world.account)
    assert placed["limit_price"] == 91.0
    await world.admin.set_price("AAPL", 90.5)
    await eventually(trade.isDone)
    assert (trade.orderStatus.status, trade.fills[0].execution.price) == ("Filled", 91.0)


async def test_a_cancelled_order_says_202_and_cancelled(world: World) -> None:
    client = await world.connect()
    trade = client.placeOrder(apple(), ib.LimitOrder("BUY", 10, 90.0))
    await eventually(lambda: trade.orderStatus.status == "Submitted")
    client.cancelOrder(trade.order)
    await eventually(lambda: trade.orderStatus.status == "Cancelled")
    await eventually(lambda: 202 in codes(client))


async def test_a_stop_order_is_held_until_its_trigger(world: World) -> None:
    client = await world.connect()
    await world.admin.set_position(world.account, "AAPL", 10, 95.0)
    trade = client.placeOrder(apple(), ib.StopOrder("SELL", 10, 95.0))
    await eventually(lambda: trade.orderStatus.status == "PreSubmitted")
    await world.admin.set_price("AAPL", 94.0)
    await eventually(trade.isDone)
    assert trade.orderStatus.status == "Filled"


async def test_a_partial_fill_counts_up(world: World) -> None:
    await world.admin.set_fault("largest_fill", 4)
    client = await world.connect()
    trade = client.placeOrder(apple(), ib.MarketOrder("BUY", 10))
    await eventually(trade.isDone)
    assert [fill.execution.cumQty for fill in trade.fills] == [4, 8, 10]
    assert trade.orderStatus.filled == 10


async def test_what_cannot_be_cancelled_is_refused_with_its_code(world: World) -> None:
    client = await world.connect()
    filled = client.placeOrder(apple(), ib.MarketOrder("BUY", 10))
    await eventually(filled.isDone)
    client.client.cancelOrder(filled.order.orderId, *EXTRA_CANCEL_ARGUMENT)
    await eventually(lambda: 161 in codes(client))
    client.client.cancelOrder(987654, *EXTRA_CANCEL_ARGUMENT)
    await eventually(lambda: 10147 in codes(client))
    cancelled = client.placeOrder(apple(), ib.LimitOrder("BUY", 10, 90.0))
    await eventually(lambda: cancelled.orderStatus.status == "Submitted")
    client.cancelOrder(cancelled.order)
    await eventually(lambda: cancelled.orderStatus.status == "Cancelled")
    client.client.cancelOrder(cancelled.order.orderId, *EXTRA_CANCEL_ARGUMENT)
    await eventually(lambda: 10148 in codes(client))


EXTRA_CANCEL_ARGUMENT = [""]


async def test_an_order_beyond_buying_power_is_rejected_with_the_reason(world: World) -> None:
    client = await world.connect()
    trade = client.placeOrder(apple(), ib.MarketOrder("BUY", 5_000))
    await eventually(lambda: any(c == 201 and "INITIAL MARGIN" in t for _, c, t in client.told))
    assert "Filled" not in statuses(trade)
    assert (await world.admin.account(world.account))["positions"] == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"lmtPrice": 90.005}, 110),
        ({"totalQuantity": 0}, 434),
        ({"totalQuantity": 1.5}, 10243),
        ({"totalQuantity": -5}, 321),
        ({"totalQuantity": float("nan")}, 321),
        ({"action": "BYU"}, 321),
        ({"orderType": "GUESS"}, 387),
        ({"tif": "XYZ"}, 321),
        ({"eTradeOnly": True}, 10268),
        ({"firmQuoteOnly": True}, 10269),
        ({"account": "DU9"}, 321),
        ({"parentId": 77}, 135),
        ({"transmit": False, "lmtPrice": 90.005}, 110),
    ],
)
async def test_a_faulty_order_is_answered_with_its_code(
    world: World, changes: dict[str, Any], code: int
) -> None:
    client = await world.connect()
    order = ib.LimitOrder("BUY", 10, 90.0)
    for name, value in changes.items():
        setattr(order, name, value)
    client.placeOrder(apple(), order)
    await eventually(lambda: code in codes(client))
    assert await world.admin.orders(world.account) == []


async def test_an_order_for_an_unknown_symbol_is_error_200(world: World) -> None:
    client = await world.connect()
    client.placeOrder(ib.Stock("NOSUCH", "SMART", "USD"), ib.MarketOrder("BUY", 1))
    await eventually(lambda: 200 in codes(client))


async def test_a_preview_shows_margin_and_commission_and_places_nothing(world: World) -> None:
    client = await world.connect()
    state = await client.whatIfOrderAsync(apple(), ib.MarketOrder("BUY", 100))
    assert float(state.initMarginChange) == pytest.approx(2_500, rel=0.01)
    assert float(state.equityWithLoanBefore) == 100_000
    assert state.commission == 1.0
    assert await world.admin.orders(world.account) == []


async def test_an_order_belongs_to_the_client_that_placed_it(world: World) -> None:
    first, second = await world.connect(1), await world.connect(2)
    trade = first.placeOrder(apple(), ib.LimitOrder("BUY", 10, 90.0))
    await eventually(lambda: trade.orderStatus.status == "Submitted")
    assert await second.reqOpenOrdersAsync() == []
    (seen,) = await second.reqAllOpenOrdersAsync()
    assert (seen.order.clientId, seen.order.permId) == (1, trade.order.permId)
    second.client.cancelOrder(trade.order.orderId, *EXTRA_CANCEL_ARGUMENT)
    await eventually(lambda: 10147 in codes(second))
    assert trade.orderStatus.status == "Submitted"


async def test_a_global_cancel_ends_the_orders_of_all_clients(world: World) -> None:
    first, second = await world.connect(1), await world.connect(2)
    trade = first.placeOrder(apple(), ib.LimitOrder("BUY", 10, 90.0))
    await eventually(lambda: trade.orderStatus.status == "Submitted")
    second.reqGlobalCancel()
    await eventually(lambda: trade.orderStatus.status == "Cancelled")


async def test_a_used_order_id_is_not_taken_again(world: World) -> None:
    client = await world.connect()
    trade = client.placeOrder(apple(), ib.MarketOrder("BUY", 1))
    await eventually(trade.isDone)
    client.client.placeOrder(trade.order.orderId, apple(), ib.MarketOrder("BUY", 1))
    await eventually(lambda: 104 in codes(client))
    assert len(await world.admin.orders(world.account)) == 1


async def test_open_completed_and_executed_orders_are_found_after_reconnecting(world: World) -> None:
    client = await world.connect()
    filled = client.placeOrder(apple(), ib.MarketOrder("BUY", 10, orderRef="done"))
    await eventually(filled.isDone)
    resting = client.placeOrder(apple(), ib.LimitOrder("BUY", 10, 90.0, orderRef="waiting"))
    await eventually(lambda: resting.orderStatus.status == "Submitted")
    client.disconnect()
    again = await world.connect()
    (found,) = again.openTrades()
    assert (found.order.orderRef, found.order.permId) == ("waiting", resting.order.permId)
    assert found.order.lmtPrice == 90.0
    ended = next(t for t in again.trades() if t.orderStatus.status == "Filled")
    assert (ended.order.permId, ended.order.filledQuantity) == (filled.order.permId, 10)
    (fill,) = again.fills()
    assert fill.execution.orderRef == "done"
    again.cancelOrder(found.order)
    await eventually(lambda: found.orderStatus.status == "Cancelled")


async def test_executions_pass_the_filter(world: World) -> None:
    client = await world.connect()
    for symbol in ("AAPL", "MSFT"):
        trade = client.placeOrder(ib.Stock(symbol, "SMART", "USD"), ib.MarketOrder("BUY", 1))
        await eventually(trade.isDone)
    fills = await client.reqExecutionsAsync(ib.ExecutionFilter(symbol="MSFT"))
    assert [fill.contract.symbol for fill in fills] == ["MSFT"]
    assert await client.reqExecutionsAsync(ib.ExecutionFilter(clientId=7)) == []


async def test_executions_of_yesterday_are_forgotten(world: World) -> None:
    client = await world.connect()
    trade = client.placeOrder(apple(), ib.MarketOrder("BUY", 1))
    await eventually(trade.isDone)
    tomorrow = await world.admin.set_clock() + 86_400
    await world.admin.set_clock(tomorrow)
    async with running(world.admin, world.server, world.account) as later:
        again = await later.connect()
        assert await again.reqExecutionsAsync() == []
        assert [p.position for p in again.positions()] == [1]


async def test_outside_hours_an_order_waits_and_says_so(world: World) -> None:
    saturday = 1_795_276_800.0  # 2026-11-21 16:00 UTC
    await world.admin.set_market("calendar")
    await world.admin.set_clock(saturday, frozen=True)
    client = await world.connect()
    trade = client.placeOrder(apple(), ib.MarketOrder("BUY", 1))
    await eventually(lambda: any(c == 399 and "20261123 09:30:00" in t for _, c, t in client.told))
    assert trade.orderStatus.status in ("PreSubmitted", "ValidationError")


async def test_a_read_only_gateway_takes_no_orders(world: World) -> None:
    async with running(world.admin, world.server, world.account, read_only=True) as read_only:
        client = await read_only.connect(readonly=True)
        client.placeOrder(apple(), ib.MarketOrder("BUY", 1))
        await eventually(lambda: any(c == 321 and "Read-Only" in t for _, c, t in client.told))
        assert client.accountValues()
