"""Session, data and websocket of `ClientPortalBroker`: what is lost is noticed, said and opened again."""

# ruff: noqa: F811 - fixtures are imported by name
from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from ibind.events import SubscriptionUpdated
from ibind.ws.ws_subscriptions import BindingStatus

from broker.brokers.client_portal import ClientPortalBroker, stream
from broker.brokers.client_portal.account import position_of
from broker.brokers.client_portal.market import quote_of, sessions_of
from broker.errors import (
    BrokerFailure,
    ConfigurationError,
    MarketDataUnavailable,
    NotAuthenticated,
    NotConnected,
    SecondFactorWaiting,
)
from broker.factory import build_broker, settings_from_environment
from broker.journal import Journal
from broker.market.hours import clock_from_sessions
from broker.models import EventKind, OrderEvent, Status
from tests.broker.ordering import request, settled
from tests.broker.paper_gateway import eventually
from tests.broker.portal_fixtures import ibeam, make_portal_broker, portal  # noqa: F401
from tests.broker.portal_gateway import ACCOUNT, USER, Portal, portal_gateway, write_certificate

NO_BRIDGE = {"error": "Bad Request: no bridge"}


# TLS


def test_a_certificate_that_is_not_the_pinned_one_ends_every_attempt(
    portal: Portal, make_portal_broker: Any
) -> None:
    other, _ = write_certificate(portal.folder, "other")
    broker = make_portal_broker(portal, ca_file=str(other))
    with pytest.raises(NotConnected, match="certificate"):
        broker.connect()
    assert portal.tap.seen == [], "no request, and so no token, reached a gateway that proved nothing"


@pytest.mark.parametrize(
    "options", [{"ca_file": ""}, {"ca_file": "/nowhere.pem"}, {"url": "http://127.0.0.1"}]
)
def test_connections_are_never_unverified(
    portal: Portal, make_portal_broker: Any, options: dict[str, str]
) -> None:
    with pytest.raises(ConfigurationError):
        make_portal_broker(portal, **options)


def test_the_token_goes_with_every_request_and_with_the_websocket(
    portal: Portal, make_portal_broker: Any
) -> None:
    broker = make_portal_broker(portal, token="a-secret")
    broker.connect()
    eventually(lambda: broker.health().details["websocket"], "the websocket is open")
    assert {h.get("x-gateway-token") for h in portal.tap.headers} == {"a-secret"}
    assert any("upgrade" in h.get("connection", "").lower() for h in portal.tap.headers)
    assert "a-secret" not in repr(vars(broker.health()))


# Session states


