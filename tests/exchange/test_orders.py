"""The engine's rules on orders, decided without sockets: matching, money, margin, refusals, restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localcloud.exchange.engine import Exchange
from localcloud.exchange.models import Order, Refused
from localcloud.exchange.orderdesk import OrderDesk

AAPL, QQQ_MEXICO = 265598, 320227574


def place(desk: OrderDesk, side: str = "BUY", quantity: float = 100, **changes: Any) -> Order:
    wanted = {"account": "DU1", "conid": AAPL, "order_type": "MKT", **changes}
    order = desk.place(side=side, quantity=quantity, **wanted)
    desk.activate(order)
    return order


def test_a_market_order_trades_at_the_other_side_of_the_book(engine: Exchange, desk: OrderDesk) -> None:
    quote = engine.market.quote(AAPL)
    ask = quote.ask
    order = place(desk)
    assert (order.status, order.filled, order.average_price) == ("Filled", 100, ask)


def test_a_trade_moves_cash_position_and_commission(engine: Exchange, desk: OrderDesk) -> None:
    order = place(desk)
    position = engine.account("DU1").position(AAPL)
    assert order.commission == 1.0, "100 shares cost the minimum of IBKR's fixed pricing"
    assert position.quantity == 100
    assert position.average_cost == pytest.approx(order.average_price + 0.01), "commissions are in the cost"
    assert engine.account("DU1").cash == pytest.approx(100_000 - 100 * order.average_price - 1.0)


def test_closing_a_position_realizes_profit_after_both_commissions(engine: Exchange, desk: OrderDesk) -> None:
    bought = place(desk)
    engine.market.set_price(AAPL, 110.0)
    sold = place(desk, "SELL")
    expected = (sold.average_price - bought.average_price) * 100 - 2.0
    assert engine.account("DU1").realized_today == pytest.approx(expected)
    assert engine.account("DU1").open_positions() == []
    assert engine.account_summary("DU1")["net_liquidation"] == pytest.approx(100_000 + expected, abs=0.01)


def test_selling_more_than_is_held_turns_the_position_short(engine: Exchange, desk: OrderDesk) -> None:
    place(desk)
    sold = place(desk, "SELL", 150)
    desk.step()
    position = engine.account("DU1").position(AAPL)
    assert position.quantity == -50
    assert position.average_cost == pytest.approx(sold.average_price, abs=0.05)


def test_a_limit_order_rests_until_the_price_comes_and_trades_at_its_limit(
    engine: Exchange, desk: OrderDesk
) -> None:
    order = place(desk, order_type="LMT", limit_price=99.0)
    desk.step()
    assert order.status == "Submitted"
    engine.market.set_price(AAPL, 98.5)
    desk.step()
    assert (order.status, order.average_price) == ("Filled", 99.0)


def test_a_stop_order_waits_for_its_trigger(engine: Exchange, desk: OrderDesk) -> None:
    place(desk)
    stop = place(desk, "SELL", order_type="STP", stop_price=95.0)
    desk.step()
    assert stop.status == "PreSubmitted", "IBKR holds a stop order until it is triggered"
    engine.market.set_price(AAPL, 94.0)
    desk.step()
    assert stop.status == "Filled"


def test_an_order_larger_than_the_displayed_size_trades_in_parts(engine: Exchange, desk: OrderDesk) -> None:
    engine.faults.set("largest_fill", 30)
    order = place(desk)
    assert (order.status, order.filled, order.remaining) == ("Submitted", 30, 70)
    for _ in range(3):
        desk.step()
    assert (order.status, order.filled) == ("Filled", 100)
    assert order.commission == 1.0, "an order in parts pays the minimum once"
    assert len(engine.executions) == 4
    assert len({item.exec_id for item in engine.executions}) == 4


def test_immediate_or_cancel_leaves_nothing_working(engine: Exchange, desk: OrderDesk) -> None:
    engine.faults.set("largest_fill", 30)
    order = place(desk, tif="IOC")
    assert (order.status, order.filled) == ("Cancelled", 30)


def test_an_order_beyond_buying_power_is_inactive_with_the_reason(engine: Exchange, desk: OrderDesk) -> None:
    order = place(desk, quantity=5_000)
    assert (order.status, order.reason_code) == ("Inactive", "buying_power")
    assert "INITIAL MARGIN" in order.reason
    assert engine.account("DU1").open_positions() == []


def test_working_orders_use_up_buying_power(desk: OrderDesk) -> None:
    first = place(desk, quantity=3_000, order_type="LMT", limit_price=99.0)
    second = place(desk, quantity=3_000, order_type="LMT", limit_price=99.0)
    assert (first.status, second.status) == ("Submitted", "Inactive")


def test_a_cash_account_neither_borrows_nor_sells_short(desk: OrderDesk) -> None:
    assert place(desk, account="DU2", quantity=101).reason_code == "buying_power"
    assert place(desk, "SELL", account="DU2", quantity=1).reason_code == "short_sale"


def test_a_listing_in_another_currency_needs_a_permission(desk: OrderDesk) -> None:
    assert place(desk, conid=QQQ_MEXICO, quantity=1).reason_code == "permission"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"quantity": 0}, "invalid"),
        ({"quantity": float("nan")}, "invalid"),
        ({"side": "HOLD"}, "invalid"),
        ({"order_type": "GUESS"}, "invalid"),
        ({"order_type": "LMT"}, "invalid"),
        ({"order_type": "LMT", "limit_price": 100.005}, "tick"),
        ({"conid": 1}, "unknown_contract"),
        ({"account": "DU9"}, "unknown_account"),
    ],
)
def test_what_no_exchange_takes_leaves_no_order(
    engine: Exchange, desk: OrderDesk, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(Refused) as refusal:
        place(desk, **changes)
    assert refusal.value.code == code
    assert engine.orders == {}


def test_a_preview_shows_margin_and_commission_and_places_nothing(engine: Exchange, desk: OrderDesk) -> None:
    preview = desk.preview(account="DU1", conid=AAPL, side="BUY", quantity=100, order_type="MKT")
    assert preview["init_margin_change"] == pytest.approx(2_500, rel=0.01)
    assert preview["commission"] == 1.0
    assert engine.orders == {}


def test_a_changed_limit_can_trade_at_once(desk: OrderDesk) -> None:
    order = place(desk, order_type="LMT", limit_price=90.0)
    desk.activate(desk.modify(order.perm_id, limit_price=101.0))
    assert order.status == "Filled"


def test_what_has_ended_can_be_neither_changed_nor_cancelled(desk: OrderDesk) -> None:
    order = place(desk)
    for change in (lambda: desk.cancel(order.perm_id), lambda: desk.modify(order.perm_id, quantity=5)):
        with pytest.raises(Refused) as refusal:
            change()
        assert refusal.value.code == "not_working"


def test_a_day_order_ends_with_the_day_and_a_gtc_order_does_not(engine: Exchange, desk: OrderDesk) -> None:
    day = place(desk, order_type="LMT", limit_price=50.0)
    lasting = place(desk, order_type="LMT", limit_price=50.0, tif="GTC")
    engine.clock.set(engine.clock.now() + 86_400, frozen=True)
    desk.step()
    assert (day.status, lasting.status) == ("Cancelled", "Submitted")


def test_orders_wait_for_the_opening_bell_on_the_calendar(engine: Exchange, desk: OrderDesk) -> None:
    engine.hours.hours = "calendar"
    saturday = 1_795_276_800.0  # 2026-11-21 16:00 UTC
    engine.clock.set(saturday, frozen=True)
    order = place(desk, order_type="MKT")
    assert order.status == "PreSubmitted"
    monday_morning = engine.hours.next_open(saturday)
    engine.clock.set(monday_morning + 1, frozen=True)
    desk.step()
    assert order.status == "Filled"


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    first = Exchange(tmp_path)
    first.add_user("demo", "secret", cash=100_000.0, accounts=["DU1"])
    first.market.set_price(AAPL, 100.0)
    desk = OrderDesk(first)
    filled = place(desk)
    resting = place(desk, order_type="LMT", limit_price=90.0, tif="GTC", client={"order_id": 5})
    cash = first.account("DU1").cash
    first.close()

    second = Exchange(tmp_path)
    try:
        assert second.account("DU1").cash == cash
        assert second.account("DU1").position(AAPL).quantity == 100
        assert second.orders[filled.perm_id].status == "Filled"
        assert list(second.working) == [resting.perm_id]
        assert second.working[resting.perm_id].client == {"order_id": 5}
        assert [item.perm_id for item in second.executions] == [filled.perm_id]
        assert abs(second.market.quote(AAPL).bid - 100.0) < 1.0, "prices go on where they were"
        assert (
            OrderDesk(second)
            .place(account="DU1", conid=AAPL, side="BUY", quantity=1, order_type="MKT")
            .perm_id
            > resting.perm_id
        ), "a permanent id is never used twice"
    finally:
        second.close()
