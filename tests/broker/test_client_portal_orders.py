"""What can go wrong with an order at a Client Portal gateway: nothing is sent twice, nothing is guessed.

Each test is a trap that users of ibind and IBeam have fallen into. The tap on the wire counts what
reaches the gateway; the exchange's own book says what became of it.
"""

# ruff: noqa: F811 - fixtures are imported by name
from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from broker.brokers.client_portal import ClientPortalBroker
from broker.brokers.client_portal.answers import Taken, number, order_answer, status_of
from broker.brokers.client_portal.pacing import CANCEL, ORDER, QUESTION, Limits, Pacer
from broker.brokers.client_portal.questions import Policy, Question
from broker.errors import (
    InvalidRequest,
    NotConnected,
    OrderOutcomeUnknown,
    OrderRejected,
    RateLimited,
)
from broker.journal import Journal
from broker.models import Status
from tests.broker.ordering import request, settled
from tests.broker.paper_gateway import eventually
from tests.broker.portal_fixtures import ibeam, make_portal_broker, portal  # noqa: F401
from tests.broker.portal_gateway import ACCOUNT, Portal, portal_gateway

ORDERS = f"/account/{ACCOUNT}/orders"
QUESTION_OF_TODAY = [{"id": "q1", "message": ["Something new. Sure?"], "messageIds": ["o99999"]}]


def limit(**changes: Any) -> Any:
    """An order that rests without being asked about."""
    return request(**({"order_type": "limit", "limit_price": 198.0} | changes))


# How often an order leaves


def test_an_order_that_times_out_reaches_the_wire_once(portal: Portal, make_portal_broker: Any) -> None:
    broker = make_portal_broker(portal, timeout=0.5)
    broker.connect()
    portal.rule("POST", ORDERS, times=9, hang=True)
    with pytest.raises(OrderOutcomeUnknown):
        broker.place_order(limit(client_order_id="slow"))
    assert portal.tap.count("POST", ORDERS) == 1, "ibind repeats a POST that timed out; an order never is"
    assert portal.book() == []


def test_a_reply_that_times_out_reaches_the_wire_once(portal: Portal, make_portal_broker: Any) -> None:
    broker = make_portal_broker(portal, timeout=0.5)
    broker.connect()
    portal.rule("POST", "/iserver/reply", times=9, hang=True)
    with pytest.raises(OrderOutcomeUnknown):
        broker.place_order(request(client_order_id="slow"))
    assert portal.tap.count("POST", "/iserver/reply") == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_order_whose_answer_is_lost_is_found_and_not_sent_again(
    ibeam: ClientPortalBroker, portal: Portal, status: int
) -> None:
    portal.rule("POST", ORDERS, deliver=True, status=status, body={"error": "Service Unavailable"})
    order = ibeam.place_order(limit(client_order_id="lost"))
    assert order.status in (Status.SUBMITTED, Status.ACCEPTED)
    assert portal.tap.count("POST", ORDERS) == len(portal.book()) == 1


def test_an_order_whose_answer_is_lost_is_found_without_a_websocket(
    portal: Portal, make_portal_broker: Any
) -> None:
    broker = make_portal_broker(portal, websocket=False)
    broker.connect()
    portal.rule("POST", ORDERS, deliver=True, status=503, body={"error": "Service Unavailable"})
    order = broker.place_order(limit(client_order_id="lost"))
    assert order.permanent_id == str(portal.book()[0]["perm_id"])
    assert portal.tap.count("POST", ORDERS) == 1


def test_an_order_that_cannot_be_found_is_unknown_and_settles_later(
    portal: Portal, make_portal_broker: Any
) -> None:
    broker = make_portal_broker(portal, websocket=False)
    broker.connect()
    portal.rule("POST", ORDERS, deliver=True, status=503, body={"error": "Service Unavailable"})
    empty = portal.rule(
        "GET", "/account/orders", times=999, status=200, body={"orders": [], "snapshot": True}
    )
    with pytest.raises(OrderOutcomeUnknown) as unknown:
        broker.place_order(limit(client_order_id="lost"))
    assert broker.get_order(unknown.value.order.id).status == Status.UNKNOWN, "an empty list isn't `no order`"
    empty.times = 0
    assert settled(broker, unknown.value.order, Status.SUBMITTED).permanent_id
    assert len(portal.book()) == 1


