"""`ClientPortalBroker` over the real ibind, against the paper gateway: what works when all is well.

What happened is decided by the exchange's own book, never by our client's view of it.
"""

# ruff: noqa: F811 - fixtures are imported by name
from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from broker.brokers.client_portal import ClientPortalBroker
from broker.errors import (
    DuplicateClientOrderId,
    InsufficientFunds,
    InvalidRequest,
    OrderNotCancellable,
    OrderNotFound,
    OrderNotReplaceable,
    OrderRejected,
    UnknownSymbol,
)
from broker.models import EventKind, OrderEvent, Status
from tests.broker.ordering import request, settled
from tests.broker.portal_fixtures import ibeam, make_portal_broker, portal  # noqa: F401
from tests.broker.portal_gateway import ACCOUNT, Portal, portal_gateway


def test_a_market_order_is_confirmed_filled_and_booked_once(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    order = settled(ibeam, ibeam.place_order(request(client_order_id="one")), Status.FILLED)
    assert (order.filled_qty, order.account_id) == (5, ACCOUNT)
    assert order.filled_price == pytest.approx(200, abs=1)
    assert [(o["order_ref"], o["filled"]) for o in portal.book()] == [("one", 5)]
    position = ibeam.get_position("AAPL")
    assert position is not None
    assert position.qty == 5
    assert position.current_price > 0
    assert ibeam.get_account().cash < 1_000_000


def test_repeating_a_call_is_the_same_order_and_another_body_is_refused(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    first = ibeam.place_order(request(client_order_id="same"))
    again = ibeam.place_order(request(client_order_id="same"))
    assert again.id == first.id
    assert len(portal.book()) == 1
    with pytest.raises(DuplicateClientOrderId):
        ibeam.place_order(request(client_order_id="same", qty=6))
    assert ibeam.get_order_by_client_id("same").id == first.id
    with pytest.raises(OrderNotFound):
        ibeam.get_order_by_client_id("another")


def test_a_limit_order_rests_and_is_cancelled(ibeam: ClientPortalBroker, portal: Portal) -> None:
    order = ibeam.place_limit_order("AAPL", 5, "buy", 150.0)
    assert order.status in (Status.SUBMITTED, Status.ACCEPTED)
    assert ibeam.cancel_order(order.id) is True
    assert settled(ibeam, order, Status.CANCELLED).filled_qty == 0
    with pytest.raises(OrderNotCancellable):
        ibeam.cancel_order(order.id)
    assert portal.book()[0]["status"] == "Cancelled"


def test_stop_and_stop_limit_orders_reach_the_exchange_with_their_prices(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    ibeam.place_stop_order("AAPL", 5, "buy", 230.0, client_order_id="stop")
    ibeam.place_stop_limit_order("AAPL", 5, "buy", 230.0, 231.0, client_order_id="stop-limit")
    sent = {o["order_ref"]: (o["order_type"], o["stop_price"], o["limit_price"]) for o in portal.book()}
    assert sent == {"stop": ("STP", 230.0, None), "stop-limit": ("STP LMT", 230.0, 231.0)}


def test_an_order_is_changed_in_place(ibeam: ClientPortalBroker, portal: Portal) -> None:
    order = ibeam.place_limit_order("AAPL", 5, "buy", 150.0)
    changed = ibeam.replace_order(order.id, qty=7, limit_price=151.0)
    assert (changed.id, changed.qty, changed.limit_price) == (order.id, 7, 151.0)
    assert [(o["quantity"], o["limit_price"]) for o in portal.book()] == [(7, 151.0)]
    ibeam.cancel_order(order.id)
    settled(ibeam, order, Status.CANCELLED)
    with pytest.raises(OrderNotReplaceable):
        ibeam.replace_order(order.id, qty=9)


def test_all_orders_are_cancelled_and_a_position_is_closed(ibeam: ClientPortalBroker) -> None:
    bought = settled(ibeam, ibeam.place_order(request()), Status.FILLED)
    orders = [ibeam.place_limit_order("AAPL", 1, "buy", 150.0 + n) for n in range(3)]
    assert {o.id for o in ibeam.cancel_all_orders()} == {o.id for o in orders}
    for order in orders:
        settled(ibeam, order, Status.CANCELLED)
    settled(ibeam, ibeam.close_position("AAPL"), Status.FILLED)
    assert ibeam.get_positions() == []
    assert bought.id in {o.id for o in ibeam.get_orders_history()}


def test_fills_carry_their_commission_and_orders_its_sum(ibeam: ClientPortalBroker) -> None:
    order = settled(ibeam, ibeam.place_order(request()), Status.FILLED)
    fills = ibeam.get_fills()
    assert sum(f.qty for f in fills) == 5
    assert all(f.order_id == order.id and f.account_id == ACCOUNT for f in fills)
    charged = [f.commission for f in fills if f.commission is not None]
    assert len(charged) == len(fills)
    assert ibeam.get_order(order.id).commission == pytest.approx(sum(charged))


def test_a_preview_tells_cost_and_margin_and_places_nothing(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    shown = ibeam.preview_order(request())
    assert shown.estimated_cost == pytest.approx(1000, rel=0.02)
    assert shown.commission is not None
    assert shown.commission > 0
    assert None not in (shown.equity_after, shown.initial_margin_after)
    assert portal.book() == []


def test_several_accounts_are_traded_apart(make_portal_broker: Any) -> None:
    accounts = [ACCOUNT, "DU7654321"]
    with portal_gateway(accounts=accounts) as portal:
        broker = make_portal_broker(portal, account=ACCOUNT)
        broker.connect()
        assert broker.get_accounts() == accounts
        order = broker.place_order(request(account="DU7654321", client_order_id="x"))
        assert settled(broker, order, Status.FILLED).account_id == "DU7654321"
        assert (len(portal.book(ACCOUNT)), len(portal.book("DU7654321"))) == (0, 1)
        with pytest.raises(InvalidRequest, match="account"):
            broker.place_order(request(account="DU0000000"))
        broker.disconnect()


def test_what_the_exchange_refuses_is_a_rejection_with_its_reason(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    with pytest.raises(InsufficientFunds):
        ibeam.place_order(request(qty=9_000_000, client_order_id="dear", order_type="limit", limit_price=100))
    portal.fault("reject_orders", "The contract is not available for trading.")
    with pytest.raises(OrderRejected, match="not available for trading"):
        ibeam.place_order(request(client_order_id="refused"))
    with pytest.raises(OrderRejected, match="not available for trading"):
        ibeam.place_order(request(client_order_id="refused"))
    with pytest.raises(UnknownSymbol):
        ibeam.place_order(request(symbol="NOSUCH"))


def test_events_come_by_websocket_to_callbacks_and_iterators(ibeam: ClientPortalBroker) -> None:
    events: list[OrderEvent] = []
    enough = threading.Event()

    def take(event: OrderEvent) -> None:
        events.append(event)
        filled = any(e.order is not None and e.order.status == Status.FILLED for e in events)
        if filled and any(e.kind == EventKind.FILL for e in events):
            enough.set()

    unsubscribe = ibeam.subscribe(take)
    order = ibeam.place_order(request())
    assert enough.wait(15), "the websocket tells of the order's end and of its fill"
    assert {e.fill.order_id for e in events if e.fill is not None} == {order.id}
    unsubscribe()


async def test_asynchronous_calls_never_block_the_loop(portal: Portal, make_portal_broker: Any) -> None:
    broker = make_portal_broker(portal)
    await asyncio.to_thread(broker.connect)
    portal.rule("GET", "/summary", hang=True)
    asked = asyncio.create_task(broker.get_account_async())
    ticks = 0
    while not asked.done() and ticks < 20:
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks == 20, "the loop goes round while the gateway is silent"
    asked.cancel()


def test_the_clock_needs_no_broker_hours_and_quotes_have_an_age(ibeam: ClientPortalBroker) -> None:
    assert ibeam.clock().source == "calendar"
    quote = ibeam.get_quote("AAPL")
    assert quote.last == pytest.approx(200, abs=1)
    assert quote.kind == "live"
    assert quote.age_seconds < 60
