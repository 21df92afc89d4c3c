"""A bracket is one unit in the journal: three orders that are recorded, sent and given up together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.brokers.simulated import SimulatedBroker
from broker.errors import (
    BrokerFailure,
    DuplicateClientOrderId,
    InvalidRequest,
    NotConnected,
    OrderOutcomeUnknown,
    OrderRejected,
)
from broker.journal import Journal
from broker.models import Order, OrderReport, OrderRequest, Status
from broker.placement import NothingKnown, legs_of, place
from broker.validation import check_order
from tests.broker.ordering import unsent

BRACKET = OrderRequest(
    "AAPL", "buy", 5, "limit", 95.0, "gtc", "b", take_profit_price=110.0, stop_loss_price=90.0
)


@pytest.fixture
def journal() -> Journal:
    return Journal.in_file(":memory:")


def statuses(journal: Journal) -> dict[str, str]:
    return {order.client_order_id: order.status for order in journal.recent("A1", 10)}


def placed(journal: Journal, send: Any, request: OrderRequest = BRACKET) -> Order:
    return place(
        request,
        capabilities=SimulatedBroker.capabilities,
        journal=journal,
        account=lambda: "A1",
        prepare=lambda asked: asked.symbol,
        send=send,
        settle=lambda order: order,
        note=lambda order, report: journal.update(order.id, report),
    )


def test_all_three_orders_are_sent_in_the_journal_before_anything_leaves(journal: Journal) -> None:
    seen: list[dict[str, str]] = []

    def send(order: Order, _symbol: str) -> OrderReport:
        seen.append(statuses(journal))
        return OrderReport(Status.SUBMITTED, permanent_id="1")

    entry = placed(journal, send)
    assert seen == [{"b": "sent", "b.tp": "sent", "b.sl": "sent"}]
    gain, loss = journal.legs_of(entry)
    assert (gain.side, gain.order_type, gain.limit_price, gain.qty) == ("sell", "limit", 110.0, 5)
    assert (loss.side, loss.order_type, loss.stop_price, loss.time_in_force) == ("sell", "stop", 90.0, "gtc")
    assert {gain.parent_id, loss.parent_id} == {entry.id}
    assert placed(journal, send).id == entry.id, "repeated, it is the same bracket"
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("failure", "raised", "left"),
    [
        (NotConnected("nothing left"), NotConnected, "recorded"),
        (NothingKnown("no answer"), OrderOutcomeUnknown, "unknown"),
        (OrderRejected("no"), OrderRejected, "rejected"),
        (BrokerFailure("nothing left"), BrokerFailure, "recorded"),
    ],
    ids=str,
)
def test_the_legs_share_what_becomes_of_their_entry(
    journal: Journal, failure: Exception, raised: type[Exception], left: str
) -> None:
    def send(_order: Order, _symbol: str) -> OrderReport:
        raise failure

    with pytest.raises(raised):
        placed(journal, send)
    assert statuses(journal) == dict.fromkeys(("b", "b.tp", "b.sl"), left)


def test_legs_that_the_broker_has_shown_end_by_its_word_only(journal: Journal) -> None:
    entry = placed(journal, lambda _order, _symbol: OrderReport(Status.SUBMITTED, permanent_id="1"))
    gain, _ = journal.legs_of(entry)
    journal.update(gain.id, OrderReport(Status.ACCEPTED, permanent_id="2"))
    journal.update(entry.id, OrderReport(Status.CANCELLED))
    assert statuses(journal) == {"b": "cancelled", "b.tp": "accepted", "b.sl": "cancelled"}


def test_legs_of_an_entry_that_filled_in_part_are_not_given_up(journal: Journal) -> None:
    entry = placed(journal, lambda _order, _symbol: OrderReport(Status.SUBMITTED, permanent_id="1"))
    journal.update(entry.id, OrderReport(Status.CANCELLED, filled_qty=2.0, filled_price=95.0))
    assert statuses(journal) == {"b": "cancelled", "b.tp": "sent", "b.sl": "sent"}


def test_a_legs_id_that_is_taken_leaves_nothing_behind(journal: Journal) -> None:
    taken = replace(legs_of(BRACKET)[1], qty=1.0)
    unsent(journal, "A1", taken)
    with pytest.raises(DuplicateClientOrderId) as refused:
        placed(journal, None)
    assert refused.value.existing.client_order_id == "b.sl"
    assert statuses(journal) == {"b.sl": "recorded"}


def test_a_leg_is_never_sent_by_itself(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.placement.SAME_ORDER_WAIT", 0.1)
    entry = unsent(journal, "A1", BRACKET, legs=legs_of(BRACKET))
    gain = placed(journal, None, legs_of(BRACKET)[0])
    assert (gain.id, gain.status) == (entry.legs[0], "recorded")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"time_in_force": "ioc"}, "time_in_force"),
        ({"extended_hours": True}, "extended_hours"),
        ({"qty": 0.5}, "qty"),
        ({"qty": 0, "notional": 100.0, "order_type": "market", "limit_price": None}, "notional"),
        ({"client_order_id": "x" * 62}, "client_order_id"),
        ({"order_type": "stop", "limit_price": None, "stop_price": 95.0}, "stop_loss_price"),
    ],
    ids=str,
)
def test_what_no_broker_takes_of_a_bracket_is_refused(changes: dict[str, Any], field: str) -> None:
    able = replace(SimulatedBroker.capabilities, extended_hours=True)
    with pytest.raises(InvalidRequest) as refused:
        check_order(replace(BRACKET, **changes), able)
    assert field in [problem.field for problem in refused.value.problems]
