"""One broker for callers of every kind at once: in process, and over the TWS protocol to a paper gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.base import BaseBroker
from broker.brokers.ibkr import IBKRBroker
from broker.brokers.simulated import SimulatedBroker
from broker.journal import Journal
from tests.broker.paper_gateway import paper_gateway


@pytest.fixture(scope="module", params=["simulated", "ibkr"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseBroker]:
    """A connected broker with a journal in a file; AAPL is somewhere near 200."""
    folder: Path = tmp_path_factory.mktemp("journal")
    journal = Journal.in_file(str(folder / "orders.sqlite"))
    if request.param == "simulated":
        simulated = SimulatedBroker(journal)
        simulated.connect()
        yield simulated
        simulated.disconnect()
        return
    with paper_gateway() as paper:
        ibkr = IBKRBroker(journal, port=paper.port, client_id=1, trading_mode="paper")
        ibkr.connect()
        yield ibkr
        ibkr.disconnect()
