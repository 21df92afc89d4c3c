"""Prices: a seeded random walk around each instrument's start price, and daily history before today.

A quote is walked forward when somebody looks at it, so idle instruments cost nothing. The same seed, clock
and questions give the same prices.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from localcloud.exchange.clock import Clock
from localcloud.exchange.instruments import Catalogue, Instrument

ANNUAL_VOLATILITY = 0.25
TRADING_SECONDS_PER_YEAR = 252 * 6.5 * 3600
# The farthest that a price walks in one look: a machine that slept for a week must not wake to a crash.
LONGEST_STEP_SECONDS = 6.5 * 3600
# Prices stand still for this long, so that valuing a portfolio twice costs no second walk.
SHORTEST_STEP_SECONDS = 0.2
HALF_SPREAD = 0.00005
LOT = 100


@dataclass
class Quote:
    """The top of the book.

    Prices in the contract's currency, sizes and volume in shares, time in epoch seconds.
    """

    conid: int
    bid: float
    ask: float
    last: float
    bid_size: int
    ask_size: int
    last_size: int
    volume: int
    open: float
    high: float
    low: float
    close: float
    time: float

    def as_dict(self) -> dict[str, Any]:
        """The quote as it travels over the link."""
        return dict(self.__dict__)


def round_to_tick(price: float, tick: float) -> float:
    """`price` moved to the nearest multiple of `tick`, without binary dust."""
    return round(round(price / tick) * tick, 6)


def is_on_tick(price: float, tick: float) -> bool:
    """Whether `price` is a multiple of `tick` (within floating-point noise)."""
    steps = price / tick
    return abs(steps - round(steps)) < 1e-6


class Market:
    """Current quotes of all instruments."""

    def __init__(self, catalogue: Catalogue, clock: Clock, seed: int) -> None:
        self.catalogue = catalogue
        self.clock = clock
        self.seed = seed
        self._quotes: dict[int, Quote] = {}
        self._middles: dict[int, float] = {}
        self._days: dict[int, str] = {}
        self._held: set[int] = set()
        self._generators: dict[int, random.Random] = {}

    def quote(self, conid: int) -> Quote:
        """The quote of an instrument now. Raises KeyError when there is no such instrument."""
        now = self.clock.now()
        known = self._quotes.get(conid)
        if known is None:
            return self._first(self.catalogue.by_conid[conid], now)
        if conid not in self._held and now - known.time >= SHORTEST_STEP_SECONDS:
            self._walk(self.catalogue.by_conid[conid], known, now)
        return known

    def set_price(self, conid: int, price: float, *, hold: bool = True) -> Quote:
        """Puts the middle of the book at `price`; with `hold` it stays there until set again without."""
        self.quote(conid)
        self._middles[conid] = price
        (self._held.add if hold else self._held.discard)(conid)
        self._place(self.catalogue.by_conid[conid], self._quotes[conid], self.clock.now())
        return self._quotes[conid]

    def take(self, conid: int, side: str, quantity: float) -> None:
        """Counts a trade and takes its quantity off the displayed size.

        The next look refills an empty side.
        """
        quote = self._quotes[conid]
        quote.volume += int(quantity)
        quote.last_size = int(quantity)
        quote.last = quote.ask if side == "BUY" else quote.bid
        if side == "BUY":
            quote.ask_size = max(0, quote.ask_size - int(quantity))
        else:
            quote.bid_size = max(0, quote.bid_size - int(quantity))

    def refill(self, conid: int) -> None:
        """New displayed sizes, as when the next orders of other traders arrive."""
        quote, generator = self._quotes[conid], self._generator(conid)
        quote.bid_size = LOT * generator.randint(1, 20)
        quote.ask_size = LOT * generator.randint(1, 20)

    def prices(self) -> dict[int, tuple[float, float]]:
        """Middle price and previous close of every instrument that anybody looked at.

        To survive a restart.
        """
        return {conid: (middle, self._quotes[conid].close) for conid, middle in self._middles.items()}

    def restore(self, conid: int, middle: float, close: float) -> None:
        """Continues an instrument's walk where it was before a restart."""
        if conid in self.catalogue.by_conid:
            quote = self._first(self.catalogue.by_conid[conid], self.clock.now())
            self._middles[conid], quote.close = middle, close
            self._place(self.catalogue.by_conid[conid], quote, quote.time)

    def daily_bars(self, conid: int, days: list[date]) -> list[dict[str, Any]]:
        """One bar for each of `days` (ascending), ending near the start price; the same every time."""
        instrument = self.catalogue.by_conid[conid]
        price, bars = instrument.start_price, []
        for day in reversed(days):
            generator = random.Random(f"{self.seed}/{conid}/{day.isoformat()}")
            close = price
            price = close * math.exp(generator.gauss(0.0, ANNUAL_VOLATILITY / math.sqrt(252)))
            high = max(price, close) * (1 + abs(generator.gauss(0, 0.004)))
            low = min(price, close) * (1 - abs(generator.gauss(0, 0.004)))
            prices = {"open": price, "high": high, "low": low, "close": close}
            prices["average"] = (high + low + close) / 3
            volume = LOT * generator.randint(5_000, 500_000)
            bar: dict[str, Any] = {k: round_to_tick(v, instrument.tick) for k, v in prices.items()}
            bars.append({"date": day.strftime("%Y%m%d"), **bar, "volume": volume, "count": volume // 150})
        return bars[::-1]

    def _generator(self, conid: int) -> random.Random:
        return self._generators.setdefault(conid, random.Random(f"{self.seed}/{conid}"))

    def _first(self, instrument: Instrument, now: float) -> Quote:
        yesterday = self.clock.eastern().date() - timedelta(days=1)
        close = self.daily_bars(instrument.conid, [yesterday])[0]["close"]
        price = round_to_tick(instrument.start_price, instrument.tick)
        quote = Quote(instrument.conid, price, price, price, 0, 0, 0, 0, price, price, price, close, now)
        self._quotes[instrument.conid], self._middles[instrument.conid] = quote, price
        self._days[instrument.conid] = self.clock.day()
        self._place(instrument, quote, now)
        return quote

    def _walk(self, instrument: Instrument, quote: Quote, now: float) -> None:
        elapsed = min(now - quote.time, LONGEST_STEP_SECONDS)
        spread = ANNUAL_VOLATILITY * math.sqrt(elapsed / TRADING_SECONDS_PER_YEAR)
        self._middles[instrument.conid] *= math.exp(self._generator(instrument.conid).gauss(0.0, spread))
        self._place(instrument, quote, now)

    def _place(self, instrument: Instrument, quote: Quote, now: float) -> None:
        """Writes a quote around the middle price."""
        if self._days[instrument.conid] != self.clock.day():
            self._days[instrument.conid] = self.clock.day()
            quote.close, quote.volume = quote.last, 0
            quote.open = quote.high = quote.low = self._middles[instrument.conid]
        generator = self._generator(instrument.conid)
        middle, tick = self._middles[instrument.conid], instrument.tick
        half = max(tick / 2, middle * HALF_SPREAD)
        quote.bid = max(tick, round_to_tick(middle - half, tick))
        quote.ask = max(quote.bid + tick, round_to_tick(middle + half, tick))
        quote.ask = round_to_tick(quote.ask, tick)
        quote.last = quote.bid if generator.random() < 0.5 else quote.ask
        quote.last_size = LOT * generator.randint(1, 5)
        quote.volume += quote.last_size
        quote.high, quote.low = max(quote.high, quote.last), min(quote.low, quote.last)
        quote.time = now
        self.refill(instrument.conid)
