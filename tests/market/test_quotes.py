"""The cache before every source, and which source a setting chooses. The sources are tested beside it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.brokers.simulated import SimulatedBroker
from broker.errors import (
    ConfigurationError,
    InvalidRequest,
    MarketDataUnavailable,
    RateLimited,
    UnknownSymbol,
)
from broker.market.quotes import LARGEST_CACHE, UNKNOWN_LIVES, BrokerQuotes, CachedQuotes, quote_source
from broker.models import Quote


class Source:
    """A source that counts, and answers when the test lets it."""

    name = "counted"
    life = 5.0

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.arrived = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def quote(self, symbol: str) -> Quote:
        self.asked.append(symbol)
        self.arrived.set()
        assert self.open.wait(20)
        if self.failure is not None:
            raise self.failure
        return Quote(
            symbol, 1.0, 2.0, float(len(self.asked)), 1.5, "2026-01-02T00:00:00+00:00", "live", "counted"
        )


class Seconds:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def cached(source: Source, seconds: Seconds) -> CachedQuotes:
    return CachedQuotes(source, clock=seconds)


def test_a_quote_is_given_again_for_its_life_and_asked_anew_after_it(
    cached: CachedQuotes, source: Source, seconds: Seconds
) -> None:
    first = cached.quote("AAPL")
    seconds.now += 4.9
    assert cached.quote("aapl") == first
    seconds.now += 0.2
    assert cached.quote("AAPL").last == 2.0
    assert source.asked == ["AAPL", "AAPL"]


def test_what_one_caller_does_to_a_quote_is_not_seen_by_another(cached: CachedQuotes) -> None:
    cached.quote("AAPL").last = 0.0
    assert cached.quote("AAPL").last == 1.0


def test_fifty_callers_at_once_are_one_request(cached: CachedQuotes, source: Source) -> None:
    source.open.clear()
    with ThreadPoolExecutor(50) as pool:
        calls = [pool.submit(cached.quote, "AAPL") for _ in range(50)]
        assert source.arrived.wait(20)
        source.open.set()
        assert {call.result(20).last for call in calls} == {1.0}
    assert source.asked == ["AAPL"]


def test_callers_of_other_symbols_do_not_wait_for_a_slow_one(cached: CachedQuotes, source: Source) -> None:
    source.open.clear()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(cached.quote, "AAPL")
        assert source.arrived.wait(20)
        source.arrived.clear()
        other = threading.Thread(target=cached.quote, args=("MSFT",))
        other.start()
        assert source.arrived.wait(20), "MSFT is asked while AAPL's answer is awaited"
        source.open.set()
        slow.result(20)
        other.join(20)


def test_a_failure_reaches_all_who_waited_and_the_next_caller_asks_again(
    cached: CachedQuotes, source: Source
) -> None:
    source.failure = MarketDataUnavailable("no subscription", 354)
    source.open.clear()
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(cached.quote, "AAPL") for _ in range(5)]
        assert source.arrived.wait(20)
        source.open.set()
        for call in calls:
            with pytest.raises(MarketDataUnavailable):
                call.result(20)
    source.failure = None
    assert cached.quote("AAPL").symbol == "AAPL", "a failure isn't kept"


def test_an_unknown_symbol_is_not_asked_again_for_a_while(
    cached: CachedQuotes, source: Source, seconds: Seconds
) -> None:
    source.failure = UnknownSymbol("NOSUCHX")
    for _ in range(3):
        with pytest.raises(UnknownSymbol):
            cached.quote("NOSUCHX")
    assert source.asked == ["NOSUCHX"]
    seconds.now += UNKNOWN_LIVES + 1
    source.failure = None
    assert cached.quote("NOSUCHX").symbol == "NOSUCHX", "a new listing appears"


def test_a_source_that_said_too_often_is_left_alone_until_it_said(
    cached: CachedQuotes, source: Source, seconds: Seconds
) -> None:
    cached.quote("MSFT")
    source.failure = RateLimited("too often", retry_after=30.0)
    with pytest.raises(RateLimited):
        cached.quote("AAPL")
    source.failure = None
    seconds.now += 4
    with pytest.raises(RateLimited) as later:
        cached.quote("SPY")
    assert later.value.retry_after == pytest.approx(26.0)
    assert cached.quote("MSFT").symbol == "MSFT", "what is known is still given"
    assert source.asked == ["MSFT", "AAPL"]
    seconds.now += 26.1
    assert cached.quote("SPY").symbol == "SPY"


def test_a_symbol_of_wrong_form_reaches_no_source(cached: CachedQuotes, source: Source) -> None:
    for wrong in ("", "BRK B", "AAPL;", "a" * 40):
        with pytest.raises(InvalidRequest):
            cached.quote(wrong)
    assert source.asked == []


def test_the_cache_forgets_the_oldest_beyond_its_size(cached: CachedQuotes, source: Source) -> None:
    for number in range(LARGEST_CACHE + 1):
        cached.quote(f"S{number}")
    cached.quote(f"S{LARGEST_CACHE}")
    assert len(source.asked) == LARGEST_CACHE + 1
    cached.quote("S0")
    assert source.asked[-1] == "S0"


async def test_the_same_from_an_event_loop(cached: CachedQuotes) -> None:
    assert (await cached.quote_async("AAPL")).last == 1.0


@pytest.mark.parametrize(
    ("name", "found"),
    [("", "simulated"), ("ibkr", "simulated"), ("YFinance", "yfinance"), ("alpaca", "alpaca")],
)
def test_the_setting_chooses_the_source(name: str, found: str) -> None:
    settings = {"MARKET_DATA_SOURCE": name, "ALPACA_API_KEY": "key", "ALPACA_SECRET_KEY": "secret"}
    assert quote_source(settings, SimulatedBroker()).name == found


class _Elsewhere(SimulatedBroker):
    name = "alpaca"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"MARKET_DATA_SOURCE": "bloomberg"}, "alpaca, ibkr, yfinance"),
        ({"MARKET_DATA_SOURCE": "ibkr"}, "BROKER_TYPE is alpaca"),
        ({"MARKET_DATA_SOURCE": "alpaca"}, "ALPACA_API_KEY"),
        (
            {"MARKET_DATA_SOURCE": "alpaca", "ALPACA_API_KEY": "k", "ALPACA_SECRET_KEY": "s"}
            | {"ALPACA_DATA_FEED": "opra"},
            "ALPACA_DATA_FEED",
        ),
    ],
)
def test_a_source_that_is_not_to_be_had_names_the_setting(settings: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        quote_source(settings, _Elsewhere())


def test_the_brokers_own_prices_come_with_time_and_kind() -> None:
    broker = SimulatedBroker()
    broker.connect()
    quote = CachedQuotes(BrokerQuotes(broker)).quote("AAPL")
    assert (quote.kind, quote.source) == ("simulated", "simulated")
    assert 0 <= quote.age_seconds < 60


def test_the_service_refuses_a_source_that_it_does_not_know() -> None:
    from broker.service.settings import Settings

    with pytest.raises(ConfigurationError, match="MARKET_DATA_SOURCE must be one of alpaca, ibkr, yfinance"):
        Settings.from_environment({"MARKET_DATA_SOURCE": "bloomberg"})
