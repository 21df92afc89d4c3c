"""What is refused before anything is sent: each wrong field by its name and value, all of them at once."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.base import Capabilities
from broker.brokers.ibkr import IBKRBroker
from broker.brokers.simulated import SimulatedBroker
from broker.errors import InvalidRequest
from broker.models import Order, OrderRequest
from broker.validation import check_order, check_replacement, check_symbol
from tests.broker.ordering import request

ALL = replace(SimulatedBroker.capabilities, extended_hours=True)


def wrong(changes: dict[str, Any], capabilities: Capabilities = ALL) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        check_order(request(**changes), capabilities)
    return {p.field: p.value for p in refused.value.problems}


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"order_type": "stop"}, "stop_price", "nothing"),
        ({"order_type": "stop_limit", "stop_price": 5.0}, "limit_price", "nothing"),
        ({"order_type": "trailing_stop"}, "trail_amount", "nothing"),
        ({"order_type": "trailing_stop", "trail_percent": 0}, "trail_percent", "0"),
        ({"order_type": "limit", "limit_price": 1.005}, "limit_price", "1.005"),
        ({"order_type": "limit", "limit_price": 0.00005}, "limit_price", "5e-05"),
        ({"stop_price": 5.0}, "stop_price", "5.0"),
        ({"qty": 0.1 + 0.2}, "qty", "0.30000000000000004"),
        ({"qty": 0, "notional": math.nan}, "notional", "nan"),
        ({"qty": 0, "notional": 2e9}, "notional", "2000000000.0"),
        ({"notional": 100.0}, "qty", "5"),
        ({"qty": 0, "notional": 50.0, "order_type": "limit", "limit_price": 5.0}, "notional", "50.0"),
        ({"stop_loss_price": 5.0}, "take_profit_price", "nothing"),
        ({"extended_hours": True}, "extended_hours", "True"),
        ({"symbol": "BRK-B"}, "symbol", "'BRK-B'"),
        ({"client_order_id": "-x"}, "client_order_id", "'-x'"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named_with_its_value(changes: dict[str, Any], field: str, value: str) -> None:
    assert wrong(changes) == {field: value}


def test_a_brackets_legs_lie_either_side_of_its_entry() -> None:
    bracket = {"take_profit_price": 110.0, "stop_loss_price": 90.0}
    limit = {"order_type": "limit", "limit_price": 100.0}
    assert check_order(request(**limit, **bracket), ALL).take_profit_price == 110.0
    assert wrong({**limit, **bracket, "side": "sell"}) == {"take_profit_price": "110.0"}
    assert wrong({**limit, **bracket, "limit_price": 111.0}) == {"take_profit_price": "110.0"}
    assert wrong({**limit, **bracket, "limit_price": 89.0}) == {"stop_loss_price": "90.0"}


def test_sub_dollar_prices_have_a_finer_tick() -> None:
    """SEC rule 612: hundredths of a cent below one dollar, cents from there on."""
    fine = {"order_type": "limit", "limit_price": 0.5001}
    assert check_order(request(**fine), ALL).limit_price == 0.5001
    assert wrong({**fine, "limit_price": 1.0001}) == {"limit_price": "1.0001"}


def test_class_shares_are_written_with_a_dot() -> None:
    assert check_symbol("brk.b") == "BRK.B"
    for symbol in ("BRK B", "BRK/B", "BRK-B", "BRK.", ".B", "1AAPL", "A" * 13, "AAPL\n", None, 5):
        with pytest.raises(InvalidRequest):
            check_symbol(symbol)


def test_a_replacement_changes_something_that_the_order_has() -> None:
    order = Order("i", "AAPL", "buy", 5, "limit", "partially_filled", limit_price=100.0, filled_qty=3)

    def fields(**changes: Any) -> list[str]:
        asked = {"qty": None, "limit_price": None, "stop_price": None, "time_in_force": None} | changes
        with pytest.raises(InvalidRequest) as refused:
            check_replacement(order, IBKRBroker.capabilities, **asked)
        return [p.field for p in refused.value.problems]

    assert fields() == ["qty"]
    assert fields(qty=3) == ["qty"], "not below what is filled"
    assert fields(stop_price=5.0, time_in_force="never") == ["stop_price", "time_in_force"]
    good: dict[str, Any] = {"qty": 4, "limit_price": 99.5, "stop_price": None, "time_in_force": "GTC"}
    found = check_replacement(order, IBKRBroker.capabilities, **good)
    assert found == {"qty": 4.0, "limit_price": 99.5, "time_in_force": "gtc"}


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5)
)


FIELDS = ("symbol", "side", "qty", "order_type", "limit_price", "stop_price", "notional")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ANYTHING)))
def test_whatever_is_asked_is_a_sound_order_or_named_problems(changes: dict[str, Any]) -> None:
    problems, checked = [], None
    try:
        checked = check_order(request(**changes), ALL)
    except InvalidRequest as refused:
        problems = refused.problems
    assert {p.field for p in problems} <= OrderRequest.__dataclass_fields__.keys()
    if checked is None:
        assert problems
        return
    assert checked.qty > 0 or checked.notional
    assert math.isfinite(checked.qty)
    assert checked.symbol == check_symbol(checked.symbol)
    assert check_order(checked, ALL) == checked, "normal form is its own normal form"
