"""Brackets over TWS: three messages, of which TWS transmits none before it has the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.brokers.ibkr import IBKRBroker, desk
from broker.errors import InvalidRequest, OrderOutcomeUnknown, OrderRejected
from broker.journal import Journal
from broker.models import Order, OrderRequest, Status
from tests.broker.ordering import request, settled
from tests.broker.paper_gateway import Paper, eventually

LEGS = {"take_profit_price": 220.0, "stop_loss_price": 180.0}


def bracket(**changes: Any) -> OrderRequest:
    return request(**({"time_in_force": "gtc", "client_order_id": "b", **LEGS} | changes))


def resting(**changes: Any) -> OrderRequest:
    return bracket(order_type="limit", limit_price=190.0, **changes)


def shown(broker: IBKRBroker, entry: Order) -> list[str]:
    return [broker.get_order(number).status for number in (entry.id, *entry.legs)]


def become(broker: IBKRBroker, entry: Order, *statuses: str) -> None:
    eventually(lambda: shown(broker, entry) == list(statuses), f"{statuses}, not {shown(broker, entry)}")


def test_three_orders_are_placed_and_one_leg_fills(broker: IBKRBroker, paper: Paper) -> None:
    entry = settled(broker, broker.place_order(bracket()), "filled")
    become(broker, entry, "filled", "submitted", "accepted")
    assert [row["order_ref"] for row in paper.book()] == ["b", "b.tp", "b.sl"]
    paper.admin("set_price", symbol="AAPL", price=221.0)
    become(broker, entry, "filled", "filled", "cancelled")
    eventually(lambda: broker.get_positions() == [], "the position is closed")
    told = {fill.client_order_id: fill.side for fill in broker.get_fills()}
    assert told == {"b": "buy", "b.tp": "sell"}


def test_the_entry_takes_its_legs_along_when_it_is_cancelled(broker: IBKRBroker, paper: Paper) -> None:
    entry = broker.place_order(resting())
    become(broker, entry, "submitted", "accepted", "accepted")
    broker.cancel_order(entry.id)
    become(broker, entry, "cancelled", "cancelled", "cancelled")
    assert {row["status"] for row in paper.book()} == {"Cancelled"}


def test_a_leg_is_replaced_before_and_after_its_entry_fills(broker: IBKRBroker, paper: Paper) -> None:
    entry = broker.place_order(resting())
    gain, loss = entry.legs
    become(broker, entry, "submitted", "accepted", "accepted")
    assert broker.replace_order(gain, limit_price=215.0).limit_price == 215.0
    with pytest.raises(InvalidRequest, match="a bracket's can't be changed"):
        broker.replace_order(loss, qty=3)
    paper.admin("set_price", symbol="AAPL", price=189.0)
    become(broker, entry, "filled", "submitted", "accepted")
    assert broker.replace_order(loss, stop_price=185.0).stop_price == 185.0
    paper.admin("set_price", symbol="AAPL", price=184.0)
    become(broker, entry, "filled", "cancelled", "filled")


def test_a_refused_bracket_has_refused_legs(broker: IBKRBroker, paper: Paper) -> None:
    with pytest.raises(OrderRejected):
        broker.place_order(bracket(qty=100_000))
    entry = broker.get_order_by_client_id("b")
    become(broker, entry, "rejected", "rejected", "rejected")
    assert not [row for row in paper.book() if row["status"] in ("PreSubmitted", "Submitted")]


@pytest.mark.parametrize(("entry", "ends"), [("limit", "cancelled"), ("market", "filled")])
def test_an_entry_whose_leg_is_refused_is_cancelled_and_told(
    broker: IBKRBroker, paper: Paper, monkeypatch: pytest.MonkeyPatch, entry: str, ends: str
) -> None:
    """TWS transmits the rest of a bracket when one child is refused and the last one isn't."""
    translated = desk.tws_order

    def off_the_tick(order: Order) -> Any:
        made = translated(order)
        if order.parent_id and order.order_type == "limit":
            made.lmtPrice = 220.0001
        return made

    monkeypatch.setattr(desk, "tws_order", off_the_tick)
    if ends == "cancelled":
        with pytest.raises(OrderRejected, match="its limit leg was refused"):
            broker.place_order(resting())
        order = broker.get_order_by_client_id("b")
        become(broker, order, "cancelled", "rejected", "cancelled")
        assert "its limit leg was refused" in (order.reason or "")
    else:
        order = broker.place_order(bracket())
        assert any("its limit leg was refused" in warning for warning in order.warnings)
        become(broker, order, "filled", "rejected", "accepted")
    assert len(paper.book()) == 2


@pytest.mark.parametrize("messages", [0, 1, 2, 3])
def test_a_connection_that_dies_among_the_three_messages_leaves_all_or_nothing(
    make_broker: Callable[..., IBKRBroker],
    journal: Journal,
    paper: Paper,
    monkeypatch: pytest.MonkeyPatch,
    messages: int,
) -> None:
    """What TWS has of a bracket without its last message is never transmitted, and never shown again."""
    broker = make_broker()
    broker.connect()
    client = type(broker._session().ib.client)
    send, sent = client.placeOrder, []

    def dying(self: Any, number: int, contract: Any, order: Any) -> None:
        if len(sent) < messages:
            send(self, number, contract, order)
        sent.append(number)
        if len(sent) == 3:
            self.conn.transport.abort() if messages == 0 else self.conn.transport.close()

    monkeypatch.setattr(client, "placeOrder", dying)
    whole = messages == 3
    try:
        broker.place_order(resting())
    except OrderOutcomeUnknown:
        pass
    monkeypatch.undo()
    eventually(lambda: broker.health().ok, "it connects again")
    entry = broker.get_order_by_client_id("b")
    if whole:
        become(broker, entry, "submitted", "accepted", "accepted")
    else:
        become(broker, entry, "unknown", "unknown", "unknown")
    assert len(paper.book()) == (3 if whole else 0)
    assert broker.place_order(resting()).id == entry.id if whole else True
    assert len(paper.book()) == (3 if whole else 0), "nothing is sent twice"


def test_the_three_are_found_again_by_another_process(
    make_broker: Callable[..., IBKRBroker], journal: Journal, paper: Paper
) -> None:
    first = make_broker()
    first.connect()
    entry = first.place_order(bracket())
    become(first, entry, "filled", "submitted", "accepted")
    first.disconnect()
    paper.admin("set_price", symbol="AAPL", price=179.0)
    second = make_broker()
    second.connect()
    become(second, entry, "filled", "cancelled", "filled")
    assert sum(fill.qty for fill in second.get_fills()) == 10


def test_closing_a_position_ends_its_bracket_first(broker: IBKRBroker, paper: Paper) -> None:
    entry = settled(broker, broker.place_order(bracket()), "filled")
    become(broker, entry, "filled", "submitted", "accepted")
    with pytest.raises(InvalidRequest, match="the legs of a bracket close 5 of 5"):
        broker.close_position("AAPL", qty=2)
    settled(broker, broker.close_position("AAPL", client_order_id="c"), "filled")
    become(broker, entry, "filled", "cancelled", "cancelled")
    assert broker.close_position("AAPL", client_order_id="c").status == Status.FILLED
    assert paper.admin("account", account=paper.account)["positions"] == []


def test_a_bracket_is_previewed_by_its_entry(broker: IBKRBroker, paper: Paper) -> None:
    found = broker.preview_order(bracket())
    assert (found.side, found.qty) == ("buy", 5)
    assert paper.book() == []
