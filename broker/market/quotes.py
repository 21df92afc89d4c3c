"""Prices from where `MARKET_DATA_SOURCE` says, whatever broker trades.

    source = quote_source(os.environ, broker)
    source.quote("AAPL")             # Quote with its time, kind (live, delayed ...) and source

Callers share what was just asked: a quote lives for a moment in the cache, and of any number of
callers that miss it at once one asks while the others wait for its answer. A source that said
"too often" isn't asked again before it said so.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final, Protocol

from broker.base import BaseBroker
from broker.errors import BrokerError, ConfigurationError, MarketDataUnavailable, RateLimited, UnknownSymbol
from broker.models import Quote
from broker.validation import check_symbol

SOURCES: Final = ("alpaca", "ibkr", "yfinance")
#: what `quote_source` reads
VARIABLES: Final = (
    "MARKET_DATA_SOURCE",
    "ALPACA_API_KEY",
    "ALPACA_SECRET_KEY",
    "ALPACA_DATA_FEED",
    "ALPACA_DATA_ENDPOINT",
)
#: brokers whose own prices are IBKR's
_IBKR_BROKERS: Final = ("ibkr", "ibeam", "client_portal")
#: symbols kept at most; beyond it the one asked longest ago is forgotten
LARGEST_CACHE = 2000
#: seconds for which a symbol that a source doesn't know isn't asked again
UNKNOWN_LIVES = 60.0
#: seconds that a caller waits for another caller's request
LONGEST_WAIT = 30.0


class QuoteSource(Protocol):
    """Where quotes come from."""

    #: as in `MARKET_DATA_SOURCE`, or the broker's name
    name: str
    #: seconds for which its answer may be given again
    life: float

    def quote(self, symbol: str) -> Quote:
        """The newest prices, in dollars, with their time and kind.

        Raises `UnknownSymbol`, `InvalidRequest` (mend the symbol), `RateLimited` (come back after
        `retry_after` seconds), `MarketDataUnavailable` (no price: its message and code say why),
        `NotConnected` (the broker that gives the prices is away).
        """
        ...


class BrokerQuotes:
    """The prices of a connected broker; over IBKR delayed ones where live ones aren't subscribed."""

    life = 1.0

    def __init__(self, broker: BaseBroker) -> None:
        self.name = broker.name
        self._broker = broker

    def quote(self, symbol: str) -> Quote:
        """See `QuoteSource.quote`; raises `UnsupportedOperation` where the broker gives no prices."""
        return self._broker.get_quote(symbol)


@dataclass
class _Kept:
    answer: Quote | BrokerError
    until: float


