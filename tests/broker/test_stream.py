"""Order events: in order, to everybody, without a slow or failing listener holding up the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from broker.brokers.simulated import SimulatedBroker
from broker.models import OrderEvent
from broker.stream import AsyncUpdates, EventStream, Updates
from tests.broker.paper_gateway import eventually


def event(number: int) -> OrderEvent:
    return OrderEvent("status", "2026-11-20T15:00:00+00:00", message=str(number))


def numbers(events: list[OrderEvent]) -> list[str]:
    return [e.message for e in events]


def test_events_come_in_order_to_every_listener_until_it_leaves() -> None:
    stream = EventStream("test")
    first: list[OrderEvent] = []
    second: list[OrderEvent] = []
    leave = stream.subscribe(first.append)
    stream.subscribe(second.append)
    for number in range(100):
        stream.publish(event(number))
    eventually(lambda: len(first) == len(second) == 100, "both heard all")
    leave()
    stream.publish(event(100))
    eventually(lambda: len(second) == 101, "the other goes on")
    assert numbers(first) == [str(n) for n in range(100)]


def test_a_listener_that_fails_costs_the_others_nothing() -> None:
    stream = EventStream("test")
    heard: list[OrderEvent] = []

    def fails(_event: OrderEvent) -> None:
        raise ValueError("a listener's own mistake")

    stream.subscribe(fails)
    stream.subscribe(heard.append)
    stream.publish(event(1))
    stream.publish(event(2))
    eventually(lambda: numbers(heard) == ["1", "2"], "the other heard both")


def test_a_listener_that_falls_behind_is_told_of_a_gap_once() -> None:
    subscribed: list[Callable[[OrderEvent], None]] = []
    updates = Updates(lambda callback: subscribed.append(callback) or (lambda: None), backlog=3)
    for number in range(10):
        subscribed[0](event(number))
    updates.close()
    found = list(updates)
    assert [e.kind for e in found] == ["status", "status", "status", "gap"]


def test_closing_wakes_who_waits() -> None:
    updates = Updates(EventStream("test").subscribe)
    ended = threading.Event()

    def read() -> None:
        list(updates)
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    updates.close()
    assert ended.wait(10)


async def test_asynchronous_updates_end_when_they_are_closed() -> None:
    stream = EventStream("test")
    updates = AsyncUpdates(stream.subscribe, backlog=2)
    for number in range(5):
        stream.publish(event(number))
    async with asyncio.timeout(10):
        found = [await anext(updates) for _ in range(2)]
        await updates.aclose()
        found += [late async for late in updates]
    assert numbers(found)[:2] == ["0", "1"]
    assert all(e.kind == "gap" or e.message.isdigit() for e in found)


async def test_a_brokers_updates_come_on_the_callers_loop() -> None:
    broker = SimulatedBroker()
    broker.connect()
    async with broker.order_updates_async() as updates:
        broker.place_market_order("AAPL", 1, "buy")
        async with asyncio.timeout(10):
            kinds = [(await anext(updates)).kind for _ in range(2)]
    assert kinds == ["fill", "status"]
