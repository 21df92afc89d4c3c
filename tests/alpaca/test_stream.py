"""The trade_updates websocket through the unmodified TradingStream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from alpaca.trading.enums import TimeInForce
from alpaca.trading.requests import ReplaceOrderRequest
from alpaca.trading.stream import TradingStream

from tests.alpaca.conftest import KEY, SECRET, Alpaca


class Watched:
    """A running TradingStream and what it delivered."""

    def __init__(self, alpaca: Alpaca) -> None:
        url = f"ws{alpaca.url.removeprefix('http')}/stream"
        self.alpaca = alpaca
        self.stream = TradingStream(KEY, SECRET, url_override=url)
        self.stream._reconnect_min_backoff = self.stream._reconnect_max_backoff = 0.01
        self.updates: asyncio.Queue[Any] = asyncio.Queue()
        self.stream.subscribe_trade_updates(self._take)

    async def _take(self, update: Any) -> None:
        self.updates.put_nowait(update)

    async def next(self, event: str) -> Any:
        """The next update, which must be of this event."""
        update = await self.updates.get()
        assert update.event == event
        return update

    async def listening(self) -> None:
        """Until the gateway knows that somebody listens."""
        while not self.alpaca.listening():  # noqa: ASYNC110 -- the stream says nothing when it has begun
            await asyncio.sleep(0.005)


@pytest.fixture
async def watched(alpaca: Alpaca) -> AsyncIterator[Watched]:
    watched = Watched(alpaca)
    task = asyncio.create_task(watched.stream._run_forever())
    await watched.listening()
    yield watched
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await watched.stream.close()


async def test_a_market_orders_life_is_told_in_order(alpaca: Alpaca, watched: Watched) -> None:
    order = await alpaca.buy(10, client_order_id="mine")
    pending = await watched.next("pending_new")
    assert (pending.order.id, pending.order.client_order_id) == (order.id, "mine")
    assert (await watched.next("new")).order.status == "new"
    fill = await watched.next("fill")
    assert (fill.qty, fill.price, fill.position_qty) == (10, 100.01, 10)
    assert (fill.order.status, fill.order.filled_qty) == ("filled", "10")
    assert fill.execution_id is not None


async def test_partial_fills_are_told_one_by_one(alpaca: Alpaca, watched: Watched) -> None:
    await alpaca.admin.set_fault("largest_fill", 4.0)
    await alpaca.buy(6, time_in_force=TimeInForce.GTC)
    await watched.next("pending_new")
    await watched.next("new")
    first, last = await watched.next("partial_fill"), await watched.next("fill")
    assert (first.qty, first.order.filled_qty, first.order.status) == (4, "4", "partially_filled")
    assert (last.qty, last.position_qty, last.order.filled_qty) == (2, 6, "6")


async def test_replacing_and_canceling_are_told(alpaca: Alpaca, watched: Watched) -> None:
    order = await alpaca.rest()
    await watched.next("pending_new")
    await watched.next("new")
    change = ReplaceOrderRequest(limit_price=91.0)
    new = await alpaca.trade(lambda client: client.replace_order_by_id(order.id, change))
    replaced = await watched.next("replaced")
    assert (replaced.order.id, replaced.order.replaced_by) == (order.id, new.id)
    await watched.next("pending_new")
    assert (await watched.next("new")).order.id == new.id
    await alpaca.trade(lambda client: client.cancel_order_by_id(new.id))
    assert (await watched.next("canceled")).order.id == new.id


async def test_a_rejection_is_told(alpaca: Alpaca, watched: Watched) -> None:
    await alpaca.admin.set_fault("reject_orders", "halted")
    order = await alpaca.buy(1)
    assert (await watched.next("rejected")).order.id == order.id


@pytest.mark.parametrize("cause", ["drop_streams", "cut_links"])
async def test_after_a_drop_the_client_listens_again_and_the_gap_is_not_told(
    alpaca: Alpaca, watched: Watched, cause: str
) -> None:
    before = alpaca.listening()
    if cause == "drop_streams":
        await alpaca.fault("drop_streams")
    else:
        await alpaca.admin.cut_links()
    while alpaca.listening() == before:  # noqa: ASYNC110 -- the stream says nothing when it has begun
        await asyncio.sleep(0.005)
    await watched.listening()
    await alpaca.buy(1)
    for event in ("pending_new", "new", "fill"):
        await watched.next(event)


async def test_frames_are_binary_and_strangers_hear_nothing(alpaca: Alpaca) -> None:
    url = f"ws{alpaca.url.removeprefix('http')}/stream"
    async with websockets.connect(url) as socket:

        async def said(**message: Any) -> Any:
            await socket.send(json.dumps(message))
            answer = await socket.recv()
            assert isinstance(answer, bytes), "the paper stream uses binary frames"
            return json.loads(answer)

        listen = {"action": "listen", "data": {"streams": ["trade_updates", "other"]}}
        assert (await said(**listen))["data"] == {"status": "unauthorized", "action": "listen"}
        wrong = await said(action="authenticate", data={"key_id": KEY, "secret_key": "wrong"})
        assert wrong["data"]["status"] == "unauthorized"
        right = await said(action="auth", key=KEY, secret=SECRET)
        assert right == {
            "stream": "authorization",
            "data": {"status": "authorized", "action": "authenticate"},
        }
        assert (await said(**listen)) == {"stream": "listening", "data": {"streams": ["trade_updates"]}}
        assert (await said(action="nonsense"))["stream"] == "error"
