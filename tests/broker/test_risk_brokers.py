"""The guard as settings make it, over the real protocols: an IB Gateway's and Alpaca's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from broker.base import BaseBroker
from broker.brokers.ibkr import IBKRBroker
from broker.errors import Halted, LimitExceeded, PaperLiveMismatch
from broker.factory import BrokerSettings, build_broker
from broker.journal import Journal
from broker.risk.limits import PAPER
from broker.risk.switch import KillSwitch
from broker.risk.wiring import guard_for
from tests.broker.ordering import request, settled
from tests.broker.paper_alpaca import paper_alpaca
from tests.broker.paper_gateway import Paper

LIMITS = replace(PAPER, max_long_qty=10, max_short_qty=0)


def ibkr(paper: Paper, **changes: object) -> BrokerSettings:
    base = BrokerSettings("ibkr", gateway_port=paper.port, trading_mode="paper", limits=LIMITS)
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture(params=["ibkr", "alpaca"])
def guarded(request: pytest.FixtureRequest, journal: Journal) -> Iterator[BaseBroker]:
    """A connected broker that holds 10 AAPL at most."""
    if request.param == "ibkr":
        made = build_broker(ibkr(request.getfixturevalue("paper")), journal)
        made.connect()
        yield made
        made.disconnect()
        return
    with paper_alpaca() as found:
        guard = guard_for(BrokerSettings("alpaca", alpaca_endpoint=found.url, limits=LIMITS), journal)
        made = found.broker(journal, guard=guard)
        guard.attach(made)
        made.connect()
        yield made
        made.disconnect()


def test_limits_and_switch_hold_over_the_wire(guarded: BaseBroker, journal: Journal) -> None:
    settled(guarded, guarded.place_order(request(qty=6)), "filled")
    with pytest.raises(LimitExceeded, match="max_long_qty allows 10"):
        guarded.place_order(request(qty=5))
    resting = guarded.place_order(request(qty=4, order_type="limit", limit_price=50.0))
    with pytest.raises(LimitExceeded, match="max_long_qty"):
        guarded.replace_order(resting.id, qty=5)
    with pytest.raises(LimitExceeded, match="max_short_qty"):
        guarded.place_order(request(qty=7, side="sell"))
    switch = KillSwitch(journal.engine, environment={})
    switch.halt("ada", "odd fills")
    for work in (
        lambda: guarded.place_order(request(qty=1)),
        lambda: guarded.close_position("AAPL"),
        lambda: guarded.replace_order(resting.id, limit_price=51.0),
    ):
        with pytest.raises(Halted):
            work()
    assert guarded.cancel_order(resting.id)
    switch.resume("ada", "looked at it")
    settled(guarded, guarded.close_position("AAPL"), "filled")


def test_a_login_to_the_other_kind_of_account_trades_nothing(paper: Paper, journal: Journal) -> None:
    # The session itself isn't told the mode here, and connects: the guard is the second catch.
    guard = guard_for(ibkr(paper, trading_mode="live"), journal)
    broker = IBKRBroker(journal, port=paper.port, guard=guard)
    guard.attach(broker)
    broker.connect()
    try:
        with pytest.raises(PaperLiveMismatch, match="declared mode disagrees with account"):
            broker.place_order(request())
        assert broker.get_orders_history() == []
    finally:
        broker.disconnect()
