"""Traps of IBKR's own making, each named in its test's docstring (the reference pages tell where from).

Those of a broken connection are in test_ibkr_faults.py. What has to be sent by a gateway is sent by
the paper gateway; what TWS does only now and then is fed, message by message, to the order book.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from broker.brokers.ibkr import IBKRBroker, desk, news
from broker.brokers.ibkr.executions import split_id
from broker.brokers.ibkr.orders import OrderBook, TrackedOrder
from broker.brokers.ibkr.pacing import Turns
from broker.brokers.ibkr.resets import next_reset
from broker.errors import MarketDataUnavailable, NotConnected, OrderRejected, RateLimited
from broker.journal import Journal
from broker.models import OrderEvent, Status
from tests.broker.ordering import request, settled
from tests.broker.paper_gateway import Paper, eventually


@pytest.fixture
async def book() -> OrderBook:
    return OrderBook(lambda _order: None, lambda _order, _execution: None)


def sent(book: OrderBook, order_id: int = 1) -> TrackedOrder:
    return book.add(
        TrackedOrder(1, order_id, symbol="AAPL", side="buy", qty=5, journal_id=f"ours-{order_id}")
    )


AAPL = SimpleNamespace(symbol="AAPL", currency="USD")


def execution(number: str = "0000aaaa.1111bbbb.01.01", shares: float = 5, **changes: Any) -> SimpleNamespace:
    values = {
        "execId": number,
        "clientId": 1,
        "orderId": 1,
        "permId": 900,
        "orderRef": "",
        "acctNumber": "DU1",
        "side": "BOT",
        "shares": shares,
        "price": 200.0,
        "time": datetime(2026, 11, 20, 15, 0, tzinfo=UTC),
    }
    return SimpleNamespace(**(values | changes))


def open_order(**changes: Any) -> tuple[SimpleNamespace, SimpleNamespace]:
    values = {
        "clientId": 1,
        "orderId": 1,
        "permId": 900,
        "orderRef": "",
        "account": "DU1",
        "action": "BUY",
        "orderType": "LMT",
        "lmtPrice": 100.0,
        "auxPrice": 0.0,
        "trailingPercent": 1.7976931348623157e308,
        "totalQuantity": 5,
        "filledQuantity": 1.7976931348623157e308,
        "tif": "DAY",
    }
    status = changes.pop("status", "Submitted")
    return SimpleNamespace(**(values | changes)), SimpleNamespace(status=status)


async def test_a_fill_that_comes_before_the_acknowledgement_is_a_fill(book: OrderBook) -> None:
    """Trap: execDetails may arrive before any status, and a late PreSubmitted must not undo it."""
    order = sent(book)
    book.on_execution(AAPL, execution())
    assert order.answered.is_set()
    assert (order.status, order.filled_qty, order.filled_price) == (Status.FILLED, 5, 200.0)
    book.on_status(1, 1, 900, "PreSubmitted", 0, 0.0)
    assert order.status == Status.FILLED


async def test_partial_fills_count_once_however_often_they_are_told(book: OrderBook) -> None:
    """Trap: reqExecutions tells fills again that came live, and statuses come twice."""
    order = sent(book)
    book.on_status(1, 1, 900, "Submitted", 0, 0.0)
    for _ in range(2):
        book.on_execution(AAPL, execution(shares=2))
        book.on_status(1, 1, 900, "Submitted", 2, 200.0)
    assert (order.status, order.filled_qty) == (Status.PARTIALLY_FILLED, 2)
    book.on_execution(AAPL, execution("0000aaaa.1111bbbb.02.01", shares=3, price=201.0))
    assert (order.status, order.filled_price) == (Status.FILLED, pytest.approx(200.6))


async def test_a_corrected_execution_takes_the_place_of_the_first(book: OrderBook) -> None:
    """Trap: a correction repeats the execution's id with its last part counted up: no second fill."""
    order = sent(book)
    book.on_execution(AAPL, execution(shares=2))
    book.on_execution(AAPL, execution("0000aaaa.1111bbbb.01.02", shares=2, price=199.0))
    book.on_execution(AAPL, execution(shares=2))  # told again, late
    assert (order.filled_qty, order.filled_price) == (2, 199.0)
    assert split_id("0000aaaa.1111bbbb.01.02") == ("0000aaaa.1111bbbb.01", 2)
    assert split_id("without-parts") == ("without-parts", 0)


