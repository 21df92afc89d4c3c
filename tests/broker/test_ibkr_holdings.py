"""Positions are converted once, and read anew as soon as TWS tells of a change."""

from __future__ import annotations

import pytest

from broker.brokers.ibkr import IBKRBroker, holdings
from tests.broker.ordering import settled
from tests.broker.paper_gateway import Paper, eventually


def test_what_has_not_changed_is_read_without_asking_the_loop(
    broker: IBKRBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(broker, broker.place_market_order("AAPL", 5, "buy"), "filled")
    eventually(lambda: [p.qty for p in broker.get_positions()] == [5], "the position is here")
    broker.get_positions()[0].qty = 99  # a caller's copy
    monkeypatch.setattr(holdings, "position_of", None)
    [kept] = broker.get_positions()
    assert (kept.symbol, kept.qty) == ("AAPL", 5)
    assert broker.get_positions()[0] is not kept


def test_a_fill_a_price_and_a_close_are_seen(broker: IBKRBroker, paper: Paper) -> None:
    settled(broker, broker.place_market_order("AAPL", 5, "buy"), "filled")
    eventually(lambda: [p.qty for p in broker.get_positions()] == [5], "the position is here")
    settled(broker, broker.place_market_order("AAPL", 2, "buy"), "filled")
    eventually(lambda: [p.qty for p in broker.get_positions()] == [7], "it has grown")
    settled(broker, broker.close_position("AAPL"), "filled")
    eventually(lambda: broker.get_positions() == [], "it is closed")


def test_a_lost_connection_reads_nothing_from_what_was_kept(broker: IBKRBroker, paper: Paper) -> None:
    from broker.errors import NotConnected

    settled(broker, broker.place_market_order("AAPL", 5, "buy"), "filled")
    eventually(lambda: [p.qty for p in broker.get_positions()] == [5], "the position is here")
    paper.processes[-1].kill()

    def refused() -> bool:
        try:
            broker.get_positions()
        except NotConnected:
            return True
        return False

    eventually(refused, "positions of a dead connection aren't told")
