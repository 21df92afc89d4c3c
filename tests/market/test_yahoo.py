"""Quotes through the real yfinance, against a server that stands in for Yahoo's hosts.

What only Yahoo itself could show (today's cookies, blocks, prices) isn't shown here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yfinance

from broker.errors import InvalidRequest, MarketDataUnavailable, RateLimited, UnknownSymbol
from broker.market.yahoo import LARGEST_NUMBER_OF_REQUESTS, YahooQuotes
from tests.market.yahoo_stand_in import Yahoo, chart, serve


@pytest.fixture
def yahoo(tmp_path: Path) -> Iterator[Yahoo]:
    """A server in Yahoo's place; yfinance's cookie cache in a folder of the test."""
    yfinance.set_tz_cache_location(str(tmp_path))
    found = Yahoo()
    found.open_.set()
    server = serve(found)
    yield found
    found.open_.set()
    server.shutdown()
    server.server_close()


def test_a_quote_has_yahoos_price_time_and_kind(yahoo: Yahoo) -> None:
    quote = YahooQuotes(endpoint=yahoo.url).quote("aapl")
    assert (quote.symbol, quote.last, quote.close, quote.source) == ("AAPL", 229.87, 228.52, "yfinance")
    assert (quote.bid, quote.ask) == (None, None), "Yahoo's chart has no book, and 0 would be a price"
    assert quote.kind == "delayed"
    assert quote.time == "2024-11-22T21:00:01+00:00", "the trade's time, not the answer's: its age must show"
    assert quote.age_seconds > 86_400


def test_a_class_share_is_asked_as_yahoo_writes_it(yahoo: Yahoo) -> None:
    assert YahooQuotes(endpoint=yahoo.url).quote("BRK.B").symbol == "BRK.B"
    assert yahoo.charts() == ["BRK-B"]


def test_one_quote_is_one_request_for_prices(yahoo: Yahoo) -> None:
    source = YahooQuotes(endpoint=yahoo.url)
    source.quote("AAPL")
    source.quote("AAPL")
    assert yahoo.charts() == ["AAPL", "AAPL"]
    assert sum(path.endswith("getcrumb") for path in yahoo.asked) == 1, "the crumb is kept"


def test_a_symbol_that_yahoo_does_not_know_is_unknown(yahoo: Yahoo) -> None:
    with pytest.raises(UnknownSymbol) as failure:
        YahooQuotes(endpoint=yahoo.url).quote("NOSUCHX")
    assert failure.value.symbol == "NOSUCHX"
    assert yahoo.charts() == ["NOSUCHX"]


def test_a_symbol_of_wrong_form_never_reaches_yahoo(yahoo: Yahoo) -> None:
    with pytest.raises(InvalidRequest):
        YahooQuotes(endpoint=yahoo.url).quote("../v1")
    assert yahoo.asked == []


def test_too_many_requests_is_rate_limited_with_a_time_to_come_back(yahoo: Yahoo) -> None:
    yahoo.status = 429
    with pytest.raises(RateLimited) as failure:
        YahooQuotes(endpoint=yahoo.url).quote("AAPL")
    assert failure.value.retry_after >= 30
    assert yahoo.charts() == ["AAPL"], "asking again at once, as the library would, prolongs the refusal"


@pytest.mark.parametrize("status", [403, 500, 503])
def test_an_error_page_is_no_price_and_no_storm_of_requests(yahoo: Yahoo, status: int) -> None:
    yahoo.status = status
    with pytest.raises(MarketDataUnavailable):
        YahooQuotes(endpoint=yahoo.url).quote("AAPL")
    assert len(yahoo.asked) <= LARGEST_NUMBER_OF_REQUESTS


@pytest.mark.parametrize(
    "changes",
    [
        {"regularMarketPrice": None},
        {"regularMarketPrice": 0},
        {"regularMarketPrice": "229.87"},
        {"regularMarketPrice": float("nan")},
        {"regularMarketTime": None},
        {"regularMarketTime": 10**30},
    ],
)
def test_an_answer_without_a_price_or_its_time_is_no_quote(yahoo: Yahoo, changes: dict[str, object]) -> None:
    yahoo.symbols["AAPL"] = chart("AAPL", **changes)
    with pytest.raises(MarketDataUnavailable):
        YahooQuotes(endpoint=yahoo.url).quote("AAPL")


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"{}", b'{"chart": {"result": []}}', b'{"chart": []}', b"\xff"]
)
def test_an_answer_of_another_shape_is_no_quote(yahoo: Yahoo, body: bytes) -> None:
    yahoo.symbols["AAPL"] = body
    with pytest.raises(MarketDataUnavailable):
        YahooQuotes(endpoint=yahoo.url).quote("AAPL")


def test_a_server_that_never_answers_costs_the_deadline_and_not_the_librarys_thirty_seconds(
    yahoo: Yahoo,
) -> None:
    yahoo.open_.clear()
    with pytest.raises(MarketDataUnavailable):
        YahooQuotes(endpoint=yahoo.url, deadline=0.3).quote("AAPL")
    assert yahoo.charts() == ["AAPL"], "a request that timed out isn't sent again"


def test_no_way_to_yahoo_is_no_price() -> None:
    with pytest.raises(MarketDataUnavailable):
        YahooQuotes(endpoint="http://127.0.0.1:1").quote("AAPL")


def test_yfinance_that_a_caller_uses_beside_it_keeps_its_own_session(yahoo: Yahoo) -> None:
    beside = yfinance.Ticker("AAPL")._data
    YahooQuotes(endpoint=yahoo.url).quote("AAPL")
    assert yfinance.Ticker("AAPL")._data is beside
    assert "Bounded" not in type(beside._session).__name__


def test_yfinance_is_imported_only_when_a_quote_is_asked() -> None:
    code = "import sys; from broker.market.yahoo import YahooQuotes; YahooQuotes()\n"
    code += "sys.exit('yfinance' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ)).returncode == 0