async def test_inactive_is_explained_by_its_code_and_waited_for_a_moment(book: OrderBook) -> None:
    """Trap: Inactive is neither done nor active in ib_insync, so its wait loops hang."""
    order = sent(book)
    book.on_status(1, 1, 900, "Inactive", 0, 0.0)
    assert not order.answered.is_set(), "the code that explains it may still come"
    async with asyncio.timeout(5):
        await order.answered.wait()
    assert order.status == Status.INACTIVE
    book.on_code(1, 1, 201, "Order rejected - reason: no borrow")
    assert (order.status, order.report().reason_code) == (Status.REJECTED, "201")


async def test_why_we_took_an_order_back_is_kept_whatever_tws_says_later(book: OrderBook) -> None:
    """Trap: 202 comes after the status that it explains, and names no reason for our own cancels."""
    order = sent(book)
    book.on_status(1, 1, 900, "Cancelled", 0, 0.0)
    order.withdrawn = (110, "its limit leg was refused: off the tick")
    book.on_code(1, 1, 202, "Order Canceled - reason:")
    assert order.report().reason == "its limit leg was refused: off the tick"


REFUSALS = {
    201: "Order rejected - reason:no permission",
    203: "The security is not available or allowed for this account",
    460: "No trading permissions",
    10268: "The 'EtradeOnly' order attribute is not supported.",
    10289: "You must set Cash Quantity for this order",
    10293: "Order size exceeds the limit",
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_refusal_of_an_order_that_was_never_acknowledged_is_final(book: OrderBook, code: int) -> None:
    """Trap: for some of these no status follows, so whoever waits for one waits for ever."""
    order = sent(book)
    assert book.on_code(1, 1, code, REFUSALS[code])
    assert order.answered.is_set()
    assert order.refusal == (code, REFUSALS[code])
    assert (order.status, order.report().reason_code) == (Status.REJECTED, str(code))


@pytest.mark.parametrize("code", [460, 10268, 10289, 10293])
async def test_the_same_words_about_a_working_order_leave_it_working(book: OrderBook, code: int) -> None:
    """Trap: the order is at the exchange; only a status or a final refusal (201, 203) ends it."""
    order = sent(book)
    book.on_status(1, 1, 900, "Submitted", 0, 0.0)
    book.on_code(1, 1, code, REFUSALS[code])
    assert (order.status, order.refusal) == (Status.SUBMITTED, None)
    assert str(code) in order.warnings[-1]


async def test_order_ids_that_are_issued_anew_do_not_mix_two_orders_up(book: OrderBook) -> None:
    """Trap: after a gateway's restart order ids begin anew; only permId identifies an order."""
    old = sent(book, 1)
    book.on_status(1, 1, 900, "Submitted", 0, 0.0)
    order, state = open_order(permId=901, status="Filled", filledQuantity=5)
    book.on_order(AAPL, order, state)
    assert (old.status, old.permanent_id) == (Status.SUBMITTED, 900)


async def test_history_with_order_id_0_is_told_apart_by_permanent_id(book: OrderBook) -> None:
    """Trap: completed orders carry order id 0 and a total of 0; permId and filledQuantity tell."""
    for number in (900, 901):
        order, state = open_order(
            orderId=0, permId=number, totalQuantity=0, filledQuantity=number - 897, status="Filled"
        )
        book.on_order(AAPL, order, state)
    found = {o.permanent_id: o.filled_qty for o in book}
    assert found == {900: 3, 901: 4}
    assert book.find(1, 0) is None, "order id 0 identifies nothing"


async def test_a_refused_cancel_says_nothing_about_the_order(book: OrderBook) -> None:
    """Trap: 161, 10147 and 10148 answer the cancel; the order lives or has ended by itself."""
    order = sent(book)
    book.on_status(1, 1, 900, "Submitted", 0, 0.0)
    order.expect_cancel()
    book.on_code(
        1, 1, 10148, "OrderId 1 that needs to be cancelled can not be cancelled, state: PreSubmitted"
    )
    assert order.ended.is_set()
    assert order.status == Status.SUBMITTED


def test_a_reset_is_at_night_in_new_york_and_longer_on_fridays() -> None:
    """Trap: fixed UTC hours are wrong half the year."""
    winter = next_reset(datetime(2026, 1, 14, 20, 0, tzinfo=UTC)).astimezone(UTC)
    summer = next_reset(datetime(2026, 7, 15, 20, 0, tzinfo=UTC)).astimezone(UTC)
    assert (winter.hour, summer.hour) == (4, 3)
    friday = next_reset(datetime(2026, 11, 20, 20, 0, tzinfo=UTC)).astimezone(UTC)
    assert (friday.day, friday.hour) == (21, 4)
    after = next_reset(datetime(2026, 11, 21, 4, 30, tzinfo=UTC)).astimezone(UTC)
    assert (after.day, after.hour, after.minute) == (22, 4, 45)


async def test_orders_take_turns_spread_over_the_second() -> None:
    """Trap: of more than 50 messages within a second TWS drops those beyond, whenever they were sent."""
    turns = Turns(a_second=50, at_once=3)
    loop = asyncio.get_running_loop()
    began = loop.time()
    moments: list[float] = []

    async def one() -> None:
        await turns.turn()
        moments.append(loop.time() - began)

    await asyncio.gather(*(one() for _ in range(13)))
    early = [moment - number / 50 for number, moment in enumerate(moments, 1 - 3)]
    assert min(early) > -0.001, "three at once, and from then on one after the other"


def test_a_cancel_does_not_wait_behind_a_queue_of_orders(broker: IBKRBroker, paper: Paper) -> None:
    """Trap: the libraries throttle first in, first out, so a cancel would wait for every order before it."""
    first = broker.place_limit_order("AAPL", 1, "buy", 100.0, time_in_force="gtc")
    with ThreadPoolExecutor(90) as threads:
        # 20 orders may work per contract and side, so most of these are sales and purchases in turn
        burst = [
            threads.submit(broker.place_limit_order, "MSFT", 1, "buy", 10.0 + n, time_in_force="gtc")
            for n in range(80)
        ]
        eventually(lambda: any(b.done() for b in burst), "the burst is under way")
        broker.cancel_order(first.id)
        still = sum(not b.done() for b in burst)
        for placed in burst:
            placed.result()
    assert still > 0, "the cancel was done before the burst was"
    assert len([o for o in paper.book() if o["status"] in ("Submitted", "PreSubmitted")]) == 80


async def test_a_cancel_from_an_event_loop_waits_for_no_waiting_order(
    broker: IBKRBroker, paper: Paper
) -> None:
    """Trap: calls from a loop share threads, and more orders than threads may wait for an answer."""
    first = await broker.place_order_async(request(order_type="limit", limit_price=100.0))
    burst = [
        asyncio.ensure_future(
            broker.place_order_async(request(symbol="MSFT", qty=1, order_type="limit", limit_price=10.0 + n))
        )
        for n in range(80)
    ]
    await burst[0]
    assert await broker.cancel_order_async(first.id)
    assert not all(task.done() for task in burst), "the cancel was done before the burst was"
    await asyncio.gather(*burst)


def test_an_order_that_ib_refuses_with_inactive_is_a_refusal_at_once(
    broker: IBKRBroker, paper: Paper
) -> None:
    """Trap: Inactive with code 201 is the answer to an order; waiting for a final status never ends."""
    paper.fault("reject_orders", "The contract is not available for short sale.")
    began = time.monotonic()
    with pytest.raises(OrderRejected, match="not available"):
        broker.place_market_order("AAPL", 1, "sell")
    assert time.monotonic() - began < desk.FIRST_STATUS, "it was told, not waited for in vain"


@pytest.mark.parametrize(("code", "lost"), [(2103, False), (2105, False), (2110, True)])
def test_a_market_data_farm_that_is_away_is_told_and_2110_is_a_lost_link(
    broker: IBKRBroker, paper: Paper, code: int, lost: bool
) -> None:
    """Trap: 2100-2199 are informational, except that 2103 means no data and 2110 that nothing answers."""
    paper.gateway("error", id=-1, code=code, message="Market data farm connection is broken:usfarm")
    if lost:
        eventually(lambda: not broker.health().ok or None, "2110 is a lost link")
    else:
        eventually(lambda: broker.health().details["troubles"], "it stands in the health")
        assert broker.health().ok, "orders work without market data"


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (162, "Historical Market Data Service error message:HMDS query returned no data: AAPL", "no data"),
        (162, "Historical Market Data Service error message:Historical data pacing violation", "pace"),
        (420, "Invalid Real-time Query: pacing violation", "pace"),
        (354, "Requested market data is not subscribed.", "no data"),
    ],
)
def test_no_data_is_no_failure_and_no_price_and_pacing_says_when_to_come_back(
    broker: IBKRBroker, paper: Paper, code: int, text: str, kind: str
) -> None:
    """162 stands for both: an empty answer, and one request too many."""
    paper.fault("farms_down", True)  # no price comes by itself
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            broker.get_quote("AAPL")
        except BaseException as failure:
            failures.append(failure)

    asking = threading.Thread(target=ask)
    asking.start()
    running = broker._supervisor.session.ib.wrapper.ticker2ReqId["mktData"]  # type: ignore[union-attr]
    number = eventually(lambda: next(iter(running.values()), None), "the quote is asked for")
    paper.gateway("error", id=number, code=code, message=text)
    asking.join(20)
    [failure] = failures
    if kind == "pace":
        assert isinstance(failure, RateLimited)
        assert failure.retry_after > 0
    else:
        assert isinstance(failure, MarketDataUnavailable)
        assert failure.code == code
    assert text in str(failure), "in TWS's own words"
    assert broker.health().ok, "the link has nothing to do with it"


