"""Brackets, groups and trailing stops as the clients of both libraries see them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from .conftest import World, codes, eventually, ib, running


def apple() -> Any:
    return ib.Stock("AAPL", "SMART", "USD")


def send_bracket(client: Any, count: int = 3, **entry: Any) -> list[Any]:
    """The first orders of the library's own bracket: 10 shares, profit at 110, stop at 95."""
    orders = client.bracketOrder("BUY", 10, entry.pop("limit", 101.0), 110.0, 95.0)
    for name, value in entry.items():
        setattr(orders[0], name, value)
    return [client.placeOrder(apple(), order) for order in orders[:count]]


def states(trades: list[Any]) -> list[str]:
    return [trade.orderStatus.status for trade in trades]


async def test_a_bracket_leaves_with_its_last_child(world: World) -> None:
    client = await world.connect()
    entry, profit = send_bracket(client, 2)
    await client.reqCurrentTimeAsync()  # the gateway has read both
    assert await world.admin.orders(world.account) == []
    assert await client.reqAllOpenOrdersAsync() == []
    stop = client.placeOrder(
        apple(), ib.StopOrder("SELL", 10, 95.0, parentId=entry.order.orderId, transmit=True)
    )
    await eventually(entry.isDone)
    assert entry.orderStatus.status == "Filled"
    await eventually(lambda: states([profit, stop]) == ["Submitted", "PreSubmitted"])
    assert stop.orderStatus.whyHeld == "trigger"
    await world.admin.set_price("AAPL", 94.0)
    await eventually(stop.isDone)
    await eventually(lambda: states([profit, stop]) == ["Cancelled", "Filled"])


async def test_children_wait_for_their_parent_in_a_group_of_their_own(world: World) -> None:
    client = await world.connect()
    entry, profit, stop = send_bracket(client, limit=90.0)
    await eventually(lambda: states([entry, profit, stop]) == ["Submitted", "PreSubmitted", "PreSubmitted"])
    assert [trade.orderStatus.whyHeld for trade in (profit, stop)] == ["child", "child,trigger"]
    assert profit.orderStatus.parentId == entry.order.orderId
    await client.reqOpenOrdersAsync()
    other = await world.connect(2)
    shown = {t.order.permId: t.order for t in await other.reqAllOpenOrdersAsync() and other.openTrades()}
    child = shown[profit.order.permId]
    assert (child.ocaGroup, child.ocaType) == (str(entry.order.permId), 3)
    assert child.parentId == entry.order.orderId


async def test_cancelling_the_parent_cancels_its_children(world: World) -> None:
    client = await world.connect()
    trades = send_bracket(client, limit=90.0)
    await eventually(lambda: states(trades) == ["Submitted", "PreSubmitted", "PreSubmitted"])
    client.cancelOrder(trades[0].order)
    await eventually(lambda: states(trades) == ["Cancelled"] * 3)


async def test_children_become_active_in_proportion(world: World) -> None:
    client = await world.connect()
    await world.admin.set_fault("largest_fill", 4)
    entry, profit, stop = client.bracketOrder("BUY", 800, 101.0, 110.0, 95.0)
    trades = [client.placeOrder(apple(), order) for order in (entry, profit, stop)]
    await eventually(lambda: trades[0].orderStatus.filled >= 8)
    await world.admin.set_price("AAPL", 111.0)  # beyond the parent's limit, at the child's
    await eventually(lambda: trades[1].orderStatus.filled == trades[0].orderStatus.filled)
    assert 8 <= trades[1].orderStatus.filled < 800
    assert trades[2].order.orderType == "STP"
    rows = {row["order_type"]: row for row in await world.admin.orders(world.account) if row["parent"]}
    assert rows["STP"]["quantity"] == 800 - rows["LMT"]["filled"], "what the other has closed is off it"
    assert (await world.admin.account(world.account))["positions"] == []


async def test_a_refused_bracket_is_refused_as_a_whole(world: World) -> None:
    client = await world.connect()
    entry, profit, stop = client.bracketOrder("BUY", 10_000, 101.0, 110.0, 95.0)
    trades = [client.placeOrder(apple(), order) for order in (entry, profit, stop)]
    await eventually(lambda: codes(client).count(201) == 3)
    assert states(trades).count("Filled") == 0