def test_a_lost_bridge_is_opened_again_and_the_question_repeated(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    portal.admin("cut_links")
    eventually(lambda: not portal.gateway.session.connected, "the gateway has lost its link")
    assert ibeam.get_account().id == ACCOUNT
    assert portal.tap.count("POST", "/ssodh/init") >= 1


def test_no_bridge_is_also_said_with_a_200(ibeam: ClientPortalBroker, portal: Portal) -> None:
    portal.rule("GET", "/summary", status=200, body={"error": "no session"})
    assert ibeam.get_account().id == ACCOUNT


def test_a_503_is_asked_again_and_a_long_one_is_a_lost_link(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    portal.rule("GET", "/summary", times=2, status=503, body={"error": "Service Unavailable"})
    assert ibeam.get_account().id == ACCOUNT
    portal.rule("GET", "/summary", times=3, status=503, body={"error": "Service Unavailable"})
    with pytest.raises(NotConnected):
        ibeam.get_account()
    eventually(lambda: ibeam.health().ok, "the link is proved again")


def test_a_session_that_ibeam_opened_anew_is_prepared_again(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    ibeam.get_account()
    portal.gateway.session._forget_preflights()
    assert ibeam.get_account().id == ACCOUNT
    assert ibeam.get_quote("AAPL").last
    assert ibeam.place_order(request()).permanent_id


def test_a_login_that_is_gone_is_said_and_noticed_when_it_is_back(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    portal.log_out()
    with pytest.raises(NotAuthenticated):
        ibeam.get_positions()
    assert ibeam.health().state == "not_logged_in"
    portal.log_in()
    eventually(lambda: ibeam.health().ok, "the login is back")
    assert ibeam.get_positions() == []


def test_a_live_login_waits_for_its_second_factor(make_portal_broker: Any) -> None:
    with portal_gateway(second_factor=True, mode="live", accounts=["U1234567"]) as portal:
        broker = make_portal_broker(portal, trading_mode="live")
        with pytest.raises(SecondFactorWaiting):
            broker.connect()
        health = broker.health()
        assert (health.ok, health.state, health.second_factor) == (False, "second_factor", True)
        portal.admin("approve_second_factor", name=USER)
        portal.log_in()
        eventually(lambda: broker.health().ok, "the login is confirmed")
        broker.disconnect()


def test_a_session_taken_by_another_login_is_said_and_not_fought_over(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    portal.session_taken()
    eventually(lambda: ibeam.health().state == "competing", "the other login is noticed")
    with pytest.raises(NotAuthenticated, match="another login"):
        ibeam.place_order(request())
    assert portal.book() == []
    portal.session_given_back()
    eventually(lambda: ibeam.health().ok, "the session is opened again when the other has left")


def test_authenticated_without_established_is_not_ready(ibeam: ClientPortalBroker, portal: Portal) -> None:
    before = portal.tap.count("POST", "/ssodh/init")
    portal.admin("gateway", action="lose_established")
    eventually(lambda: portal.tap.count("POST", "/ssodh/init") > before, "the session is opened again")
    eventually(lambda: ibeam.health().ok, "the session is whole")


def test_a_live_account_in_paper_mode_never_connects(make_portal_broker: Any) -> None:
    with portal_gateway(mode="live", accounts=["U1234567"]) as portal:
        broker = make_portal_broker(portal)
        with pytest.raises(NotConnected, match="paper trading is configured"):
            broker.connect()
        with pytest.raises(NotConnected):
            broker.place_order(request())
        assert portal.book("U1234567") == []
        broker.disconnect()


def test_tickle_keeps_the_session_alive_in_the_background(ibeam: ClientPortalBroker, portal: Portal) -> None:
    before = portal.tap.count("POST", "/tickle")
    eventually(lambda: portal.tap.count("POST", "/tickle") > before + 1, "tickle goes on by itself")


def test_health_is_proved_from_beyond_the_gateway(ibeam: ClientPortalBroker, portal: Portal) -> None:
    health = ibeam.health()
    assert health.ok
    assert health.proved_at is not None
    assert health.round_trip_ms
    portal.rule("GET", "/summary", times=99, status=503, body={"error": "Service Unavailable"})
    assert not ibeam.health().ok, "a gateway that answers while IBKR doesn't isn't healthy"


def test_nothing_is_empty_after_disconnecting(ibeam: ClientPortalBroker) -> None:
    ibeam.disconnect()
    for ask in (ibeam.get_positions, ibeam.get_orders_history, ibeam.get_fills, ibeam.get_accounts):
        with pytest.raises(NotConnected, match="disconnect"):
            ask()
    assert not ibeam.health().ok
    assert ibeam.clock().source == "calendar"


# Lists that lie


def test_the_first_list_of_a_session_is_empty_and_is_asked_again(
    portal: Portal, make_portal_broker: Any
) -> None:
    first = make_portal_broker(portal)
    first.connect()
    order = first.place_order(request(order_type="limit", limit_price=198.0))
    first.disconnect()
    portal.gateway.session._forget_preflights()
    second = make_portal_broker(portal, websocket=False)
    second.connect()
    assert [o.id for o in second.get_orders_history()] == [order.id]
    eventually(second._running().watcher.caught_up.is_set, "the first look is done")
    portal.gateway.session.orders_asked = False
    assert len(second._running().book.whole_orders()) == 1, "the next first list is empty, too"


def test_positions_come_from_the_path_that_is_not_cached(make_portal_broker: Any) -> None:
    with portal_gateway(positions_cache=3600.0) as portal:
        broker = make_portal_broker(portal)
        broker.connect()
        assert broker.get_positions() == []
        settled(broker, broker.place_order(request()), Status.FILLED)
        assert [p.qty for p in broker.get_positions()] == [5]
        broker.disconnect()


def test_a_position_that_the_fills_do_not_explain_is_reported(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    settled(ibeam, ibeam.place_order(request()), Status.FILLED)
    ibeam.get_fills()
    found: list[OrderEvent] = []
    ibeam.subscribe(found.append)
    portal.admin("set_position", account=ACCOUNT, symbol="MSFT", quantity=3, average_cost=100.0)
    portal.admin("cut_links")

    def told() -> list[OrderEvent]:
        return [e for e in found if e.kind == EventKind.UNEXPLAINED_POSITION]

    change = eventually(told, "the change is reported after the connection was lost")[0].position
    assert (change.symbol, change.qty_expected, change.qty_now) == ("MSFT", 0, 3)
    assert {e.position.symbol for e in told() if e.position} == {"MSFT"}, "AAPL is explained by its fills"


# Quotes and hours


def test_the_first_snapshot_is_empty_and_is_asked_again(ibeam: ClientPortalBroker, portal: Portal) -> None:
    quote = ibeam.get_quote("AAPL")
    assert quote.bid is not None
    assert portal.tap.count("GET", "/marketdata/snapshot") == 2


def test_prices_without_a_subscription_are_an_error_and_never_zero(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    portal.fault("market_data", "none")
    with pytest.raises(MarketDataUnavailable):
        ibeam.get_quote("AAPL")
    portal.fault("market_data", "delayed")
    assert ibeam.get_quote("AAPL").kind == "delayed"


def test_prefixes_of_the_last_price_tell_a_close_and_a_halt() -> None:
    closed = quote_of("AAPL", {"31": "C1,168.42", "6509": "RpB"})
    assert (closed.last, closed.close) == (None, 1168.42)
    halted = quote_of("AAPL", {"31": "H168.42", "84": "-1", "6509": "RpB"})
    assert (halted.last, halted.bid, halted.kind) == (168.42, None, "halted")


def test_the_clock_follows_the_brokers_own_schedule(ibeam: ClientPortalBroker, portal: Portal) -> None:
    day = {"liquid_hours": [{"opening": 1, "closing": 4102444800}], "extended_hours": []}
    answer = {"exchange_time_zone": "US/Eastern", "schedules": {"19700101": day}}
    portal.rule("GET", "/contract/trading-schedule", times=9, status=200, body=answer)
    ibeam._running().market._hours = None
    assert ibeam.clock().source == "broker"
    assert ibeam.is_market_open()


def test_a_day_without_liquid_hours_is_no_session() -> None:
    days = {"20251226": {"extended_hours": [{"closing": 2, "opening": 1}]}}
    assert sessions_of({"schedules": days}) == []
    half = {"20251224": {"liquid_hours": [{"closing": 1766600100, "opening": 1766586600}]}}
    clock = clock_from_sessions(sessions_of({"schedules": half}), datetime.fromtimestamp(1766590000, UTC))
    assert clock is not None
    assert clock.is_open


def test_a_position_without_its_size_is_an_error() -> None:
    with pytest.raises(BrokerFailure):
        position_of({"description": "AAPL", "avgCost": 1.0}, None)


# The websocket


def test_without_a_websocket_orders_are_polled(portal: Portal, make_portal_broker: Any) -> None:
    broker = make_portal_broker(portal, websocket=False)
    broker.connect()
    order = broker.place_order(request(order_type="limit", limit_price=198.0))
    found: list[OrderEvent] = []
    broker.subscribe(found.append)
    portal.admin("set_price", symbol="AAPL", price=190.0)
    eventually(
        lambda: any(e.order and e.order.status == Status.FILLED for e in found), "polling tells of the fill"
    )
    assert broker.get_order(order.id).filled_qty == 5


def test_a_session_that_was_lost_is_a_gap_for_listeners(ibeam: ClientPortalBroker, portal: Portal) -> None:
    found: list[OrderEvent] = []
    ibeam.subscribe(found.append)
    portal.log_out()
    eventually(lambda: not ibeam.health().ok, "the loss is noticed")
    portal.log_in()
    eventually(
        lambda: any(e.kind == EventKind.GAP for e in found), "listeners are told that events may be missing"
    )


def test_a_fill_while_the_session_was_lost_is_reported(ibeam: ClientPortalBroker, portal: Portal) -> None:
    order = ibeam.place_order(request(order_type="limit", limit_price=198.0))
    portal.log_out()
    eventually(lambda: not ibeam.health().ok, "the loss is noticed")
    portal.admin("set_price", symbol="AAPL", price=190.0)
    portal.log_in()
    eventually(lambda: ibeam.health().ok, "the login is back")
    assert settled(ibeam, order, Status.FILLED).filled_qty == 5
    assert sum(f.qty for f in ibeam.get_fills()) == 5


def test_a_fill_while_the_websocket_was_made_anew_is_not_missed(
    ibeam: ClientPortalBroker, portal: Portal, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A websocket that broke and was there again by the next look was taken for one that never broke."""
    monkeypatch.setattr(stream, "LIVE_POLL", 3600.0)
    found: list[OrderEvent] = []
    ibeam.subscribe(found.append)
    order = ibeam.place_order(request(order_type="limit", limit_price=198.0))
    portal.drop_websockets(price=190.0)
    eventually(
        lambda: journal.get(ACCOUNT, order.id).filled_qty == 5, "the journal learns of it without being asked"
    )
    eventually(lambda: any(e.kind == EventKind.GAP for e in found), "listeners are told")
    eventually(lambda: sum(f.qty for f in journal.fills.of_order(order.id)) == 5, "the fill is taken down")


def test_a_subscription_that_ibind_made_anew_by_itself_is_a_gap(
    ibeam: ClientPortalBroker, portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LIVE_POLL", 3600.0)
    found: list[OrderEvent] = []
    ibeam.subscribe(found.append)
    watcher, key = ibeam._running().watcher, stream.ORDERS.binding_key()
    asked = portal.tap.count("GET", "/account/trades")
    for before, after in ((BindingStatus.ACTIVE, BindingStatus.DEGRADED),
                          (BindingStatus.DEGRADED, BindingStatus.ACTIVE)):  # fmt: skip
        watcher._sink.emit(
            SubscriptionUpdated(
                subscription=stream.ORDERS, binding_key=key, status=after, previous_status=before
            )
        )
    eventually(lambda: [e for e in found if e.kind == EventKind.GAP], "listeners are told")
    eventually(lambda: portal.tap.count("GET", "/account/trades") > asked, "what was missed is read")


def test_a_fill_while_ibeam_logged_in_anew_is_not_missed(
    portal: Portal, journal: Journal, make_portal_broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that was lost and back between two heartbeats shows in tickle's session id alone."""
    monkeypatch.setattr(stream, "LIVE_POLL", 3600.0)
    broker = make_portal_broker(portal, heartbeat=3600.0)
    broker.connect()
    eventually(lambda: broker.health().details["websocket"], "the websocket is open")
    order = broker.place_order(request(order_type="limit", limit_price=198.0))
    portal.log_out()
    portal.admin("set_price", symbol="AAPL", price=190.0)
    portal.log_in()
    broker._running().session.tickle.get()
    eventually(
        lambda: journal.get(ACCOUNT, order.id).filled_qty == 5, "the journal learns of it without being asked"
    )


def test_partial_fills_add_up(ibeam: ClientPortalBroker, portal: Portal) -> None:
    portal.fault("largest_fill", 2.0)
    order = settled(ibeam, ibeam.place_order(request()), Status.FILLED)
    assert order.filled_qty == 5
    fills = ibeam.get_fills()
    assert len(fills) == len({f.id for f in fills}) == 3


# Settings


def test_the_factory_builds_it_from_the_environment(portal: Portal, journal: Journal) -> None:
    settings = settings_from_environment(
        {
            "BROKER_TYPE": "ibeam",
            "IBEAM_URL": portal.url,
            "IBEAM_CA_FILE": portal.ca_file,
            "IBEAM_TOKEN": "a-secret",
            "IBEAM_ACCOUNT_ID": ACCOUNT,
            "IBEAM_CONFIRM": "o163, o10151",
            "IBKR_TRADING_MODE": "paper",
        }
    )
    assert settings.ibeam_confirm == {"o163", "o10151"}
    assert "a-secret" not in repr(settings)
    broker = build_broker(settings, journal)
    try:
        broker.connect()
        assert broker.get_account().id == ACCOUNT
    finally:
        broker.disconnect()


def test_the_factory_names_what_is_missing(journal: Journal) -> None:
    with pytest.raises(ConfigurationError, match="IBEAM_URL and IBEAM_CA_FILE, or IBEAM_URL and IBEAM_TOKEN"):
        build_broker(settings_from_environment({"BROKER_TYPE": "ibeam"}), journal)


@pytest.mark.parametrize("bracket", [False, True])
def test_an_order_whose_number_is_noted_while_its_news_is_read_is_no_second_order(
    ibeam: ClientPortalBroker, journal: Journal, monkeypatch: pytest.MonkeyPatch, bracket: bool
) -> None:
    """Soak, client_portal, seed 1, 379 and 96: the websocket's row came between two steps of the call."""
    legs = {"take_profit_price": 230.0, "stop_loss_price": 180.0} if bracket else {}
    order = entry = ibeam.place_order(request(order_type="limit", limit_price=198.0, **legs))
    if bracket:
        order = eventually(
            lambda: next((leg for leg in map(ibeam.get_order, entry.legs) if leg.permanent_id), None),
            "a leg has its number",
        )
    known = {o.id for o in journal.recent(ACCOUNT, 10)}
    row = {
        "acct": ACCOUNT,
        "orderId": order.permanent_id,
        "ticker": "AAPL",
        "side": order.side.upper(),
        "totalSize": 5.0,
        "status": order.broker_status or "PreSubmitted",
        "order_ref": order.client_order_id,
    } | ({"parentId": entry.permanent_id} if bracket else {})
    look: Any = Journal.by_permanent_id
    asked = []

    def late(given: Journal, account: str, number: str) -> Any:
        asked.append(number)
        return look(given, account, number) if len(asked) > 1 else None

    monkeypatch.setattr(Journal, "by_permanent_id", late)
    ibeam._running().book.take_order(row)
    assert {o.id for o in journal.recent(ACCOUNT, 10)} == known
