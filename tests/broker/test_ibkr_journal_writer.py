"""The thread that writes what TWS says outlives everything that can happen to one piece of its work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.brokers.ibkr import IBKRBroker
from broker.brokers.ibkr.journal_writer import JournalWriter
from broker.fills import FillBook
from tests.broker.ordering import settled
from tests.broker.paper_gateway import Paper, eventually


@pytest.fixture
def writer() -> Iterator[JournalWriter]:
    made = JournalWriter("test-journal")
    yield made
    made.stop()


async def test_giving_up_waiting_for_a_comparison_does_not_end_the_writer(writer: JournalWriter) -> None:
    """Soak, ibkr, seed 2, schedule 72: the connection broke during a comparison, and none came again."""
    begun, go_on = threading.Event(), threading.Event()

    def compare() -> bool:
        begun.set()
        return go_on.wait(5)

    async def watch() -> bool:
        return await asyncio.wrap_future(writer.run(compare))

    watching = asyncio.create_task(watch())
    await asyncio.to_thread(begun.wait, 5)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    go_on.set()
    assert writer.run(lambda: "written").result(5) == "written"


def test_what_was_given_up_before_its_turn_is_not_done(writer: JournalWriter) -> None:
    go_on, done = threading.Event(), threading.Event()
    writer.put(lambda: go_on.wait(5))
    outcome = writer.run(done.set)
    assert outcome.cancel()
    go_on.set()
    writer.flush()
    assert not done.is_set()


def test_an_error_that_nobody_expected_does_not_end_the_writer(writer: JournalWriter) -> None:
    def fail() -> None:
        raise KeyError("unexpected")

    writer.put(fail)
    assert writer.run(lambda: "written").result(5) == "written"


def test_a_connection_that_breaks_during_a_comparison_is_made_again(
    broker: IBKRBroker, paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    compare: Callable[..., Any] = FillBook.compare

    def slow(*arguments: Any, **options: Any) -> Any:
        begun.set()
        go_on.wait(10)
        return compare(*arguments, **options)

    monkeypatch.setattr(FillBook, "compare", slow)
    broker.place_market_order("AAPL", 1, "buy")
    assert begun.wait(10), "the position moved, so it is compared with the fills"
    paper.gateway("drop_clients")
    eventually(lambda: broker.health().state == "disconnected", "the loss is noticed")
    go_on.set()
    eventually(lambda: broker.health().ok, "it connects again")
    assert settled(broker, broker.place_market_order("AAPL", 2, "buy"), "filled").filled_qty == 2
