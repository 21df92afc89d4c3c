"""How calls reach the broker's loop, and how its coroutines wait for what TWS says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from broker.brokers.ibkr.loop import LoopThread
from broker.brokers.ibkr.signals import Signal, first


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    made = LoopThread("test-loop")
    yield made
    if not made.loop.is_closed():
        made.stop()


async def fail() -> None:
    raise KeyError("what it raises")


def test_a_call_gets_the_result_or_the_error(thread: LoopThread) -> None:
    assert thread.run(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(KeyError, match="what it raises"):
        thread.run(fail())


def test_a_call_that_is_under_way_when_the_loop_stops_ends(thread: LoopThread) -> None:
    begun, ended = threading.Event(), list[type[BaseException]]()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            thread.run(hang())
        except BaseException as failure:
            ended.append(type(failure))

    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(5)
    thread.stop()
    caller.join(5)
    assert ended == [CancelledError]


def test_a_call_that_comes_too_late_ends_and_does_nothing(thread: LoopThread) -> None:
    thread.stop()
    done: list[str] = []

    async def work() -> None:
        done.append("done")

    with pytest.raises(CancelledError):
        thread.run(work())
    assert done == []


async def test_a_caller_on_another_loop_who_gives_up_ends_the_work(thread: LoopThread) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    waiting = asyncio.ensure_future(thread.wait(hang()))
    await asyncio.to_thread(begun.wait, 5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(cancelled.wait, 5)
    assert thread.run(asyncio.sleep(0, "the loop lives")) == "the loop lives"


async def test_the_first_signal_ends_the_waiting_and_so_does_the_time() -> None:
    one, other = Signal(), Signal()
    asyncio.get_running_loop().call_soon(other.set)
    await asyncio.wait_for(first(one, other), 5)
    assert (one.is_set(), other.is_set()) == (False, True)
    await asyncio.wait_for(first(one, other), 5)  # what has happened is not waited for
    await first(one, timeout=0.01)
    assert not one.is_set()
    other.clear()
    asyncio.get_running_loop().call_soon(one.set)
    await asyncio.wait_for(asyncio.gather(one.wait(), first(one, other)), 5)
