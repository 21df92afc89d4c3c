"""1100, 1102 and 2110 at their worst moments: faults that `make soak` found, each with a test of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from broker.brokers.ibkr import IBKRBroker
from broker.brokers.ibkr.session import Session
from broker.errors import NotConnected
from tests.broker.ordering import settled
from tests.broker.paper_gateway import Paper, eventually


def never_ok(broker: IBKRBroker, seconds: float) -> None:
    """Fails if the broker takes its link for good within so many seconds, some of its heartbeats."""
    pause, until = threading.Event(), time.monotonic() + seconds
    while time.monotonic() < until:
        health = broker.health()
        assert not health.ok, health
        assert health.state == "link_lost", health
        pause.wait(0.02)


def test_2110_while_connecting_is_no_connection_and_what_follows_it_no_proof(
    make_broker: Callable[..., IBKRBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that has just lost its link answers the rest of the synchronisation from memory."""
    synchronise: Callable[[Session], Any] = Session._synchronise

    async def cut_off(session: Session) -> None:
        session.on_code(-1, 2110, "Connectivity between Trader Workstation and server is broken.", False)
        await synchronise(session)

    monkeypatch.setattr(Session, "_synchronise", cut_off)
    broker = make_broker(heartbeat=1.0)
    with pytest.raises(NotConnected, match="2110"):
        broker.connect()
    session = broker._running().session
    assert session is not None
    assert session.proved_at is None
    with pytest.raises(NotConnected):
        broker.place_market_order("AAPL", 1, "buy")
    eventually(lambda: broker.health().ok, "a heartbeat proves the link by a new question")
    assert broker._running().session is session


def test_a_proof_from_before_1100_proves_nothing(
    paper: Paper, make_broker: Callable[..., IBKRBroker]
) -> None:
    broker = make_broker(heartbeat=0.1)
    broker.connect()
    assert broker.health().ok
    paper.fault("link_down", True)
    eventually(lambda: broker.health().state == "link_lost", "1100 is noticed")
    never_ok(broker, 1.5)


def test_positions_are_asked_for_again_after_1102(broker: IBKRBroker, paper: Paper) -> None:
    """What moved while the link was down is told by nobody, though the subscriptions were kept."""
    resting = broker.place_limit_order("AAPL", 5, "buy", 150.0, time_in_force="gtc")
    sold = settled(broker, broker.place_market_order("AAPL", 2, "buy"), "filled")
    eventually(lambda: broker.get_position("AAPL"), "the first position is told")
    paper.fault("link_down", True)
    eventually(lambda: broker.health().state == "link_lost", "1100 is noticed")
    paper.admin("set_price", symbol="AAPL", price=140.0)
    eventually(lambda: [o for o in paper.book() if o["filled"] == 5], "it fills at the exchange")
    paper.fault("link_down", False)
    eventually(lambda: broker.health().ok, "1102 is noticed")
    held = broker.get_position("AAPL")
    assert held is not None
    assert held.qty == 5 + sold.filled_qty
    assert broker.get_order(resting.id).filled_qty == 5


def test_an_error_that_nobody_expected_after_1102_ends_the_connection_and_not_its_recovery(
    broker: IBKRBroker, paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[bool] = []
    refresh: Callable[[Session], Any] = Session.refresh_positions

    async def fail_once(session: Session) -> None:
        if not raised:
            raised.append(True)
            raise KeyError("unexpected")
        await refresh(session)

    monkeypatch.setattr(Session, "refresh_positions", fail_once)
    paper.fault("link_down", True)
    eventually(lambda: broker.health().state == "link_lost", "1100 is noticed")
    paper.fault("link_down", False)
    eventually(lambda: broker.health().ok, "it is back all the same")
    assert raised