class CachedQuotes:
    """A source behind a cache with a short life. Usable from any thread."""

    def __init__(
        self, source: QuoteSource, *, life: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`life`: seconds, the source's own unless given; `clock`: seconds that only grow."""
        self.name = source.name
        self.life = source.life if life is None else life
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._asking: dict[str, Future[Quote]] = {}
        self._too_often_until = -float("inf")

    def quote(self, symbol: str) -> Quote:
        """See `QuoteSource.quote`. One request for all who ask at once."""
        symbol = check_symbol(symbol)
        with self._lock:
            kept = self._fresh(symbol)
            if kept is not None:
                return _given(kept)
            running = self._asking.get(symbol)
            if running is None:
                wait = self._too_often_until - self._clock()
                if wait > 0:
                    raise RateLimited(f"{self.name} was asked too often", retry_after=round(wait, 3))
                mine: Future[Quote] = Future()
                self._asking[symbol] = mine
        return self._awaited(running) if running is not None else self._ask(symbol, mine)

    async def quote_async(self, symbol: str) -> Quote:
        """`quote` without blocking the event loop."""
        return await asyncio.to_thread(self.quote, symbol)

    def _ask(self, symbol: str, mine: Future[Quote]) -> Quote:
        try:
            found = self._source.quote(symbol)
        except BaseException as failure:
            self._finish(symbol, failure)
            mine.set_exception(failure)
            raise
        self._finish(symbol, found)
        mine.set_result(found)
        return replace(found)

    def _finish(self, symbol: str, answer: Quote | BaseException) -> None:
        with self._lock:
            now = self._clock()
            if isinstance(answer, Quote):
                self._keep(symbol, _Kept(answer, now + self.life))
            elif isinstance(answer, UnknownSymbol):
                self._keep(symbol, _Kept(answer, now + UNKNOWN_LIVES))
            elif isinstance(answer, RateLimited):
                self._too_often_until = now + answer.retry_after
            del self._asking[symbol]

    def _awaited(self, running: Future[Quote]) -> Quote:
        try:
            return replace(running.result(LONGEST_WAIT))
        except TimeoutError:
            said = f"{self.name} hasn't answered another caller for {LONGEST_WAIT:g} s"
            raise MarketDataUnavailable(said) from None

    def _fresh(self, symbol: str) -> _Kept | None:
        kept = self._kept.get(symbol)
        return kept if kept is not None and kept.until > self._clock() else None

    def _keep(self, symbol: str, kept: _Kept) -> None:
        self._kept[symbol] = kept
        self._kept.move_to_end(symbol)
        while len(self._kept) > LARGEST_CACHE:
            self._kept.popitem(last=False)


def _given(kept: _Kept) -> Quote:
    if isinstance(kept.answer, BrokerError):
        raise kept.answer
    return replace(kept.answer)  # a copy: what one caller does to it isn't another's business


def market_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that decide where quotes come from. Raises `ConfigurationError`: an unknown source."""
    found = {name: environment[name].strip() for name in VARIABLES if environment.get(name, "").strip()}
    source = _named(found)
    if source not in ("", *SOURCES):
        raise ConfigurationError(
            f"MARKET_DATA_SOURCE must be one of {', '.join(SOURCES)}, not {source[:40]!a}"
        )
    return found


def quote_source(environment: Mapping[str, str], broker: BaseBroker | None) -> CachedQuotes:
    """The source that `MARKET_DATA_SOURCE` names, cached; the broker's own prices where it is unset.

    `broker` may be None where `needs_broker` says no. Raises `ConfigurationError`: an unknown name,
    ibkr without a broker at IBKR, alpaca without keys.
    """
    settings = market_settings(environment)
    name = _named(settings)
    if name == "yfinance":
        from broker.market.yahoo import YahooQuotes

        return CachedQuotes(YahooQuotes())
    if name == "alpaca":
        return CachedQuotes(_alpaca(settings))
    if broker is None:
        raise ConfigurationError("these quotes come from the broker, and none is configured")
    if name == "ibkr" and broker.name not in (*_IBKR_BROKERS, "simulated"):
        raise ConfigurationError(
            f"MARKET_DATA_SOURCE ibkr needs a connection to IBKR, and BROKER_TYPE is {broker.name}: "
            "choose yfinance or alpaca"
        )
    return CachedQuotes(BrokerQuotes(broker))


def needs_broker(environment: Mapping[str, str]) -> bool:
    """Whether quotes come from the connected broker. Raises `ConfigurationError`: an unknown source."""
    return _named(market_settings(environment)) in ("", "ibkr")


def _named(settings: Mapping[str, str]) -> str:
    return settings.get("MARKET_DATA_SOURCE", "").lower()


def _alpaca(settings: Mapping[str, str]) -> QuoteSource:
    key, secret = settings.get("ALPACA_API_KEY"), settings.get("ALPACA_SECRET_KEY")
    if not (key and secret):
        raise ConfigurationError("MARKET_DATA_SOURCE alpaca needs ALPACA_API_KEY and ALPACA_SECRET_KEY")
    from broker.market.alpaca_data import AlpacaQuotes

    feed = settings.get("ALPACA_DATA_FEED", "iex")
    return AlpacaQuotes(key, secret, feed=feed, endpoint=settings.get("ALPACA_DATA_ENDPOINT", ""))