def test_an_order_that_a_proxy_doubled_is_the_one_that_is_registered(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    said = {"error": "Order couldn't be submitted: Local order ID=twice is already registered."}
    portal.rule("POST", ORDERS, deliver=True, status=200, body=said)
    order = ibeam.place_order(limit(client_order_id="twice"))
    assert order.permanent_id == str(portal.book()[0]["perm_id"])


def test_every_order_carries_our_client_order_id(ibeam: ClientPortalBroker, portal: Portal) -> None:
    order = ibeam.place_order(limit())
    sent = next(body for method, path, body in portal.tap.seen if method == "POST" and ORDERS in path)
    assert sent["orders"][0]["cOID"] == order.client_order_id != ""


def test_a_refused_connection_means_that_nothing_left_and_the_call_can_be_repeated(
    ibeam: ClientPortalBroker, portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = ibeam._running().entry
    real, entry._session.orders.base_url = entry._session.orders.base_url, "https://127.0.0.1:1/v1/api/"
    with pytest.raises(NotConnected):
        ibeam.place_order(limit(client_order_id="again"))
    entry._session.orders.base_url = real
    eventually(lambda: ibeam.health().ok, "the session is proved again")
    assert ibeam.place_order(limit(client_order_id="again")).permanent_id
    assert len(portal.book()) == 1


def test_an_order_without_a_brokerage_session_is_not_sent_again_by_itself(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    portal.rule("POST", ORDERS, status=400, body={"error": "Bad Request: no bridge"})
    with pytest.raises(NotConnected):
        ibeam.place_order(limit(client_order_id="bridge"))
    assert portal.tap.count("POST", ORDERS) == 1
    assert ibeam.place_order(limit(client_order_id="bridge")).permanent_id, "provably unsent: it may be"
    assert len(portal.book()) == 1


# Questions


def test_an_unknown_question_refuses_the_order_with_its_text(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    portal.rule("POST", ORDERS, status=200, body=QUESTION_OF_TODAY)
    with pytest.raises(OrderRejected, match="Something new") as refusal:
        ibeam.place_order(limit())
    assert refusal.value.code == "o99999"
    assert ("POST", "/iserver/reply/q1", {"confirmed": False}) in portal.tap.seen
    assert portal.book() == []


def test_which_questions_are_confirmed_is_configurable(portal: Portal, make_portal_broker: Any) -> None:
    broker = make_portal_broker(portal, confirm=frozenset({"o163"}))
    broker.connect()
    with pytest.raises(OrderRejected, match="Market Order") as refusal:
        broker.place_order(request())
    assert refusal.value.code == "o10151"
    assert portal.book() == []


def test_several_questions_are_answered_one_after_the_other(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    order = ibeam.place_order(limit(qty=1000, limit_price=150.0))
    assert portal.tap.count("POST", "/iserver/reply") == 3, "price, size and value are asked about"
    assert order.permanent_id


def test_a_question_without_an_id_is_known_by_its_words() -> None:
    asked = Question("1", "The following order exceeds the Percentage constraint of 3%.")
    assert Policy().confirms(asked)
    assert not Policy(frozenset({"o451"})).confirms(asked)
    assert not Policy().confirms(Question("1", "Do you agree to something else?"))


def test_a_reply_that_comes_before_its_question_is_known_is_given_again(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    portal.rule("POST", "/iserver/reply", status=400, body={"error": "reply id not found: 'x'"})
    order = settled(ibeam, ibeam.place_order(request()), Status.FILLED)
    assert len(portal.book()) == 1
    assert order.filled_qty == 5


def test_a_question_that_another_order_displaced_is_a_refusal_and_places_nothing(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    portal.rule("POST", "/iserver/reply", times=9, status=400, body={"error": "reply id not found: 'x'"})
    with pytest.raises(OrderRejected) as refusal:
        ibeam.place_order(request())
    assert refusal.value.code == "reply-id-not-found"
    assert portal.book() == []


def test_orders_of_several_threads_do_not_disturb_each_others_questions(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    orders: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda n=n: orders.append(ibeam.place_order(request(client_order_id=f"t{n}")))
        )
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(orders) == len(portal.book()) == 6


# What a 200 can say


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": "We cannot accept an order at the limit price you selected."}, OrderRejected),
        ({"prompt": True, "message": ["?"]}, OrderOutcomeUnknown),
        ({}, OrderOutcomeUnknown),
        ([], OrderOutcomeUnknown),
        ({"error": "no session"}, NotConnected),
    ],
)
def test_a_200_may_say_no_or_nothing(
    portal: Portal, make_portal_broker: Any, body: Any, error: type[Exception]
) -> None:
    broker = make_portal_broker(portal, websocket=False)
    broker.connect()
    portal.rule("POST", ORDERS, status=200, body=body)
    with pytest.raises(error):
        broker.place_order(limit())
    assert portal.tap.count("POST", ORDERS) == 1


def test_a_bad_request_and_a_missing_login_are_told_apart(ibeam: ClientPortalBroker, portal: Portal) -> None:
    portal.rule("POST", ORDERS, status=400, body={"error": "Bad Request: quantity is required"})
    with pytest.raises(OrderRejected, match="quantity"):
        ibeam.place_order(limit())
    portal.rule("POST", ORDERS, status=401, body={"error": "not authenticated"})
    with pytest.raises(NotConnected):
        ibeam.place_order(limit())


def test_the_shapes_of_an_answer_are_read() -> None:
    assert order_answer([{"order_id": "13", "order_status": "PreSubmitted"}]) == Taken(
        "13", "PreSubmitted", ("13",)
    )
    assert order_answer({"id": "q", "message": ["a", "b"]}) == Question("q", "a b")
    assert order_answer("nonsense") is None
    assert status_of("SomethingNew", 0.0) == Status.UNKNOWN


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,300", 1300), ("C168.42", 168.42), ("H10.5", 10.5), ("1,042.16 USD (5 Shares)", 1042.16),
        (12.5, 12.5), ("-1", -1), ("", None), (None, None), (float("nan"), None), (True, None),
    ],
)  # fmt: skip
def test_numbers_are_text_with_separators_and_prefixes(text: Any, value: float | None) -> None:
    assert number(text) == value


# Cancels


def test_a_cancel_whose_answer_is_lost_can_be_repeated(ibeam: ClientPortalBroker, portal: Portal) -> None:
    order = ibeam.place_order(limit())
    portal.rule("DELETE", "/order/", status=503, body={"error": "Service Unavailable"})
    with pytest.raises(NotConnected, match="may not have arrived"):
        ibeam.cancel_order(order.id)
    eventually(lambda: ibeam.health().ok, "the link is there")
    assert ibeam.cancel_order(order.id)
    assert settled(ibeam, order, Status.CANCELLED)


def test_a_cancel_overtakes_orders_and_questions() -> None:
    pacer = Pacer(Limits(requests=3, reserved=1, window=0.3))
    went: list[str] = []

    def go(name: str, urgency: int) -> threading.Thread:
        def run() -> None:
            pacer.turn(urgency)
            went.append(name)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    for _ in range(3):
        pacer.turn(ORDER)
    waiting = [go("question", QUESTION), go("order", ORDER), go("order", ORDER), go("order", ORDER)]
    eventually(lambda: len(pacer._waiting) == 4, "all wait for their turn")
    waiting.append(go("cancel", CANCEL))
    for thread in waiting:
        thread.join(10)
    assert went[0] == "cancel"
    assert went[-1] == "question"


# Pace


def test_bursts_stay_within_the_gateways_own_limits(make_portal_broker: Any) -> None:
    with portal_gateway(limits=True, penalty=600.0) as portal:
        broker = make_portal_broker(portal, limits=Limits(), heartbeat=60.0)
        broker.connect()
        threads = [threading.Thread(target=broker.get_account) for _ in range(25)]
        for thread in threads:
            thread.start()
        order = broker.place_order(limit())
        began = time.monotonic()
        broker.cancel_order(order.id)
        waited = time.monotonic() - began
        for thread in threads:
            thread.join(60)
        broker.get_fills()
        broker.get_fills()
        assert waited < 4.0, "a cancel doesn't wait behind a queue"
        assert portal.book()[0]["status"] == "Cancelled"
        assert broker.health().ok, "the gateway never refused for the pace (its penalty would be ten minutes)"
        broker.disconnect()


def test_a_429_stops_everything_for_as_long_as_it_says(ibeam: ClientPortalBroker, portal: Portal) -> None:
    portal.rule(
        "POST", ORDERS, status=429, body={"error": "Too many requests"}, headers={"Retry-After": "45"}
    )
    with pytest.raises(RateLimited) as refused:
        ibeam.place_order(limit(client_order_id="x"))
    assert refused.value.retry_after == pytest.approx(45, abs=1)
    seen = len(portal.tap.seen)
    with pytest.raises(RateLimited):
        ibeam.get_account()
    assert len(portal.tap.seen) == seen, "nothing is asked while IBKR refuses everything"
    assert portal.book() == []


def test_a_429_without_a_time_is_the_ten_minute_penalty(ibeam: ClientPortalBroker, portal: Portal) -> None:
    portal.rule("GET", "/summary", status=429, body={"error": "Too many requests"})
    with pytest.raises(RateLimited) as refused:
        ibeam.get_account()
    assert refused.value.retry_after == pytest.approx(600, abs=2)


# Restarts


def test_an_order_that_was_sent_before_a_crash_is_found_by_the_next_process(
    portal: Portal, make_portal_broker: Any, journal: Journal
) -> None:
    first = make_portal_broker(portal, websocket=False)
    first.connect()
    order = first.place_order(limit(client_order_id="crash"))
    first.disconnect()
    portal.admin("set_price", symbol="AAPL", price=190.0)
    second = make_portal_broker(portal)
    second.connect()
    found = settled(second, order, Status.FILLED)
    assert found.filled_qty == 5
    assert sum(f.qty for f in second.get_fills()) == 5, "fills of the time in between are told"


def test_what_a_crash_left_as_sent_is_found_by_its_id_or_is_unknown(
    portal: Portal, make_portal_broker: Any, journal: Journal, tmp_path: Path
) -> None:
    left, never = limit(client_order_id="left"), limit(client_order_id="never")
    for asked in (left, never):
        assert journal.enter(ACCOUNT, asked)[1]
    crashed = make_portal_broker(portal, journal=Journal.in_file(str(tmp_path / "crashed.sqlite")))
    crashed.connect()
    crashed.place_order(left)
    crashed.disconnect()
    broker = make_portal_broker(portal)
    broker.connect()
    eventually(lambda: broker.get_order_by_client_id("left").status == Status.SUBMITTED, "it is found")
    eventually(lambda: broker.get_order_by_client_id("never").status == Status.UNKNOWN, "nothing tells of it")
    with pytest.raises(OrderOutcomeUnknown):
        broker.place_order(never)
    assert [o["order_ref"] for o in portal.book()] == ["left"], "what may have left is never sent again"


def test_orders_that_others_placed_are_shown_and_can_be_cancelled(
    portal: Portal, make_portal_broker: Any, tmp_path: Any
) -> None:
    other = make_portal_broker(portal, journal=Journal.in_file(str(tmp_path / "other.sqlite")))
    other.connect()
    other.place_order(limit(client_order_id="theirs"))
    broker = make_portal_broker(portal)
    broker.connect()
    shown = eventually(broker.get_orders_history, "the other's order is shown")
    assert shown[0].client_order_id == f"cp-{portal.book()[0]['perm_id']}"
    assert broker.cancel_order(shown[0].id)
    eventually(lambda: portal.book()[0]["status"] == "Cancelled", "the exchange cancelled it")


def test_what_the_broker_cannot_do_says_so(ibeam: ClientPortalBroker) -> None:
    assert not ibeam.capabilities.notional
    with pytest.raises(InvalidRequest, match="notional"):
        ibeam.place_order(request(qty=0, notional=100.0))
