"""Yahoo's free prices, through yfinance. For looking, not for trading: Yahoo promises nothing about them.

One quote is one request to Yahoo's chart endpoint, of which the library supplies what Yahoo wants of
a visitor (a browser's TLS, cookie, crumb). The library goes on asking where Yahoo is slow or refuses:
a dozen requests of up to 30 seconds for one price. So what a quote may cost is bounded here, on
the library's session, in requests and in seconds.
"""

from __future__ import annotations

import math
import threading
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from broker.errors import MarketDataUnavailable, RateLimited, UnknownSymbol
from broker.models import Quote
from broker.validation import check_symbol

_CHART = "https://query2.finance.yahoo.com/v8/finance/chart/"
#: seconds and requests that one quote may take, whatever the library would try
DEADLINE = 10.0
LARGEST_NUMBER_OF_REQUESTS = 8
#: Yahoo names no time after which to come back; a shorter pause was seen to prolong the refusal
RETRY_AFTER = 60.0


class BudgetSpent(TimeoutError):
    """A quote took all the requests or seconds that it may."""


class Answered(Exception):
    """Yahoo's refusal is an answer: another cookie, with which the library would ask again, changes none."""

    def __init__(self, response: Any) -> None:
        super().__init__(f"status {response.status_code}")
        self.response = response


class YahooQuotes:
    """Yahoo Finance: last price and the previous close; no bid and ask. Usable from any thread."""

    name = "yfinance"
    #: Yahoo bans who asks too often
    life = 15.0

    def __init__(self, *, endpoint: str = "", deadline: float = DEADLINE) -> None:
        """`endpoint`: answers in the place of all of Yahoo's hosts, for tests; `deadline`: seconds."""
        self._endpoint = endpoint
        self._deadline = deadline
        self._lock = threading.Lock()
        self._data: Any = None

    def quote(self, symbol: str) -> Quote:
        """See `QuoteSource.quote`. `time` is the last trade's; `kind` is delayed, as Yahoo says no more."""
        symbol = check_symbol(symbol)
        data = self._library()
        try:
            with data._session.budget(self._deadline):
                response = data.get(
                    _CHART + symbol.replace(".", "-"),  # Yahoo writes BRK-B
                    params={"range": "1d", "interval": "1d"},
                    timeout=self._deadline,
                )
        except Answered as answer:
            response = answer.response
        except Exception as failure:  # the library's or its HTTP backend's
            raise MarketDataUnavailable(f"Yahoo can't be reached: {type(failure).__name__}") from failure
        if response.status_code == 429:
            raise RateLimited("Yahoo was asked too often", RETRY_AFTER)
        try:
            body = response.json()
        except ValueError:
            said = f"Yahoo's answer makes no sense (status {response.status_code})"
            raise MarketDataUnavailable(said, response.status_code) from None
        return _quote(symbol, response.status_code, body)

    def _library(self) -> Any:
        """yfinance's keeper of cookie and crumb, on a session that counts."""
        with self._lock:
            if self._data is None:
                from yfinance.data import YfData

                # The library keeps one instance per class for the whole process: with a class of its
                # own, what a caller does with yfinance beside us isn't touched.
                keeper = type("Keeper", (YfData,), {})
                self._data = keeper(session=_bounded_session(self._endpoint))
            return self._data


def _bounded_session(endpoint: str) -> Any:
    """A session as yfinance makes it, whose requests are bounded while a quote is asked."""
    from yfinance._http import new_session

    plain = type(new_session())

    class BoundedSession(plain):  # type: ignore[valid-type,misc]
        """Counts what one quote costs."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._spending = threading.local()

        def budget(self, seconds: float) -> _Budget:
            """While this is entered, the thread's requests are counted."""
            return _Budget(self._spending, seconds)

        def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> Any:
            budget: _Budget | None = getattr(self._spending, "budget", None)
            if budget is not None:
                kwargs["timeout"] = budget.take(kwargs.get("timeout"))
            if endpoint:
                parts = urlsplit(url)
                url = f"{endpoint}/{parts.hostname}{parts.path}" + (f"?{parts.query}" if parts.query else "")
            response = super().request(method, url, *args, **kwargs)
            if budget is not None and "/finance/chart/" in url and response.status_code in (404, 429):
                raise Answered(response)
            return response

    # With a browser's TLS, as yfinance does where curl_cffi is there; plain requests take no such argument.
    likeness = {"impersonate": "chrome"} if plain.__module__.startswith("curl_cffi") else {}
    return BoundedSession(**likeness)


class _Budget:
    """Requests and seconds of one quote."""

    def __init__(self, spending: threading.local, seconds: float) -> None:
        self._spending = spending
        self._ends = time.monotonic() + seconds
        self._left = LARGEST_NUMBER_OF_REQUESTS

    def __enter__(self) -> None:
        self._spending.budget = self

    def __exit__(self, *_failure: object) -> None:
        self._spending.budget = None

    def take(self, wanted: float | None) -> float:
        """The seconds that the next request may take. Raises `BudgetSpent`."""
        remaining = self._ends - time.monotonic()
        if self._left == 0 or remaining <= 0:
            raise BudgetSpent("a quote from Yahoo took too many requests or seconds")
        self._left -= 1
        return min(remaining, wanted or remaining)


def _quote(symbol: str, status: int, body: Any) -> Quote:
    """A quote of the chart's `meta`.

    Sample: `{"chart":{"result":[{"meta":{"symbol":"AAPL","currency":"USD","regularMarketPrice":230.5,
    "regularMarketTime":1732222801,"chartPreviousClose":229.1}, ...}],"error":null}}`, and for what
    Yahoo doesn't know 404 with `{"chart":{"result":null,"error":{"code":"Not Found",...}}}`.
    """
    chart = body.get("chart") if isinstance(body, dict) else None
    error = (chart or {}).get("error")
    if isinstance(error, dict):
        if error.get("code") == "Not Found":
            raise UnknownSymbol(symbol, "Yahoo knows no such symbol")
        raise MarketDataUnavailable(f"Yahoo gives no price: {str(error.get('description'))[:200]}", status)
    try:
        meta = chart["result"][0]["meta"]  # type: ignore[index]
        last, seconds = _price(meta.get("regularMarketPrice")), float(meta["regularMarketTime"])
        traded = datetime.fromtimestamp(seconds, UTC)
    except (TypeError, KeyError, IndexError, AttributeError, ValueError, OverflowError, OSError):
        raise MarketDataUnavailable(f"Yahoo's answer holds no price ({status})", status) from None
    if last is None:
        raise MarketDataUnavailable(f"Yahoo has no price of {symbol}")
    close = _price(meta.get("previousClose")) or _price(meta.get("chartPreviousClose"))
    return Quote(symbol, None, None, last, close, traded.isoformat(), "delayed", "yfinance")


def _price(value: Any) -> float | None:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    return number if math.isfinite(number) and number > 0 else None
