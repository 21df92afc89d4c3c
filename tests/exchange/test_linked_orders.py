"""The engine's rules on trailing, notional, linked and replaced orders, decided without sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localcloud.exchange.engine import Exchange
from localcloud.exchange.models import WORKING, Order, Refused
from localcloud.exchange.orderdesk import OrderDesk

AAPL = 265598
LEGS = [
    {"order_type": "LMT", "limit_price": 110.0},
    {"order_type": "STP", "stop_price": 95.0},
]


def place(desk: OrderDesk, side: str = "BUY", quantity: float = 100, **changes: Any) -> Order:
    wanted = {"account": "DU1", "conid": AAPL, "order_type": "MKT", **changes}
    order = desk.place(side=side, quantity=quantity, **wanted)
    desk.activate(order)
    return order


def others(engine: Exchange, order: Order) -> list[Order]:
    """The orders that were placed after one."""
    return [other for other in engine.orders.values() if other.perm_id > order.perm_id]


def test_a_trailing_stop_rises_with_the_price_and_never_falls(engine: Exchange, desk: OrderDesk) -> None:
    place(desk)
    trail = place(desk, "SELL", order_type="TRAIL", trail_amount=5.0)
    engine.market.set_price(AAPL, 120.0)
    desk.step()
    engine.market.set_price(AAPL, 116.0)
    desk.step()
    assert trail.stop_price == pytest.approx(115.0, abs=0.02)
    assert trail.status in WORKING
    engine.market.set_price(AAPL, 114.0)
    desk.step()
    assert trail.status == "Filled"


def test_a_trailing_stop_needs_one_distance(desk: OrderDesk) -> None:
    for distances in ({}, {"trail_amount": 1.0, "trail_percent": 1.0}, {"trail_amount": -1.0}):
        with pytest.raises(Refused, match="either a trail_amount or a trail_percent"):
            place(desk, "SELL", order_type="TRAIL", **distances)


def test_an_amount_buys_no_more_than_the_amount(engine: Exchange, desk: OrderDesk) -> None:
    order = place(desk, quantity=0, notional=1000.0)
    assert order.status == "Filled"
    assert order.filled * order.average_price == pytest.approx(1000.0, abs=1e-6)
    assert order.filled * order.average_price <= 1000.0


def test_legs_wait_for_their_entry_even_when_their_price_is_there(engine: Exchange, desk: OrderDesk) -> None:
    entry = place(desk, order_type="LMT", limit_price=90.0, legs=LEGS)
    engine.market.set_price(AAPL, 112.0)
    desk.step()
    assert [leg.filled for leg in others(engine, entry)] == [0.0, 0.0]


def test_when_one_leg_fills_the_other_ends(engine: Exchange, desk: OrderDesk) -> None:
    entry = place(desk, legs=LEGS)
    profit, stop = others(engine, entry)
    engine.market.set_price(AAPL, 94.0)
    desk.step()
    assert (stop.status, profit.status, profit.reason_code) == ("Filled", "Cancelled", "group")
    assert engine.account("DU1").open_positions() == []


def test_a_leg_that_fills_in_part_leaves_less_to_its_partner(engine: Exchange, desk: OrderDesk) -> None:
    entry = place(desk, legs=LEGS)
    profit, stop = others(engine, entry)
    engine.faults.largest_fill = 30.0
    engine.market.set_price(AAPL, 111.0)
    desk.step()
    assert (profit.filled, stop.quantity) == (30.0, 70.0), "no more can be sold than is held"


def test_legs_end_with_an_entry_that_never_filled(engine: Exchange, desk: OrderDesk) -> None:
    entry = place(desk, order_type="LMT", limit_price=90.0, legs=LEGS)
    desk.cancel(entry.perm_id)
    assert {leg.status for leg in others(engine, entry)} == {"Cancelled"}


def test_a_leg_closes_what_its_entry_has_filled_and_no_more(engine: Exchange, desk: OrderDesk) -> None:
    engine.faults.largest_fill = 30.0
    entry = place(desk, order_type="LMT", limit_price=101.0, legs=LEGS)
    profit, stop = others(engine, entry)
    assert entry.filled == 30
    engine.market.set_price(AAPL, 112.0)  # beyond the entry's limit: it stays at 30
    engine.faults.largest_fill = 0.0
    for _ in range(3):
        desk.step()
    assert (profit.filled, profit.status, stop.quantity) == (30.0, "Submitted", 70.0)
    assert engine.account("DU1").open_positions() == []


def test_legs_of_an_entry_cancelled_in_part_stay_for_that_part(engine: Exchange, desk: OrderDesk) -> None:
    engine.faults.largest_fill = 30.0
    entry = place(desk, order_type="LMT", limit_price=101.0, legs=LEGS)
    profit, stop = others(engine, entry)
    engine.faults.hold_orders = True
    desk.cancel(entry.perm_id)
    assert [(leg.status in WORKING, leg.quantity) for leg in (profit, stop)] == [(True, 30.0)] * 2
    engine.faults.hold_orders, engine.faults.largest_fill = False, 0.0
    engine.market.set_price(AAPL, 94.0)
    desk.step()
    assert (stop.status, profit.status) == ("Filled", "Cancelled")
    assert engine.account("DU1").open_positions() == []


def test_an_alpaca_leg_waits_for_all_of_its_entry(engine: Exchange, desk: OrderDesk) -> None:
    engine.account("DU1").kind = "alpaca"
    engine.faults.largest_fill = 30.0
    entry = place(desk, order_type="LMT", limit_price=101.0, legs=LEGS)
    engine.market.set_price(AAPL, 112.0)
    desk.step()
    assert (entry.filled, [leg.filled for leg in others(engine, entry)]) == (30.0, [0.0, 0.0])


def test_a_leg_can_be_attached_to_a_working_order(engine: Exchange, desk: OrderDesk) -> None:
    entry = place(desk, order_type="LMT", limit_price=90.0)
    leg = place(desk, "SELL", order_type="LMT", limit_price=110.0, parent=entry.perm_id)
    assert (leg.parent, leg.group, leg.filled) == (entry.perm_id, str(entry.perm_id), 0.0)
    desk.cancel(entry.perm_id)
    assert leg.status == "Cancelled"
    with pytest.raises(Refused) as refused:
        place(desk, "SELL", order_type="LMT", limit_price=110.0, parent=entry.perm_id)
    assert refused.value.code == "not_working"


@pytest.mark.parametrize(("kind", "left"), [(1, 0.0), (2, 70.0), (3, 70.0)])
def test_a_fill_ends_or_reduces_the_rest_of_its_group(
    engine: Exchange, desk: OrderDesk, kind: int, left: float
) -> None:
    place(desk)
    limit, stop = (
        place(desk, "SELL", group="mine", group_type=kind, **prices) for prices in ({**LEGS[0]}, {**LEGS[1]})
    )
    engine.faults.largest_fill = 30.0
    engine.market.set_price(AAPL, 111.0)
    desk.step()
    assert limit.filled == 30.0, "what filled in part goes on"
    assert limit.status in WORKING
    assert stop.remaining * (stop.status in WORKING) == left


def test_a_trail_begins_at_its_first_stop_price(engine: Exchange, desk: OrderDesk) -> None:
    place(desk)
    trail = place(desk, "SELL", order_type="TRAIL", trail_amount=5.0, stop_price=97.0)
    desk.step()
    assert trail.stop_price == 97.0, "as if the best price had been 102"
    engine.market.set_price(AAPL, 104.0)
    desk.step()
    assert trail.stop_price == pytest.approx(99.0, abs=0.02)


def test_legs_follow_the_order_that_replaces_their_entry(engine: Exchange, desk: OrderDesk) -> None:
    entry = place(desk, order_type="LMT", limit_price=90.0, legs=LEGS)
    new = desk.replace(entry.perm_id, limit_price=101.0)
    desk.activate(new)
    assert (entry.status, entry.reason_code, entry.replaced_by) == ("Cancelled", "replaced", new.perm_id)
    assert new.status == "Filled"
    engine.market.set_price(AAPL, 111.0)
    desk.step()
    assert engine.account("DU1").open_positions() == []


def test_a_replacement_that_cannot_be_paid_changes_nothing(engine: Exchange, desk: OrderDesk) -> None:
    order = place(desk, order_type="LMT", limit_price=90.0)
    with pytest.raises(Refused) as refused:
        desk.replace(order.perm_id, quantity=100_000.0)
    assert refused.value.code == "buying_power"
    assert order.status in WORKING
    assert len(engine.orders) == 1


def test_linked_orders_survive_a_restart(engine: Exchange, desk: OrderDesk, tmp_path: Path) -> None:
    entry = place(desk, legs=LEGS)
    again = Exchange(tmp_path / "engine", seed=7)
    again.market.set_price(AAPL, 111.0)
    OrderDesk(again).step()
    assert again.account("DU1").open_positions() == [], f"the legs of {entry.perm_id} are still linked"
    assert sum(order.status == "Filled" for order in again.orders.values()) == 2
    again.close()


def test_a_unique_reference_serves_one_order_and_others_may_repeat_theirs(desk: OrderDesk) -> None:
    place(desk, order_ref="mine")
    place(desk, order_ref="mine")
    with pytest.raises(Refused) as refused:
        place(desk, order_ref="mine", unique_reference=True)
    assert refused.value.code == "duplicate_reference"
