"""GET quotes gives the prices of the source that the service is configured with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yfinance

from broker.market import yahoo as yahoo_quotes
from tests.market.yahoo_stand_in import Yahoo, serve

BASE = "/api/v1/connections/default/quotes"


@pytest.fixture
def yahoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yahoo]:
    """A server in Yahoo's place, to which the service's source is led."""
    yfinance.set_tz_cache_location(str(tmp_path))
    found = Yahoo()
    found.open_.set()
    server = serve(found)
    real = yahoo_quotes.YahooQuotes
    monkeypatch.setattr(yahoo_quotes, "YahooQuotes", lambda: real(endpoint=found.url))
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def environment(environment: dict[str, str], request: pytest.FixtureRequest) -> dict[str, str]:
    """The service's environment with the test's source."""
    return environment | {"MARKET_DATA_SOURCE": request.param}


@pytest.mark.parametrize("environment", ["ibkr"], indirect=True)
async def test_the_brokers_own_prices(trader: httpx.AsyncClient) -> None:
    answer = await trader.get(f"{BASE}/aapl")
    assert (answer.status_code, answer.json()["source"]) == (200, "simulated")


@pytest.mark.parametrize("environment", ["yfinance"], indirect=True)
async def test_another_source_than_the_broker(yahoo: Yahoo, trader: httpx.AsyncClient) -> None:
    for _ in range(3):
        quote = (await trader.get(f"{BASE}/AAPL")).json()
        assert (quote["source"], quote["kind"], quote["last"]) == ("yfinance", "delayed", 229.87)
    assert yahoo.charts() == ["AAPL"], "the service's callers share what was just asked"


@pytest.mark.parametrize("environment", ["yfinance"], indirect=True)
async def test_an_unknown_symbol_is_the_callers_mistake(
    yahoo: Yahoo, client_for: Callable[..., httpx.AsyncClient]
) -> None:
    async with client_for("user") as reader:
        answer = await reader.get(f"{BASE}/NOSUCHX")
    assert (answer.status_code, answer.json()["type"].endswith("unknown-symbol")) == (404, True)
