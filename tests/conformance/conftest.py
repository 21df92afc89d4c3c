"""Brokers for the cases: each on a paper exchange of its own, or the one that the environment names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.base import BaseBroker
from broker.brokers.ibkr import library
from broker.factory import build_broker, settings_from_environment
from broker.journal import Journal
from soak.brokers import BUILD
from soak.in_process import venue_for
from soak.venue import PRICE, Venue
from tests.conformance.desk import Book, Desk, book_of

REAL = os.environ.get("CONFORMANCE_BROKER", "")
#: over ib_async, in the environment that has it in ib_insync's place, only what goes through it
KINDS = ["ibkr"] if library.NAME == "ib_async" else sorted(BUILD)
_HERE = Path(__file__).parent
_left_out: list[str] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every case for every broker."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", [REAL] if REAL else KINDS, scope="function")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A real account has no book to look into."""
    if not REAL:
        return
    needing = [i for i in items if i.path.parent == _HERE and "book" in getattr(i, "fixturenames", ())]
    _left_out.extend(item.name for item in needing)
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what a run against a real account didn't show."""
    for name in _left_out:
        terminalreporter.write_line(f"left out, needs the exchange's own book: {name}")


@pytest.fixture
def venue(kind: str) -> Iterator[Venue | None]:
    """An exchange and the front end that the broker talks to."""
    if REAL:
        yield None
        return
    with venue_for(kind) as opened:
        yield opened


@pytest.fixture
def broker(kind: str, venue: Venue | None, tmp_path: Path) -> Iterator[BaseBroker]:
    """A connected broker with a journal of its own."""
    journal = Journal.in_file(str(tmp_path / "orders.sqlite"))
    made = BUILD[kind](venue, journal, venue.port) if venue else _real(journal)
    if venue:
        venue.attach(made)
    made.connect()
    yield made
    made.disconnect()


def _real(journal: Journal) -> BaseBroker:
    settings = settings_from_environment({**os.environ, "BROKER_TYPE": REAL})
    live = settings.trading_mode == "live" if REAL != "alpaca" else not settings.alpaca_paper
    if live:
        pytest.exit("the conformance suite places orders: it is for paper accounts", 2)
    return build_broker(settings, journal)


@pytest.fixture
def book(broker: BaseBroker, venue: Venue) -> Book:
    """The exchange's own book."""
    return book_of(broker, venue)


@pytest.fixture
def desk(broker: BaseBroker, venue: Venue | None) -> Iterator[Desk]:
    """The broker at work; at a real account, what rests is cancelled at the end."""
    symbol = os.environ.get("CONFORMANCE_SYMBOL", "AAPL") if REAL else "AAPL"
    price = PRICE
    if venue is None and broker.capabilities.quotes:
        quote = broker.get_quote(symbol)
        price = quote.last or quote.bid or quote.close or PRICE
    yield Desk(broker, symbol, round(price * 0.8, 2))
    if venue is None:
        broker.cancel_all_orders()
