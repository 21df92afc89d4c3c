"""Alpaca's market data, through alpaca-py's data client, whatever broker trades."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any

from broker.errors import BrokerFailure, ConfigurationError, MarketDataUnavailable, RateLimited, UnknownSymbol
from broker.models import Quote
from broker.validation import check_symbol

#: seconds to connect and to read
TIMEOUT = (5.0, 10.0)
#: what a feed's prices are (docs.alpaca.markets, market data): iex is one exchange's, free and at once;
#: sip all exchanges', for subscribers; delayed_sip all exchanges', 15 minutes late
KINDS = {"iex": "live", "sip": "live", "delayed_sip": "delayed"}


class AlpacaQuotes:
    """Alpaca's snapshots. Usable from any thread."""

    name = "alpaca"
    life = 1.0

    def __init__(self, api_key: str, secret_key: str, *, feed: str = "iex", endpoint: str = "") -> None:
        """`feed`: one of `KINDS`; `endpoint`: another URL than Alpaca's own. Raises `ConfigurationError`."""
        if feed not in KINDS:
            raise ConfigurationError(f"ALPACA_DATA_FEED must be one of {', '.join(KINDS)}, not {feed[:40]!a}")
        from alpaca.data.enums import DataFeed
        from alpaca.data.historical.stock import StockHistoricalDataClient

        self._feed = DataFeed(feed)
        self._client = StockHistoricalDataClient(api_key, secret_key, url_override=endpoint or None)
        # The library repeats a request three times after three seconds each, and waits for an answer for
        # ever; both can be set only here, on attributes that must be there.
        if not isinstance(getattr(self._client, "_retry", None), int):
            raise BrokerFailure("this version of alpaca-py hides its retries")
        self._client._retry = 0
        session: Any = self._client._session
        session.request = functools.partial(session.request, timeout=TIMEOUT)

    def quote(self, symbol: str) -> Quote:
        """See `QuoteSource.quote`. `time` is the newer one of the last trade's and the last quote's."""
        import requests
        from alpaca.common.exceptions import APIError
        from alpaca.data.requests import StockSnapshotRequest

        symbol = check_symbol(symbol)
        asked = StockSnapshotRequest(symbol_or_symbols=symbol, feed=self._feed)
        try:
            found: Any = self._client.get_stock_snapshot(asked)
        except APIError as error:
            raise _refusal(symbol, error) from None
        except (requests.RequestException, OSError) as failure:
            said = f"Alpaca's market data can't be reached: {type(failure).__name__}"
            raise MarketDataUnavailable(said) from failure
        except (ValueError, TypeError, KeyError, AttributeError) as failure:
            said = f"Alpaca's answer makes no sense: {type(failure).__name__}"
            raise MarketDataUnavailable(said) from failure
        snapshot = found.get(symbol)
        if snapshot is None:
            raise UnknownSymbol(symbol, "Alpaca's market data knows no such symbol")
        return _quote(symbol, snapshot, self._feed.value)


def _quote(symbol: str, snapshot: Any, feed: str) -> Quote:
    trade, book, before = snapshot.latest_trade, snapshot.latest_quote, snapshot.previous_daily_bar
    # A side of the book that is empty comes as 0.
    bid = float(book.bid_price) or None if book else None
    ask = float(book.ask_price) or None if book else None
    last = float(trade.price) if trade else None
    times: list[datetime] = [part.timestamp for part in (trade, book) if part]
    if not times or (last, bid, ask) == (None, None, None):
        raise MarketDataUnavailable(f"Alpaca has no price of {symbol}")
    close = float(before.close) if before else None
    newest = max(moment.astimezone(UTC) for moment in times)
    return Quote(symbol, bid, ask, last, close, newest.isoformat(), KINDS[feed], f"alpaca {feed}")


def _refusal(symbol: str, error: Any) -> Exception:
    status = error.status_code
    try:
        message = str(error.message)
    except (ValueError, KeyError, TypeError):  # an error page instead of JSON
        message = f"status {status}"
    if status == 429:
        headers = error.response.headers if error.response is not None else {}
        wait = str(headers.get("Retry-After", "60"))
        return RateLimited("Alpaca's request limit is used up", float(wait) if wait.isdigit() else 60.0)
    if status == 400 and "invalid symbol" in message.lower():
        return UnknownSymbol(symbol, "Alpaca's market data knows no such symbol")
    return MarketDataUnavailable(f"Alpaca gives no price: {message[:200]}", status)
