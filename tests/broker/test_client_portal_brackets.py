"""Brackets and trailing stops over the Client Portal API: one request, whose children have no id of ours."""

# ruff: noqa: F811 - fixtures are imported by name
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.brokers.client_portal import ClientPortalBroker
from broker.brokers.client_portal.answers import Taken, order_answer
from broker.brokers.client_portal.entry import OrderEntry
from broker.errors import InvalidRequest, OrderOutcomeUnknown, OrderRejected
from broker.models import Order, OrderRequest, Status
from tests.broker.ordering import request, settled
from tests.broker.paper_gateway import eventually
from tests.broker.portal_fixtures import ibeam, make_portal_broker, portal  # noqa: F401
from tests.broker.portal_gateway import ACCOUNT, Portal

LEGS = {"take_profit_price": 220.0, "stop_loss_price": 180.0}


def bracket(**changes: Any) -> OrderRequest:
    return request(**({"time_in_force": "gtc", "client_order_id": "b", **LEGS} | changes))


def resting(**changes: Any) -> OrderRequest:
    return bracket(order_type="limit", limit_price=190.0, **changes)


def become(broker: ClientPortalBroker, entry: Order, *statuses: str) -> None:
    def shown() -> list[str]:
        return [broker.get_order(number).status for number in (entry.id, *entry.legs)]

    eventually(lambda: shown() == list(statuses), f"{statuses}, not {shown()}")


def test_three_orders_are_placed_in_one_request_and_one_leg_fills(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    entry = settled(ibeam, ibeam.place_order(bracket()), Status.FILLED)
    become(ibeam, entry, "filled", "submitted", "accepted")
    book = portal.book()
    assert [row["order_ref"] for row in book] == ["b", "", ""], "children have no id of their own at IBKR"
    shown = [ibeam.get_order(number) for number in (entry.id, *entry.legs)]
    assert [order.client_order_id for order in shown] == ["b", "b.tp", "b.sl"]
    assert [order.permanent_id for order in shown] == [str(row["perm_id"]) for row in book]
    portal.admin("set_price", symbol="AAPL", price=179.0)
    become(ibeam, entry, "filled", "cancelled", "filled")
    eventually(lambda: len(ibeam.get_fills()) == 2, "both fills are told")
    assert {fill.client_order_id for fill in ibeam.get_fills()} == {"b", "b.sl"}
    assert len(ibeam.get_orders_history()) == 3, "none of them is taken for another's order"


def test_the_entry_takes_its_legs_along_when_it_is_cancelled(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    entry = ibeam.place_order(resting())
    become(ibeam, entry, "submitted", "accepted", "accepted")
    ibeam.cancel_order(entry.id)
    become(ibeam, entry, "cancelled", "cancelled", "cancelled")


def test_a_leg_is_replaced(ibeam: ClientPortalBroker, portal: Portal) -> None:
    entry = ibeam.place_order(resting())
    _, loss = entry.legs
    assert ibeam.replace_order(loss, stop_price=185.0).stop_price == 185.0
    assert [row["stop_price"] for row in portal.book()][2] == 185.0
    with pytest.raises(InvalidRequest, match="a bracket's can't be changed"):
        ibeam.replace_order(entry.id, qty=3)


def test_a_refused_bracket_has_refused_legs(ibeam: ClientPortalBroker, portal: Portal) -> None:
    with pytest.raises(OrderRejected):
        ibeam.place_order(bracket(qty=1_000_000))
    become(ibeam, ibeam.get_order_by_client_id("b"), "rejected", "rejected", "rejected")


def test_a_lost_answer_is_settled_by_the_rows_that_name_their_parent(
    ibeam: ClientPortalBroker, portal: Portal
) -> None:
    portal.fault("lose_answers", 1)
    try:
        entry = ibeam.place_order(resting())
    except OrderOutcomeUnknown:
        entry = ibeam.get_order_by_client_id("b")
    portal.fault("lose_answers", 0)
    become(ibeam, entry, "submitted", "accepted", "accepted")
    assert len(portal.book()) == 3
    assert len(ibeam.get_orders_history()) == 3


def test_two_brackets_of_the_same_body_are_told_apart(ibeam: ClientPortalBroker, portal: Portal) -> None:
    first, second = (ibeam.place_order(resting(client_order_id=name)) for name in ("one", "two"))
    for entry in (first, second):
        become(ibeam, entry, "submitted", "accepted", "accepted")
    rows = {str(row["perm_id"]): row for row in portal.book()}
    for entry in (first, second):
        for number in entry.legs:
            assert str(rows[ibeam.get_order(number).permanent_id or ""]["parent"]) == entry.permanent_id


def test_closing_a_position_ends_its_bracket_first(ibeam: ClientPortalBroker, portal: Portal) -> None:
    entry = settled(ibeam, ibeam.place_order(bracket()), Status.FILLED)
    become(ibeam, entry, "filled", "submitted", "accepted")
    settled(ibeam, ibeam.close_position("AAPL"), Status.FILLED)
    become(ibeam, entry, "filled", "cancelled", "cancelled")
    assert portal.admin("account", account=ACCOUNT)["positions"] == []


def test_what_ibkr_takes_only_in_part_is_told() -> None:
    rows = [{"order_id": "1", "order_status": "PreSubmitted"}, {"error": "no"}, {"order_id": "3"}]
    assert order_answer(rows) == Taken("1", "PreSubmitted", ("1", "3"), "no")


@pytest.mark.parametrize("kind", ["limit", "market"])
def test_an_entry_without_its_legs_is_cancelled_and_told(
    ibeam: ClientPortalBroker, portal: Portal, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    converse = OrderEntry._converse

    def only_the_entry(self: OrderEntry, path: str, body: Any) -> Taken:
        return replace(converse(self, path, {"orders": body["orders"][:1]}), refused="no room")

    monkeypatch.setattr(OrderEntry, "_converse", only_the_entry)
    if kind == "limit":
        with pytest.raises(OrderRejected, match="didn't take all of the bracket: no room"):
            ibeam.place_order(resting())
        become(ibeam, ibeam.get_order_by_client_id("b"), "cancelled", "cancelled", "cancelled")
    else:
        entry = ibeam.place_order(bracket())
        assert any("no room" in warning for warning in entry.warnings)
        become(ibeam, entry, "filled", "unknown", "unknown")
    assert {row["status"] for row in portal.book()} == {"Cancelled" if kind == "limit" else "Filled"}


@pytest.mark.parametrize("trail", [{"trail_amount": 5.0}, {"trail_percent": 2.5}], ids=str)
def test_a_trailing_stop_follows_the_price(
    ibeam: ClientPortalBroker, portal: Portal, trail: dict[str, float]
) -> None:
    settled(ibeam, ibeam.place_order(request()), Status.FILLED)
    order = ibeam.place_order(
        request(side="sell", order_type="trailing_stop", time_in_force="gtc", client_order_id="t", **trail)
    )
    assert [row[name] for row in portal.book()[1:] for name in trail] == list(trail.values())
    portal.admin("set_price", symbol="AAPL", price=240.0)
    eventually(lambda: portal.book()[1]["stop_price"] > 230, "the stop moves up")
    assert ibeam.replace_order(order.id, qty=3).qty == 3
    portal.admin("set_price", symbol="AAPL", price=228.0)
    filled = settled(ibeam, order, Status.FILLED)
    assert (filled.filled_qty, filled.order_type) == (3, "trailing_stop")
