"""What goes wrong between AlpacaBroker and Alpaca: lost answers, refusals at the door, gaps.

Over real sockets and the real alpaca-py. What reached the wire is counted at the front end, and what
became of an order is read from the exchange's book.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from broker.brokers.alpaca import AlpacaBroker, stream, wire
from broker.brokers.alpaca.wire import NeverLeft
from broker.errors import (
    NotConnected,
    OrderOutcomeUnknown,
    OrderRejected,
    RateLimited,
)
from broker.journal import Journal
from broker.models import Order, OrderEvent
from broker.tables import orders
from soak.certificate import loopback_certificate
from tests.broker.ordering import request, settled
from tests.broker.paper_alpaca import ACCOUNT, PaperAlpaca, paper_alpaca
from tests.broker.paper_gateway import eventually


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream connects again at once."""
    monkeypatch.setattr(stream, "BACK_OFF", (0.05, 0.1))


@pytest.fixture
def alpaca() -> Iterator[PaperAlpaca]:
    with paper_alpaca() as made:
        yield made


@pytest.fixture
def broker(alpaca: PaperAlpaca, journal: Journal) -> Iterator[AlpacaBroker]:
    made = alpaca.broker(journal)
    made.connect()
    eventually(lambda: made.health().details["stream"] == "connected", "the stream listens")
    # The first look at everything is over: faults hit what the test does.
    eventually(lambda: made.health().details["reconciled"], "the journal is in line with Alpaca")
    yield made
    made.disconnect()


def rest(broker: AlpacaBroker, client_order_id: str = "mine") -> Order:
    return broker.place_limit_order("AAPL", 10, "buy", 90.0, client_order_id=client_order_id)


@pytest.mark.parametrize("status", [504, 502, 0], ids=["504", "502", "connection broken"])
def test_an_order_whose_answer_is_lost_is_sent_once_and_found(
    alpaca: PaperAlpaca, broker: AlpacaBroker, status: int
) -> None:
    """alpaca-py by itself POSTs four times on 504."""
    alpaca.fault("lose_answers", status=status, times=4, methods=["POST"])
    order = rest(broker)
    assert order.status in ("pending", "submitted")
    assert (alpaca.posts(), len(alpaca.book())) == (1, 1)


@pytest.mark.parametrize("status", [500, 503, 504])
def test_an_order_of_which_nothing_is_known_is_unknown_not_rejected(
    alpaca: PaperAlpaca, broker: AlpacaBroker, status: int
) -> None:
    alpaca.fault("api_errors", status=status, times=4, methods=["POST"])
    with pytest.raises(OrderOutcomeUnknown) as silence:
        rest(broker)
    assert (alpaca.posts(), alpaca.book()) == (1, [])
    assert broker.get_order(silence.value.order.id).status == "unknown", "not finding it proves nothing"
    with pytest.raises(OrderOutcomeUnknown):
        rest(broker)
    assert alpaca.posts() == 1, "a repeated call looks it up, and never sends it again"


