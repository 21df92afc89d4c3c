"""The thread that writes what TWS says outlives everything that can happen to one piece of its work."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from broker.brokers.ibkr import IBKRBroker
from broker.brokers.ibkr.journal_writer import JournalWriter
from broker.brokers.ibkr.orders import TRAIL, TrackedOrder
from broker.errors import JournalUnavailable, OrderRejected
from broker.fills import FillBook
from broker.journal import Journal
from broker.models import OrderReport, Status
from tests.broker.ordering import request, settled
from tests.broker.paper_gateway import Paper, eventually


@pytest.fixture
def commits(journal: Journal) -> list[Connection]:
    """The journal's transactions from now on."""
    found: list[Connection] = []
    event.listen(journal.engine, "commit", found.append)
    return found


@pytest.fixture
def writer(journal: Journal) -> Iterator[JournalWriter]:
    made = JournalWriter("test-journal", journal)
    yield made
    made.stop()


def told(said: list[str], what: str) -> Callable[[], None]:
    return lambda: said.append(what)


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
    writer.run(lambda: go_on.wait(5))
    outcome = writer.run(done.set)
    assert outcome.cancel()
    go_on.set()
    writer.flush()
    assert not done.is_set()


def test_an_error_that_nobody_expected_does_not_end_the_writer(writer: JournalWriter) -> None:
    def fail() -> Callable[[], None]:
        raise KeyError("unexpected")

    writer.put("one", fail)
    assert writer.run(lambda: "written").result(5) == "written"


def test_what_waits_under_one_key_is_written_once_and_all_of_it_in_one_commit(
    writer: JournalWriter, journal: Journal, commits: list[Connection]
) -> None:
    order, _ = journal.enter("A1", request(client_order_id="one"))
    go_on, said = threading.Event(), list[str]()
    writer.run(lambda: go_on.wait(5))

    def write(status: str) -> Callable[[], None]:
        return told(said, journal.update(order.id, OrderReport(status)).status)

    commits.clear()
    for key in ("one", "one", "two", "one"):
        writer.put(key, functools.partial(write, Status.SUBMITTED))
    go_on.set()
    writer.flush()
    assert said == [Status.SUBMITTED, Status.SUBMITTED], "once for each key"
    assert len(commits) == 1
    writer.put("one", functools.partial(write, Status.CANCELLED))
    writer.flush()
    assert journal.get("A1", order.id).status == Status.CANCELLED, "a key that was written may come again"


def test_one_write_that_fails_costs_the_others_nothing_and_nobody_is_told_of_it(
    writer: JournalWriter, journal: Journal
) -> None:
    order, _ = journal.enter("A1", request(client_order_id="one"))
    go_on, said = threading.Event(), list[str]()
    writer.run(lambda: go_on.wait(5))

    def update() -> Callable[[], None]:
        journal.update(order.id, OrderReport(Status.SUBMITTED))
        return told(said, "updated")

    def fail() -> Callable[[], None]:
        raise KeyError("unexpected")

    writer.put("one", update)
    writer.put("two", fail)
    go_on.set()
    writer.flush()
    assert (said, journal.get("A1", order.id).status) == (["updated"], Status.SUBMITTED)