async def test_without_a_refused_child_the_rest_leaves_all_the_same(world: World) -> None:
    """The trap: the parent waits for a child that transmits, whichever others there are."""
    client = await world.connect()
    entry, profit, stop = client.bracketOrder("BUY", 10, 90.0, 110.005, 85.0)
    for order in (entry, profit, stop):
        client.placeOrder(apple(), order)
    await eventually(lambda: 110 in codes(client))

    async def placed() -> list[Any]:
        return list(await world.admin.orders(world.account))

    await eventually(lambda: any(t.orderStatus.status == "Submitted" for t in client.trades()))
    assert [row["order_type"] for row in await placed()] == ["LMT", "STP"]


async def test_what_was_not_transmitted_is_shown_to_nobody_and_can_be_cancelled(world: World) -> None:
    client = await world.connect()
    entry, profit = send_bracket(client, 2)
    await client.reqCurrentTimeAsync()
    client.disconnect()
    again = await world.connect()
    assert again.openTrades() == []
    assert (1, entry.order.orderId) in world.gateway.held
    again.client.cancelOrder(entry.order.orderId, *[""])
    await eventually(lambda: 202 in codes(again))
    assert world.gateway.held == {}, f"and its child {profit.order.orderId}"


async def test_a_restart_forgets_what_was_not_transmitted(world: World) -> None:
    client = await world.connect()
    send_bracket(client, 2)
    await client.reqCurrentTimeAsync()
    await world.admin.gateway("restart", seconds=0.05)
    await eventually(lambda: world.gateway.held == {})


async def test_a_child_is_changed_without_its_parents_id_once_that_has_filled(world: World) -> None:
    """ib_insync 647: with the parent's id, TWS says that it can't find the order with that id."""
    client = await world.connect()
    entry, _profit, stop = send_bracket(client)
    await eventually(entry.isDone)
    changed = copy.copy(stop.order)  # the library writes what TWS tells into its own
    changed.auxPrice = 96.0
    client.client.placeOrder(changed.orderId, apple(), changed)
    await eventually(lambda: 135 in codes(client))
    changed.parentId = 0
    client.client.placeOrder(changed.orderId, apple(), changed)

    async def stopped_at() -> list[float]:
        return [row["stop_price"] for row in await world.admin.orders(world.account)]

    await eventually(lambda: stop.orderStatus.status == "PreSubmitted")
    for _ in range(200):
        if 96.0 in await stopped_at():
            break
    assert 96.0 in await stopped_at()


@pytest.mark.parametrize("oca_type", [1, 3])
async def test_of_a_group_one_fills_and_the_others_end(world: World, oca_type: int) -> None:
    client = await world.connect()
    await world.admin.set_position(world.account, "AAPL", 10, 95.0)
    group = {"ocaGroup": "mine", "ocaType": oca_type}
    profit = client.placeOrder(apple(), ib.LimitOrder("SELL", 10, 110.0, **group))
    stop = client.placeOrder(apple(), ib.StopOrder("SELL", 10, 95.0, **group))
    await eventually(lambda: states([profit, stop]) == ["Submitted", "PreSubmitted"])
    await world.admin.set_price("AAPL", 111.0)
    await eventually(lambda: states([profit, stop]) == ["Filled", "Cancelled"])


async def test_a_trailing_stops_price_is_told_as_it_moves(world: World) -> None:
    client = await world.connect()
    await world.admin.set_position(world.account, "AAPL", 10, 95.0)
    order = ib.Order(action="SELL", totalQuantity=10, orderType="TRAIL", auxPrice=5.0, trailStopPrice=96.0)
    trade = client.placeOrder(apple(), order)
    await eventually(lambda: trade.orderStatus.status == "PreSubmitted")

    async def told() -> float:
        other = await world.connect(2)
        await other.reqAllOpenOrdersAsync()
        (seen,) = other.openTrades()
        other.disconnect()
        return float(seen.order.trailStopPrice)

    assert await told() == 96.0
    await world.admin.set_price("AAPL", 120.0)
    for _ in range(100):
        if (moved := await told()) > 96.0:
            break
    assert moved == pytest.approx(115.0, abs=0.02)
    await world.admin.set_price("AAPL", 114.0)
    await eventually(trade.isDone)
    assert trade.orderStatus.status == "Filled"


async def test_children_keep_their_order_ids_over_a_new_gateway(world: World) -> None:
    client = await world.connect()
    trades = send_bracket(client, limit=90.0)
    await eventually(lambda: states(trades) == ["Submitted", "PreSubmitted", "PreSubmitted"])
    client.disconnect()
    async with running(world.admin, world.server, world.account) as later:
        again = await later.connect()
        numbers = sorted(trade.order.orderId for trade in again.openTrades())
        assert numbers == sorted(trade.order.orderId for trade in trades)