def test_an_unknown_order_is_settled_once_alpaca_shows_it(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    broker.place_limit_order("AAPL", 1, "buy", 50.0)  # the asset is known from here on
    alpaca.fault("lose_answers", status=504, methods=["POST"])
    alpaca.fault("api_errors", status=503, times=1, methods=["GET"])
    with contextlib.suppress(OrderOutcomeUnknown):  # the stream may tell of it first
        rest(broker)
    settled(broker, broker.get_order_by_client_id("mine"), "submitted")
    assert (alpaca.posts(), len(alpaca.book())) == (2, 2)


def test_an_order_that_alpaca_carries_out_late_is_found_although_nobody_asks_and_no_stream_tells(
    alpaca: PaperAlpaca, broker: AlpacaBroker, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 504 says that somebody on the way stopped waiting, not that nothing follows."""
    monkeypatch.setattr("broker.brokers.alpaca.news.AGAIN", 0.1)
    broker.place_limit_order("AAPL", 1, "buy", 50.0)  # the asset is known from here on
    _deafen(alpaca)
    alpaca.fault("late_requests", seconds=5.0, methods=["POST"])
    with pytest.raises(OrderOutcomeUnknown) as silence:
        rest(broker)
    order = silence.value.order
    eventually(lambda: broker.health().details["unknown_outcomes"] == 1, "it was looked for, and not found")
    assert journal.get(ACCOUNT, order.id).status == "unknown", "not yet shown is no proof of absence"
    eventually(lambda: journal.get(ACCOUNT, order.id).status == "submitted", "it is found")
    eventually(lambda: broker.health().details["unknown_outcomes"] == 0, "nothing is unknown any more")
    assert (alpaca.posts(), len(alpaca.book())) == (2, 2)


def test_an_order_that_never_shows_stays_unknown_and_is_looked_for_ever_more_slowly(
    alpaca: PaperAlpaca, broker: AlpacaBroker, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.brokers.alpaca.news.AGAIN", 0.05)
    monkeypatch.setattr("broker.brokers.alpaca.news.MOST", 0.4)
    told: list[Order] = []
    journal.outcome_unknown = told.append
    alpaca.fault("api_errors", status=503, methods=["POST"])
    with pytest.raises(OrderOutcomeUnknown) as silence:
        rest(broker)
    order = silence.value.order
    asked = alpaca.sent("GET", ":by_client_order_id")
    eventually(lambda: alpaca.sent("GET", ":by_client_order_id") >= asked + 6, "it is looked for")
    assert broker._news._look_pause == 0.4
    assert journal.get(ACCOUNT, order.id).status == "unknown", "however often it wasn't found"
    assert broker.health().details["unknown_outcomes"] == 1
    assert [o.id for o in told] == [order.id], "people are told once"
    assert (alpaca.posts(), alpaca.book()) == (1, [])


def test_an_old_unknown_order_is_not_looked_for_by_itself_any_more(
    alpaca: PaperAlpaca, broker: AlpacaBroker, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.brokers.alpaca.news.AGAIN", 0.05)
    monkeypatch.setattr("broker.brokers.alpaca.news.LOOKED_FOR", timedelta(0))
    alpaca.fault("api_errors", status=503, methods=["POST"])
    with pytest.raises(OrderOutcomeUnknown) as silence:
        rest(broker)
    eventually(lambda: broker.health().details["unknown_outcomes"] == 1, "it was looked for once")
    assert broker._news._look_at == float("inf")
    asked = alpaca.sent("GET", ":by_client_order_id")
    assert broker.get_order(silence.value.order.id).status == "unknown", (
        "whoever asks for it has it looked up"
    )
    assert alpaca.sent("GET", ":by_client_order_id") == asked + 1


def test_unknown_orders_are_looked_for_after_a_restart(
    alpaca: PaperAlpaca, broker: AlpacaBroker, journal: Journal
) -> None:
    broker.place_limit_order("AAPL", 1, "buy", 50.0)
    alpaca.fault("late_requests", seconds=5.0, methods=["POST"])
    with pytest.raises(OrderOutcomeUnknown) as silence:
        rest(broker)
    broker.disconnect()  # nobody hears of it when it comes
    eventually(lambda: len(alpaca.book()) == 2, "Alpaca has it after all")
    assert journal.get(ACCOUNT, silence.value.order.id).status == "unknown"
    back = alpaca.broker(journal)
    back.connect()
    eventually(lambda: journal.get(ACCOUNT, silence.value.order.id).status == "submitted", "it is found")
    back.disconnect()


def _deafen(alpaca: PaperAlpaca) -> None:
    """The stream stays open and tells nothing more."""

    async def forget() -> None:
        for session in alpaca.gateway.sessions.values():
            session.listeners = []

    alpaca.run(forget())


def test_a_rate_limit_says_when_to_come_back_and_leaves_the_order_unsent(
    alpaca: PaperAlpaca, broker: AlpacaBroker
) -> None:
    alpaca.fault("api_errors", status=429, methods=["POST"])
    with pytest.raises(RateLimited) as limited:
        rest(broker)
    assert 0 < limited.value.retry_after <= 60
    assert alpaca.posts() == 1, "alpaca-py would have repeated it"
    assert rest(broker).status in ("pending", "submitted")
    assert len(alpaca.book()) == 1


def test_orders_use_the_minute_up_and_a_cancel_still_gets_through(
    alpaca: PaperAlpaca, broker: AlpacaBroker
) -> None:
    order = settled(broker, rest(broker), "submitted")
    alpaca.run(_limit(alpaca, 200))

    def burst() -> None:
        for number in range(300):
            broker.place_limit_order("AAPL", 1, "buy", 50.0, client_order_id=f"burst-{number}")

    with pytest.raises(RateLimited, match="kept for cancels") as limited:
        burst()
    assert limited.value.retry_after <= 60
    assert broker.health().ok, "a limit isn't a lost link"
    assert broker.cancel_order(order.id)
    assert alpaca.posts() < 200


async def _limit(alpaca: PaperAlpaca, per_minute: int) -> None:
    """The account's limit, in a window that doesn't end while the test runs."""
    for session in alpaca.gateway.sessions.values():
        for limit in session.limits.values():
            limit.per_minute, limit._now = per_minute, lambda: 60_000_000_030.0


async def test_a_cancel_overtakes_orders_that_wait_for_slow_answers(
    alpaca: PaperAlpaca, broker: AlpacaBroker
) -> None:
    order = await asyncio.to_thread(lambda: settled(broker, rest(broker), "submitted"))
    await asyncio.to_thread(alpaca.fault, "slow_answers", seconds=1.0, times=100, methods=["POST"])
    burst = [
        asyncio.create_task(broker.place_order_async(request(qty=1, client_order_id=f"burst-{n}")))
        for n in range(40)
    ]
    await asyncio.to_thread(eventually, alpaca.posts, "orders are on their way")
    assert await broker.cancel_order_async(order.id)
    assert not all(task.done() for task in burst)
    await asyncio.gather(*burst)


def test_our_own_duplicate_is_our_live_order_not_a_rejection(
    alpaca: PaperAlpaca, broker: AlpacaBroker, journal: Journal
) -> None:
    """An answer lost, and the journal's word that nothing left: the repeated POST is refused with 422."""
    order = settled(broker, rest(broker), "submitted")
    broker.disconnect()  # so that its stream doesn't tell of it first
    with journal.engine.begin() as db:
        blank = {"status": "recorded", "permanent_id": None, "broker_order_id": None}
        db.execute(update(orders).values(**blank))
    fresh = alpaca.broker(journal, stream_endpoint="ws://127.0.0.1:9")
    fresh._wire.open = True
    again = rest(fresh)
    assert (again.id, again.status) == (order.id, "submitted")
    assert (alpaca.posts(), len(alpaca.book())) == (2, 1)


def test_another_programs_order_under_our_id_is_a_refusal(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    other = alpaca.broker(Journal.in_file(":memory:"))
    other.connect()
    broker.disconnect()  # so that its stream doesn't tell of it first
    settled(other, other.place_limit_order("AAPL", 3, "buy", 80.0, client_order_id="mine"), "submitted")
    other.disconnect()
    fresh = alpaca.broker(Journal.in_file(":memory:"), stream_endpoint="ws://127.0.0.1:9")
    fresh._wire.open = True
    with pytest.raises(OrderRejected, match="another order has it"):
        rest(fresh)
    assert len(alpaca.book()) == 1


def test_a_replacement_whose_answer_is_lost_is_found_by_its_own_id(
    alpaca: PaperAlpaca, broker: AlpacaBroker
) -> None:
    old = settled(broker, rest(broker), "submitted")
    alpaca.fault("lose_answers", status=504, times=4, methods=["PATCH"])
    new = broker.replace_order(old.id, limit_price=91.0)
    assert (new.replaces, new.limit_price) == (old.id, 91.0)
    assert len(alpaca.book()) == 2
    assert sum(1 for verb, _ in alpaca.requests if verb == "PATCH") == 1


def test_a_replacement_that_never_arrived_is_settled_when_the_old_order_ends(
    alpaca: PaperAlpaca, broker: AlpacaBroker
) -> None:
    old = settled(broker, rest(broker), "submitted")
    alpaca.fault("api_errors", status=504, methods=["PATCH"])
    with pytest.raises(OrderOutcomeUnknown) as silence:
        broker.replace_order(old.id, limit_price=91.0)
    new = silence.value.order
    assert broker.get_order(new.id).status == "unknown"
    assert broker.get_order(old.id).status == "submitted"
    broker.cancel_order(old.id)
    assert broker.get_order(new.id).status == "rejected", "what ended without a replacement has none"


def test_a_cancel_whose_answer_is_lost_is_confirmed_by_the_order(
    alpaca: PaperAlpaca, broker: AlpacaBroker
) -> None:
    order = settled(broker, rest(broker), "submitted")
    alpaca.fault("lose_answers", status=504, methods=["DELETE"])
    assert broker.cancel_order(order.id)
    assert broker.get_order(order.id).status == "cancelled"


def test_a_cancel_that_did_not_arrive_says_so(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    order = settled(broker, rest(broker), "submitted")
    alpaca.fault("api_errors", status=503, methods=["DELETE"])
    with pytest.raises(NotConnected, match="may not have arrived"):
        broker.cancel_order(order.id)
    assert broker.cancel_order(order.id), "a cancel may be repeated"


def test_a_failure_is_never_an_empty_answer(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    rest(broker)
    for question in (
        broker.get_positions,
        broker.get_account,
        broker.get_orders_history,
        broker.get_fills,
        broker.cancel_all_orders,
        broker.clock,
    ):
        alpaca.fault("api_errors", status=503, methods=["GET"])
        with pytest.raises(NotConnected, match="503"):
            question()
    assert broker.health().ok


def test_a_stream_whose_end_gets_lost_ends_all_the_same(
    alpaca: PaperAlpaca, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a stream that outlives its broker, and connects again and again with its key."""
    broker = alpaca.broker(journal)
    broker.connect()
    eventually(lambda: broker.health().details["stream"] == "connected", "the stream listens")
    opened = broker._news._stream
    assert opened is not None
    task, cancelled = opened._task, []

    class Forgetful:
        """The task, whose first cancel nobody heeds."""

        def cancel(self) -> None:
            cancelled.append(task)
            if len(cancelled) > 1 and task is not None:
                task.cancel()

    monkeypatch.setattr(opened, "_task", Forgetful())
    broker.disconnect()
    assert not opened._thread.is_alive()
    assert len(cancelled) > 1


def test_what_happened_while_the_stream_was_away_is_told_after_a_gap(
    alpaca: PaperAlpaca, broker: AlpacaBroker, journal: Journal
) -> None:
    order = settled(broker, rest(broker), "submitted")
    events: list[OrderEvent] = []
    broker.subscribe(events.append)
    # Both are done on the exchange's loop at once, so the stream can't be back in between.
    alpaca.run(_fill_unseen(alpaca))
    eventually(lambda: any(e.kind == "fill" for e in events), "the fill is told")
    eventually(lambda: any(e.kind == "status" for e in events), "the status is told")
    assert events[0].kind == "gap"
    assert journal.get(ACCOUNT, order.id).status == "filled"
    [fill] = journal.fills.recent(ACCOUNT, None, 10)
    assert (fill.order_id, fill.qty) == (order.id, 10)
    assert not any(e.kind == "unexplained_position" for e in events)


async def _fill_unseen(alpaca: PaperAlpaca) -> None:
    session = next(iter(alpaca.gateway.sessions.values()))
    listeners, session.listeners = session.listeners, []
    await alpaca.admin.set_price("AAPL", 89.0)
    [order] = alpaca.exchange.exchange.orders.values()
    while order.status != "Filled":  # noqa: ASYNC110 -- the exchange steps by itself
        await asyncio.sleep(0.01)
    session.listeners = listeners
    await alpaca.admin.gateway("drop_streams", name=session.key)


def test_a_position_that_no_fill_explains_is_reported_once(
    alpaca: PaperAlpaca, broker: AlpacaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.brokers.alpaca.news.SETTLES", 0.05)
    events: list[OrderEvent] = []
    broker.subscribe(events.append)
    alpaca.run(alpaca.admin.set_position(ACCOUNT, "MSFT", 7.0, 100.0))
    for _ in range(2):
        reconciled = broker.health().details["reconciled"]
        alpaca.fault("drop_streams")
        eventually(
            lambda before=reconciled: broker.health().details["reconciled"] > before, "all is looked up"
        )
    changes = [e.position for e in events if e.kind == "unexplained_position"]
    assert [(c.symbol, c.qty_before, c.qty_now) for c in changes if c] == [("MSFT", 0, 7)]


def test_fills_of_the_time_before_a_restart_are_taken_down(
    alpaca: PaperAlpaca, broker: AlpacaBroker, journal: Journal
) -> None:
    order = settled(broker, rest(broker), "submitted")
    broker.disconnect()
    alpaca.price(89.0)
    eventually(lambda: alpaca.book()[0]["status"] == "Filled", "the exchange fills it")
    back = alpaca.broker(journal)
    back.connect()
    eventually(lambda: journal.get(ACCOUNT, order.id).status == "filled", "the order is looked up")
    eventually(lambda: journal.fills.of_order(order.id), "the fill is taken down")
    back.disconnect()


def test_a_broker_that_could_not_connect_goes_on_by_itself(
    alpaca: PaperAlpaca, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.brokers.alpaca.news.AGAIN", 0.05)
    broker = alpaca.broker(journal)
    real = broker._wire.client._base_url
    broker._wire.client._base_url = "http://127.0.0.1:9"
    with pytest.raises(NotConnected):
        broker.connect()
    assert not broker.health().ok
    broker._wire.client._base_url = real
    eventually(lambda: broker.health().details["reconciled"], "it is in line with Alpaca")
    broker.disconnect()


def test_requests_have_a_deadline(monkeypatch: pytest.MonkeyPatch, journal: Journal) -> None:
    monkeypatch.setattr(wire, "TIMEOUT", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        broker = AlpacaBroker(journal, api_key="k", secret_key="s", endpoint=url)
        broker._wire.open = True
        with pytest.raises(NotConnected, match="Timeout"):
            broker.get_account()


def test_an_order_that_could_not_leave_was_not_sent(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    broker.place_limit_order("AAPL", 1, "buy", 50.0)  # the asset is known from here on
    broker._wire.client._base_url, real = "http://127.0.0.1:9", broker._wire.client._base_url
    with pytest.raises(NotConnected):
        rest(broker)
    broker._wire.client._base_url = real
    assert rest(broker).status in ("pending", "submitted"), "the same call sends it"
    assert len(alpaca.book()) == 2


@pytest.mark.parametrize(
    "url", ["http://no-such-host.invalid", "https://127.0.0.1"], ids=["name", "certificate"]
)
def test_without_a_host_or_its_certificate_nothing_leaves(
    alpaca: PaperAlpaca, broker: AlpacaBroker, journal: Journal, url: str, tmp_path: Path
) -> None:
    broker.place_limit_order("AAPL", 1, "buy", 50.0)  # the asset is known from here on
    with untrusted(tmp_path) as port:
        real = broker._wire.client._base_url
        broker._wire.client._base_url = f"{url}:{port}"
        with pytest.raises(NeverLeft):
            rest(broker)
        broker._wire.client._base_url = real
    order = journal.find(ACCOUNT, "mine")
    assert order is not None
    assert order.status == "recorded", "certain, not unknown: the same call may send it"
    assert rest(broker).status in ("pending", "submitted")


@contextlib.contextmanager
def untrusted(folder: Path) -> Iterator[int]:
    """The port of a TLS server whose certificate nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*loopback_certificate(folder))

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = server.accept()
                with line, contextlib.suppress(OSError):
                    context.wrap_socket(line, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def test_threads_that_place_the_same_order_place_one(alpaca: PaperAlpaca, broker: AlpacaBroker) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(rest(broker).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert (alpaca.posts(), len(alpaca.book())) == (1, 1)
