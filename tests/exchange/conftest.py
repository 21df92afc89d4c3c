"""A running exchange on Unix sockets, and an engine without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from localcloud.exchange.admin import Admin
from localcloud.exchange.engine import Exchange
from localcloud.exchange.orderdesk import OrderDesk
from localcloud.exchange.server import ExchangeServer

AAPL = 265598


@dataclass
class Running:
    """A served exchange: where gateways link to, and its admin client."""

    address: str
    admin: Admin
    account: str
    server: ExchangeServer


@asynccontextmanager
async def serve(state: Path) -> AsyncIterator[Running]:
    """An exchange with the user `demo`, password `secret`, 100,000 USD, AAPL held at 100."""
    with TemporaryDirectory(prefix="exchange") as run:  # short: Unix socket paths end at 107 bytes
        socket, admin_socket = Path(run, "link"), Path(run, "admin")
        async with (
            ExchangeServer(state, socket, admin_socket, step_seconds=0.01) as server,
            Admin(str(admin_socket)) as admin,
        ):
            user = await admin.add_user("demo", "secret", cash=100_000.0)
            await admin.set_price("AAPL", 100.0)
            yield Running(f"unix:{socket}", admin, user["accounts"][0], server)


@pytest.fixture
async def exchange(tmp_path: Path) -> AsyncIterator[Running]:
    async with serve(tmp_path) as running:
        yield running


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Exchange]:
    """The engine alone, with user `demo` (100,000 USD on margin) and AAPL held at 100."""
    engine = Exchange(tmp_path / "engine", seed=7)
    engine.add_user("demo", "secret", cash=100_000.0, accounts=["DU1"])
    engine.add_user("saver", "secret", cash=10_000.0, kind="cash", accounts=["DU2"])
    engine.market.set_price(AAPL, 100.0)
    yield engine
    engine.close()


@pytest.fixture
def desk(engine: Exchange) -> OrderDesk:
    return OrderDesk(engine)
