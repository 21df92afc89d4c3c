"""Limits: each from both sides, then as a whole over the simulated broker. Two processes: tests/service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.brokers.simulated import SimulatedBroker
from broker.errors import BrokerError, ConfigurationError, LimitExceeded, MarketDataUnavailable, NotConnected
from broker.factory import BrokerSettings, build_broker, settings_from_environment
from broker.journal import Journal
from broker.models import (
    FINAL_STATUSES,
    AccountInfo,
    OrderReport,
    OrderRequest,
    Position,
    Quote,
    Status,
)
from broker.risk.guard import Guard
from broker.risk.limits import LIVE, PAPER, Limits, limits_from_environment
from broker.risk.live import Gateway
from broker.risk.modes import Declared
from tests.broker.ordering import request

NONE = Limits(
    max_order_value=None,
    max_order_qty=None,
    max_short_qty=None,
    max_long_value=None,
    price_collar_percent=None,
    far_collar_percent=None,
    orders_per_minute=None,
    max_day_loss_percent=None,
)


def limits(**changes: Any) -> Limits:
    """No limit but those given."""
    return Limits(**{**vars(NONE), **changes})


class Desk:
    """A guarded simulated broker whose clock, account and quote a test sets. AAPL is 100, all else unset."""

    def __init__(self, allowed: Limits, journal: Journal | None = None) -> None:
        self.now = datetime.now(UTC)
        self.journal = journal or Journal.in_file(":memory:")
        self.refused: list[BrokerError] = []
        self.waits: list[float] = []
        self.guard = Guard(
            self.journal,
            Declared("simulated"),
            Gateway("simulated", "in process"),
            allowed,
            position_lag=0.0,
            refused=lambda error, _request, _account: self.refused.append(error),
            clock=lambda: self.now,
            wait=self.waits.append,
        )
        self.broker = SimulatedBroker(self.journal, cash=10_000_000.0, guard=self.guard)
        self.guard.attach(self.broker)
        self.broker.connect()
        self.broker.set_price("AAPL", 100.0)

    def place(self, **changes: Any) -> str:
        """The status of an order, or the name of the limit that refused it."""
        try:
            return self.broker.place_order(request(**changes)).status
        except LimitExceeded as refusal:
            return refusal.limit


# Bid 99.99, ask 100.01: what a market order is reckoned at.
@pytest.mark.parametrize(
    ("limit", "passes", "refused"),
    [
        ({"max_order_qty": 10}, {"qty": 10}, {"qty": 11}),
        ({"max_order_value": 1000.1}, {"qty": 10}, {"qty": 11}),
        ({"max_order_value": 1000.0}, {"qty": 10, "order_type": "limit", "limit_price": 100.0}, {"qty": 10}),
        ({"max_order_value": 500.0}, {"qty": 0, "notional": 500.0}, {"qty": 0, "notional": 501.0}),
        ({"max_long_qty": 10}, {"qty": 10}, {"qty": 11}),
        ({"max_long_value": 1000.1}, {"qty": 10}, {"qty": 11}),
        ({"max_short_qty": 10}, {"qty": 10, "side": "sell"}, {"qty": 11, "side": "sell"}),
        ({"max_short_value": 1000.0}, {"qty": 10, "side": "sell"}, {"qty": 11, "side": "sell"}),
        ({"max_short_qty": 0}, {"qty": 10}, {"qty": 1, "side": "sell"}),
        ({"symbols_allowed": frozenset({"AAPL"})}, {}, {"symbol": "MSFT"}),
        ({"symbols_forbidden": frozenset({"MSFT"})}, {}, {"symbol": "MSFT"}),
    ],
    ids=str,
)
def test_a_limit_lets_its_own_value_pass_and_refuses_beyond_it(
    limit: dict[str, Any], passes: dict[str, Any], refused: dict[str, Any]
) -> None:
    assert Desk(limits(**limit)).place(**passes) in ("filled", "submitted")
    desk = Desk(limits(**limit))
    assert desk.place(**refused) in limit
    assert desk.broker.get_positions() == []
    assert desk.broker.get_orders_history() == [], "a refused order isn't recorded, let alone sent"
    assert [type(error) for error in desk.refused] == [LimitExceeded]


@pytest.mark.parametrize(
    ("side", "passes", "refused"),
    [("buy", 105.0, 105.2), ("buy", 50.1, 49.9), ("sell", 95.0, 94.9), ("sell", 149.9, 150.1)],
)
def test_a_limit_price_keeps_near_the_quote_on_the_losing_side_and_farther_on_the_other(
    side: str, passes: float, refused: float
) -> None:
    collar = limits(price_collar_percent=5.0, far_collar_percent=50.0)
    desk = Desk(collar)
    assert desk.place(side=side, order_type="limit", limit_price=passes) in ("filled", "submitted")
    assert desk.place(side=side, order_type="limit", limit_price=refused).endswith("collar_percent")


def test_a_stop_price_keeps_to_the_far_collar_and_its_limit_near_the_stop() -> None:
    desk = Desk(limits(price_collar_percent=5.0, far_collar_percent=20.0))
    stop = {"order_type": "stop", "side": "buy"}
    assert desk.place(**stop, stop_price=119.0) in ("submitted", "accepted")
    assert desk.place(**stop, stop_price=121.0) == "far_collar_percent"
    limit = {"order_type": "stop_limit", "side": "buy", "stop_price": 110.0}
    assert desk.place(**limit, limit_price=115.0) in ("submitted", "accepted")
    assert desk.place(**limit, limit_price=116.0) == "price_collar_percent"


def test_orders_a_minute_are_counted_across_restarts_and_forgotten_after_a_minute() -> None:
    desk = Desk(limits(orders_per_minute=2))
    assert [desk.place(qty=1) for _ in range(3)] == ["filled", "filled", "orders_per_minute"]
    again = Desk(limits(orders_per_minute=2), desk.journal)
    again.now = desk.now
    assert again.place(qty=1) == "orders_per_minute", "a restart doesn't open a new minute"
    again.now += timedelta(seconds=61)
    assert again.place(qty=1) == "filled"


def test_a_repeated_call_is_the_same_order_and_counts_once() -> None:
    desk = Desk(limits(orders_per_minute=1))
    assert [desk.place(client_order_id="one") for _ in range(3)] == ["filled"] * 3


def test_working_orders_count_as_if_they_were_filled() -> None:
    desk = Desk(limits(max_long_qty=10, max_short_qty=10))
    resting = {"order_type": "limit", "limit_price": 50.0}
    assert desk.place(qty=6, **resting) == "submitted"
    assert desk.place(qty=5) == "max_long_qty"
    assert desk.place(qty=4) == "filled"
    for order in desk.broker.get_orders_history():
        if order.status not in FINAL_STATUSES:
            desk.broker.cancel_order(order.id)
    assert desk.place(qty=6) == "filled", "a cancelled order counts no more"


def test_a_replacement_counts_in_place_of_its_order_and_without_what_that_has_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(limits(max_long_qty=10))
    assert desk.place(qty=8, order_type="limit", limit_price=50.0, client_order_id="one") == "submitted"
    (order,) = desk.broker.get_orders_history()
    desk.journal.update(order.id, OrderReport(Status.PARTIALLY_FILLED, filled_qty=5, filled_price=50.0))
    held = Position("AAPL", 5.0, 50.0, 100.0, 500.0, 250.0, 1.0)
    monkeypatch.setattr(desk.broker, "get_position", lambda _symbol, **_: held)
    changed = request(qty=10, order_type="limit", limit_price=50.0, client_order_id="one")
    desk.guard(changed, "SIM-1")
    with pytest.raises(LimitExceeded, match="max_long_qty"):
        desk.guard(replace(changed, qty=11), "SIM-1")


def test_an_order_that_only_reduces_passes_what_limits_risk() -> None:
    open_up = Desk(NONE)
    assert open_up.place(qty=100) == "filled"
    strict = limits(
        max_order_qty=1, max_order_value=1.0, symbols_allowed=frozenset({"MSFT"}), max_short_qty=0
    )
    open_up.guard.limits = strict
    assert open_up.place(qty=60, side="sell") == "filled"
    assert open_up.place(qty=41, side="sell") == "symbols_allowed", "more than is held opens a short position"
    assert open_up.place(qty=40, side="sell") == "filled"


def test_a_loop_that_reduces_has_a_rate_of_its_own() -> None:
    desk = Desk(limits(orders_per_minute=2))
    assert desk.place(qty=10) == "filled"
    assert desk.place(qty=10) == "filled"
    sales = [desk.place(qty=1, side="sell") for _ in range(3)]
    assert sales == ["filled", "filled", "orders_per_minute"], "openings leave the way out open, but no loop"


def account_of(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, last: float, now: float, source: str = ""
) -> None:
    found = AccountInfo("SIM-1", now, now, now, now, last, source)
    monkeypatch.setattr(desk.broker, "get_account", lambda **_: found)


@pytest.mark.parametrize("limit", [{"max_day_loss": 300.0}, {"max_day_loss_percent": 3.0}])
def test_a_day_that_lost_too_much_opens_nothing_and_closes_still(
    limit: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(limits(**limit))
    account_of(desk, monkeypatch, 10_000.0, 9_700.0)
    assert desk.place(qty=1) == "filled"
    account_of(desk, monkeypatch, 10_000.0, 9_699.0)
    assert desk.place(qty=1) == "max_day_loss"
    assert desk.place(qty=1, side="sell") == "filled"


def test_a_day_whose_loss_nobody_can_tell_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(limits(max_day_loss=300.0))
    account_of(desk, monkeypatch, 9_000.0, 9_000.0, "net liquidation value now")
    assert desk.place(qty=1) == "max_day_loss"


def quoted(desk: Desk, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    found = Quote("AAPL", 99.99, 100.01, 100.0, 99.0, datetime.now(UTC).isoformat(), "live", "test")
    for name, value in changes.items():
        setattr(found, name, value)
    monkeypatch.setattr(desk.broker, "get_quote", lambda _symbol: found)


def test_a_market_order_needs_a_fresh_quote_where_its_value_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(limits(max_order_value=10_000.0))
    quoted(desk, monkeypatch, time=(datetime.now(UTC) - timedelta(seconds=14)).isoformat())
    assert desk.place(qty=1) == "filled"
    quoted(desk, monkeypatch, time=(datetime.now(UTC) - timedelta(seconds=16)).isoformat())
    assert desk.place(qty=1) == "max_order_value"
    quoted(desk, monkeypatch, kind="delayed")
    assert desk.place(qty=1) == "max_order_value", "a price of fifteen minutes ago isn't a fresh one"
    quoted(desk, monkeypatch, bid=None, ask=None, last=None)
    assert desk.place(qty=1) == "max_order_value"

    def away(_symbol: str) -> Quote:
        raise MarketDataUnavailable("no subscription")

    monkeypatch.setattr(desk.broker, "get_quote", away)
    assert desk.place(qty=1) == "max_order_value"
    assert desk.place(qty=1, side="sell", order_type="limit", limit_price=100.0) == "submitted", (
        "getting out doesn't wait for a price"
    )


def test_a_broker_that_cannot_be_asked_for_its_positions_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(limits(max_long_qty=10))

    def away(_symbol: str, **_: str) -> Position:
        raise NotConnected("the link is down")

    monkeypatch.setattr(desk.broker, "get_position", away)
    with pytest.raises(NotConnected):
        desk.broker.place_order(request())
    assert desk.journal.recent("SIM-1", 5) == []


def test_a_position_that_lags_behind_its_fill_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(limits(max_long_qty=10))
    desk.guard._lag = 1.0
    desk.now = datetime.now(UTC)
    assert desk.place(qty=6) == "filled"
    ask = desk.broker.get_position
    monkeypatch.setattr(desk.broker, "get_position", lambda _symbol, **_: None)  # not told of the fill yet
    desk.now = datetime.now(UTC)
    assert desk.place(qty=5) == "max_long_qty", "6 were bought a moment ago, whatever the position says"
    assert desk.waits == [1.0, 1.0]
    monkeypatch.setattr(desk.broker, "get_position", ask)
    desk.now = datetime.now(UTC) + timedelta(seconds=2)
    assert desk.place(qty=4) == "filled"


def test_a_guard_whose_limits_fail_to_tell_refuses_all_the_same() -> None:
    desk = Desk(limits(max_order_qty=1))

    def broken(*_said: object) -> None:
        raise RuntimeError("the alert channel is broken")

    desk.guard._refused = broken
    assert desk.place(qty=2) == "max_order_qty"


ORDERS = st.lists(
    st.tuples(
        st.sampled_from(["buy", "sell"]),
        st.integers(1, 9),
        st.sampled_from([None, 98.0, 99.0, 101.0, 102.0]),
        st.sampled_from(["keep", "cancel", "up", "down"]),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(ORDERS)
def test_no_sequence_of_orders_exceeds_the_position_the_rate_or_the_size(orders: list[Any]) -> None:
    desk = Desk(limits(max_long_qty=12, max_short_qty=5, max_order_qty=8, orders_per_minute=10))
    for side, qty, price, then in orders:
        desk.place(side=side, qty=qty, order_type="limit" if price else "market", limit_price=price)
        if then == "cancel":
            desk.broker.cancel_all_orders()
        elif then != "keep":
            desk.broker.set_price("AAPL", 101.5 if then == "up" else 98.5)
        held = sum(p.qty for p in desk.broker.get_positions())
        history = desk.broker.get_orders_history(500)
        working = [o for o in history if o.status not in FINAL_STATUSES]
        most = held + sum(o.qty - o.filled_qty for o in working if o.side == "buy")
        least = held - sum(o.qty - o.filled_qty for o in working if o.side == "sell")
        assert -5 <= least <= most <= 12, "even if every working order fills"
    assert len(history if orders else []) <= 20, "ten that open and ten that reduce"


BRACKET = {"order_type": "limit", "limit_price": 99.0, "take_profit_price": 110.0, "stop_loss_price": 90.0}


def test_a_brackets_legs_are_counted_once_and_only_for_what_its_entry_has_filled() -> None:
    desk = Desk(limits(max_long_qty=10, max_short_qty=2))
    assert desk.place(qty=10, **BRACKET) == "submitted"
    assert desk.place(qty=1) == "max_long_qty", "the entry is counted"
    assert desk.place(qty=2, side="sell") == "filled", "the legs can't trade yet"
    desk.broker.set_price("AAPL", 98.0)
    assert desk.broker.get_positions()[0].qty == 8
    assert desk.place(qty=1, side="sell") == "max_short_qty", "one of the legs may sell 10 of the 8"
    assert desk.place(qty=2) == "filled"
    assert desk.place(qty=2, side="sell") == "filled", "of the two legs one sells"
    desk.broker.cancel_all_orders()
    assert desk.place(qty=8, side="sell") == "filled"


def test_a_leg_can_be_replaced_whatever_the_limits_on_positions() -> None:
    desk = Desk(limits(max_long_qty=10, max_short_qty=0, max_order_qty=10))
    desk.place(qty=10, client_order_id="b", **BRACKET)
    entry = desk.broker.get_order_by_client_id("b")
    gain, loss = entry.legs
    assert desk.broker.replace_order(gain, limit_price=109.0).limit_price == 109.0
    desk.broker.set_price("AAPL", 98.0)
    assert desk.broker.replace_order(loss, stop_price=91.0).stop_price == 91.0
    assert desk.broker.close_position("AAPL").status == "filled"


def test_every_variable_of_the_table_is_read_and_none_switches_a_limit_off() -> None:
    found = limits_from_environment(
        {
            "RISK_MAX_ORDER_VALUE": "2500",
            "RISK_MAX_DAY_LOSS_PERCENT": "none",
            "RISK_ORDERS_PER_MINUTE": "5",
            "RISK_SYMBOLS_ALLOWED": "aapl, BRK.B",
            "RISK_DELAYED_QUOTES": "true",
        },
        "live",
    )
    assert found.max_order_value == 2500
    assert found.max_day_loss_percent is None
    assert found.orders_per_minute == 5
    assert found.symbols_allowed == {"AAPL", "BRK.B"}
    assert found.delayed_quotes
    assert found.max_short_qty == LIVE.max_short_qty, "what isn't set keeps its default"


def test_wrong_limits_are_all_named_with_their_values() -> None:
    wrong = {"RISK_MAX_ORDER_QTY": "-1", "RISK_SYMBOLS_ALLOWED": "A B", "RISK_ORDERS_PER_MINUTE": "nan"}
    with pytest.raises(ConfigurationError) as said:
        settings_from_environment(wrong)
    assert all(name in said.value.message for name in wrong)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"BROKER_TYPE": "ibkr", "IBKR_TRADING_MODE": "paper"}, PAPER),
        ({"BROKER_TYPE": "ibkr", "IBKR_TRADING_MODE": "live"}, LIVE),
        ({"BROKER_TYPE": "ibkr", "IBKR_GATEWAY_PORT": "14002"}, LIVE),
        ({"BROKER_TYPE": "alpaca"}, PAPER),
        ({"BROKER_TYPE": "alpaca", "ALPACA_PAPER": "false"}, LIVE),
        ({"BROKER_TYPE": "simulated"}, PAPER),
    ],
    ids=str,
)
def test_live_limits_hold_unless_the_settings_plainly_say_paper(
    environment: dict[str, str], expected: Limits
) -> None:
    assert settings_from_environment(environment).limits == expected


def test_settings_made_by_hand_are_limited_as_live_ones() -> None:
    broker = build_broker(BrokerSettings(broker_type="simulated"), Journal.in_file(":memory:"))
    broker.connect()
    with pytest.raises(LimitExceeded, match="max_order_value allows 10000"):
        broker.place_order(OrderRequest("AAPL", "buy", 200, "market"))


def test_a_guard_without_a_broker_says_what_is_missing() -> None:
    guard = Guard(Journal.in_file(":memory:"), Declared("simulated"), Gateway("simulated", ""), NONE)
    place: Callable[[OrderRequest, str], None] = guard
    with pytest.raises(ConfigurationError, match="attach"):
        place(request(client_order_id="one"), "SIM-1")
