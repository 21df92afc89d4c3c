"""Brokers for callers of every kind at once: in process, and over the real protocols to paper front ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.base import BaseBroker
from broker.brokers.ibkr import library
from broker.journal import Journal
from soak.brokers import BUILD
from soak.in_process import venue_for

#: over ib_async, in the environment that has it, only what goes through it
KINDS = ["ibkr"] if library.NAME == "ib_async" else sorted(BUILD)


@pytest.fixture(scope="module", params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseBroker]:
    """A connected broker with a journal in a file; AAPL is somewhere near 200."""
    folder: Path = tmp_path_factory.mktemp("journal")
    journal = Journal.in_file(str(folder / "orders.sqlite"))
    with venue_for(request.param) as venue:
        made = BUILD[request.param](venue, journal, venue.port)
        venue.attach(made)
        made.connect()
        yield made
        made.disconnect()
