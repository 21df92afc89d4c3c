"""A broker on a paper gateway.

The broker under test speaks the real TWS protocol to them. What went wrong is decided by the
exchange's own book, never by our client's view of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.brokers.ibkr import IBKRBroker
from broker.errors import NotConnected
from broker.journal import Journal
from tests.broker.paper_gateway import Paper, eventually, paper_gateway


@pytest.fixture
def paper() -> Iterator[Paper]:
    """An exchange and a logged-in gateway."""
    with paper_gateway() as made:
        yield made


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal in a file."""
    return Journal.in_file(str(tmp_path / "orders.sqlite"))


@pytest.fixture
def make_broker(paper: Paper, journal: Journal) -> Iterator[Callable[..., IBKRBroker]]:
    """Makes brokers on the paper gateway, and disconnects them."""
    made: list[IBKRBroker] = []

    def make(**options: Any) -> IBKRBroker:
        defaults: dict[str, Any] = {
            "port": paper.port,
            "trading_mode": "paper",
            "timeout": 3.0,
            "heartbeat": 0.5,
        }
        made.append(IBKRBroker(options.pop("journal", journal), **(defaults | options)))
        return made[-1]

    yield make
    for broker in made:
        broker.disconnect()


@pytest.fixture
def broker(make_broker: Callable[..., IBKRBroker]) -> IBKRBroker:
    """A connected broker."""
    found = make_broker()
    try:
        found.connect()
    except NotConnected:  # a busy machine's gateway takes longer than an attempt
        eventually(lambda: found.health().ok, "the gateway answers")
    return found