def test_news_wait_for_a_database_that_is_away_and_whoever_needs_them_is_refused(
    writer: JournalWriter, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, _ = journal.enter("A1", request(client_order_id="one"))
    away = threading.Event()
    away.set()

    def refuse(_: Connection) -> None:
        if away.is_set():
            raise OperationalError("BEGIN", None, Exception("the database is away"))

    event.listen(journal.engine, "begin", refuse, insert=True)
    monkeypatch.setattr("broker.brokers.ibkr.journal_writer._PAUSE", 0.05)
    said = list[str]()
    writer.put("one", lambda: told(said, journal.update(order.id, OrderReport(Status.FILLED)).status))
    with pytest.raises(JournalUnavailable):
        writer.flush(0.3)
    assert said == []
    away.clear()
    writer.flush()
    assert said == [Status.FILLED]


@pytest.mark.parametrize(("price", "status"), [(100.0, Status.SUBMITTED), (210.0, Status.FILLED)])
def test_a_process_that_dies_between_the_answer_and_its_commit_leaves_an_order_that_is_looked_up(
    make_broker: Callable[..., IBKRBroker],
    paper: Paper,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    price: float,
    status: str,
) -> None:
    with monkeypatch.context() as dead:
        first = make_broker()
        first.connect()
        dead.setattr(JournalWriter, "_write", lambda *_: None)  # nothing reaches the journal any more
        asked = request(order_type="limit", limit_price=price, client_order_id="one", time_in_force="gtc")
        answered = first.place_order(asked).status
        assert answered in (status, Status.ACCEPTED, Status.SUBMITTED), "the caller was answered"
        first.disconnect()
        [left] = journal.recent(paper.account, 10)
        assert left.status == Status.SENT
    second = make_broker()
    second.start()
    eventually(lambda: second.health().ok, "the gateway has noticed that the first is gone")
    assert second.get_order(left.id).status == status
    assert second.place_order(asked).id == left.id
    assert len(paper.book()) == 1
    assert sum(f.qty for f in second.get_fills()) == (5 if status == Status.FILLED else 0)


def test_a_refusal_is_committed_before_the_caller_hears_of_it(broker: IBKRBroker, journal: Journal) -> None:
    with pytest.raises(OrderRejected) as refused:
        broker.place_order(request(qty=9_000_000))
    assert refused.value.order is not None
    kept = journal.get(refused.value.order.account_id, refused.value.order.id)
    assert kept.status == Status.REJECTED, "TWS may not tell of it again"


def test_the_days_orders_of_others_are_entered_in_one_transaction(
    broker: IBKRBroker, make_broker: Callable[..., IBKRBroker], tmp_path: Path
) -> None:
    for number in range(5):
        broker.place_limit_order("AAPL", 1, "buy", 100.0 + number, time_in_force="gtc")
    empty = Journal.in_file(str(tmp_path / "empty.sqlite"))
    commits: list[Connection] = []
    event.listen(empty.engine, "commit", commits.append)
    broker.cancel_all_orders()
    other = make_broker(journal=empty, client_id=7)
    other.connect()
    assert len(commits) == 1
    history = other.get_orders_history()
    assert sorted(o.limit_price or 0 for o in history) == [100.0, 101.0, 102.0, 103.0, 104.0]
    assert {o.status for o in history} == {Status.CANCELLED}
    other.disconnect()
    other.connect()
    assert other.get_orders_history() == history, "they are known the second time"


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


def test_what_happens_while_the_database_is_away_is_told_later_with_its_own_times(
    broker: IBKRBroker, paper: Paper, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.brokers.ibkr.journal_writer._PAUSE", 0.05)
    asked = request(order_type="limit", limit_price=190.0, time_in_force="gtc")
    order = settled(broker, broker.place_order(asked), "submitted")
    away = threading.Event()

    def refuse(_: Connection) -> None:
        if away.is_set():
            raise OperationalError("BEGIN", None, Exception("the database is away"))

    event.listen(journal.engine, "begin", refuse, insert=True)
    away.set()
    tracked = broker._session().book.by_journal_id(order.id)
    assert tracked is not None
    broker._call(broker._cancel(order))
    eventually(lambda: tracked.status == Status.CANCELLED, "TWS has said it")
    back = datetime.now(UTC)
    away.clear()
    life = broker.get_order_timeline(order.id)
    asked_at, ended = [entry for entry in life.entries if entry.status is not None][-2:]
    assert (asked_at.status, ended.status) == (Status.PENDING_CANCEL, Status.CANCELLED)
    assert asked_at.at <= ended.at < back.isoformat()
    assert life.complete
    assert not tracked.trail, "nothing waits any more"


def test_states_that_wait_for_the_journal_are_bounded_and_the_last_one_counts() -> None:
    tracked = TrackedOrder(1, 7, qty=5.0)
    for number in range(3 * TRAIL):
        tracked.warnings.append(f"{number}: a remark")
        tracked.note_state()
        tracked.note_state()
    assert len(tracked.trail) == TRAIL
    assert len(tracked.report().warnings) == len(tracked.trail[-1].warnings) == 3 * TRAIL