def test_fills_while_away_are_told_after_a_gap(broker: IBKRBroker, paper: Paper) -> None:
    """Trap: what filled while the link was down is told by nobody unless it is asked for (Lean.IB 249)."""
    events: list[OrderEvent] = []
    broker.subscribe(events.append)
    order = broker.place_limit_order("AAPL", 5, "buy", 100.0, time_in_force="gtc")
    paper.processes[-1].kill()
    paper.admin("set_price", symbol="AAPL", price=90.0)
    eventually(lambda: [o for o in paper.book() if o["status"] == "Filled"], "the exchange fills it")
    paper.start_gateway()
    eventually(lambda: broker.health().ok, "it reconnects")
    kinds = eventually(lambda: (k := [e.kind for e in events]) and "fill" in k and k, "the fill is told")
    assert kinds.index("gap") < kinds.index("fill")
    [fill] = broker.get_fills()
    assert (fill.order_id, fill.qty) == (order.id, 5)
    assert "unexplained_position" not in kinds, "the fill explains the position"


def test_what_nobodys_fills_explain_is_reported_and_only_once(
    broker: IBKRBroker, paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: executions are forgotten at midnight, so after a longer gap only the positions tell."""
    monkeypatch.setattr(news, "SETTLES", 0.1)
    events: list[OrderEvent] = []
    broker.subscribe(events.append)
    settled(broker, broker.place_market_order("AAPL", 5, "buy"), "filled")
    paper.processes[-1].kill()
    paper.admin("set_position", account=paper.account, symbol="AAPL", quantity=12.0, average_cost=200.0)

    def told() -> list[OrderEvent]:
        return [e for e in events if e.kind == "unexplained_position"]

    paper.start_gateway()
    [event] = eventually(told, "the change is reported")
    assert event.position is not None
    change = event.position
    assert (change.symbol, change.qty_expected, change.qty_now) == ("AAPL", 5, 12)
    before = broker.health().details["session_since"]
    paper.gateway("drop_clients")
    eventually(lambda: broker.health().details.get("session_since", before) > before, "it reconnects")
    settled(broker, broker.place_market_order("AAPL", 1, "buy"), "filled")
    eventually(lambda: (p := broker.get_position("AAPL")) and p.qty == 13, "the position moves")
    assert len(told()) == 1


def test_fills_of_other_clients_explain_a_position_and_are_no_orders_of_ours(
    broker: IBKRBroker, make_broker: Callable[..., IBKRBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: live fills come to the client that placed the order only; the position moves for all."""
    monkeypatch.setattr(news, "SETTLES", 0.1)
    events: list[OrderEvent] = []
    broker.subscribe(events.append)
    other = make_broker(client_id=9, journal=Journal.in_file(":memory:"))
    other.connect()
    settled(other, other.place_market_order("AAPL", 3, "buy"), "filled")
    [fill] = eventually(broker.get_fills, "the other client's fill is asked for")
    assert (fill.order_id, fill.qty) == ("", 3)
    assert "unexplained_position" not in {e.kind for e in events}


def test_a_dead_connection_answers_none_of_the_new_questions_with_nothing(
    broker: IBKRBroker, paper: Paper
) -> None:
    """Trap: positions() and trades() of a dead connection are [] in both libraries."""
    paper.processes[-1].kill()

    def away() -> bool:
        try:
            broker.get_accounts()
        except NotConnected:
            return True
        return False

    eventually(away, "the dead gateway is noticed")
    questions: list[Callable[[], object]] = [
        broker.get_fills,
        broker.get_accounts,
        broker.cancel_all_orders,
        lambda: broker.get_order_by_client_id("x"),
        lambda: broker.preview_order(request()),
        lambda: broker.close_position("AAPL"),
    ]
    for question in questions:
        with pytest.raises(NotConnected):
            question()
