"""Contracts, quotes and hours of one session."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from broker.brokers.ibkr import codes, library
from broker.brokers.ibkr.session import Session
from broker.errors import (
    AmbiguousContract,
    BrokerFailure,
    FieldProblem,
    InvalidRequest,
    MarketDataUnavailable,
    RateLimited,
    UnknownSymbol,
)
from broker.market.hours import Session as MarketSession
from broker.market.hours import parse_liquid_hours
from broker.models import Quote

#: seconds after which a contract is looked up again: listings change overnight
CONTRACT_LIFE = 12 * 3600.0
#: seconds to wait for the first price
QUOTE_WAIT = 4.0
#: seconds after the first price in which the others are expected
QUOTE_SETTLES = 0.3
#: seconds to wait after a pacing violation, for which TWS names no time: it counts within minutes
PACING_PAUSE = 60.0
_KINDS = {1: "live", 2: "frozen", 3: "delayed", 4: "delayed frozen"}


class Market:
    """What one session knows about instruments. Contracts are looked up once in `CONTRACT_LIFE`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._contracts: dict[str, tuple[float, Any]] = {}
        self._quoting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def contract(self, symbol: str) -> Any:
        """The stock of that symbol. Raises `UnknownSymbol`, `AmbiguousContract`, `NotConnected`."""
        known = self.known(symbol)
        if known is None:
            asked = library.Stock(symbol.replace(".", " "), "SMART", "USD")  # IBKR writes BRK B
            try:
                found = await self._session.ask(self._session.ib.reqContractDetailsAsync(asked))
            except library.RequestError as refusal:
                raise _refused(symbol, refusal) from None
            known = _one(symbol, found)
            self._contracts[symbol] = (time.monotonic(), known)
        return known

    def known(self, symbol: str) -> Any | None:
        """The stock of that symbol if it was looked up lately. From any thread."""
        looked_up, contract = self._contracts.get(symbol, (-math.inf, None))
        return contract if time.monotonic() - looked_up < CONTRACT_LIFE else None

    async def hours(self) -> list[MarketSession]:
        """The broker's own hours of US stocks: today's and the days after that it tells."""
        asked = library.Stock("SPY", "SMART", "USD")
        try:
            found = await self._session.ask(self._session.ib.reqContractDetailsAsync(asked))
        except library.RequestError:
            return []
        return parse_liquid_hours(found[0].liquidHours, found[0].timeZoneId) if found else []

    async def quote(self, symbol: str) -> Quote:
        """The first prices that arrive. Raises `MarketDataUnavailable`, and what `contract` raises."""
        contract = await self.contract(symbol)
        async with self._quoting[
            symbol
        ]:  # one subscription per contract: the second would end with the first
            return await self._first_prices(symbol, contract)

    async def _first_prices(self, symbol: str, contract: Any) -> Quote:
        ib = self._session.ib
        ticker = ib.reqMktData(contract, "", False, False)
        request_id = ib.wrapper.ticker2ReqId["mktData"].get(ticker)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + QUOTE_WAIT
        try:
            while loop.time() < deadline and not self._session.lost.is_set():
                prices = [_price(p) for p in (ticker.last, ticker.bid, ticker.ask)]
                if all(prices):
                    break
                if any(prices):  # the rest comes in the next packet, or isn't there
                    deadline = min(deadline, loop.time() + QUOTE_SETTLES)
                code, text = self._session.ticker_errors.pop(request_id, (0, ""))
                if codes.is_pacing(code, text):
                    raise RateLimited(f"{text} ({code})", PACING_PAUSE)
                if code in codes.NO_MARKET_DATA:
                    raise MarketDataUnavailable(text, code)
                updated = asyncio.ensure_future(_event(ticker.updateEvent))
                await asyncio.wait({updated}, timeout=0.1)
                updated.cancel()
            if any(_price(p) for p in (ticker.last, ticker.bid, ticker.ask, ticker.close)):
                return _quote(symbol, ticker)
            raise MarketDataUnavailable(f"no price of {symbol} came within {QUOTE_WAIT:g} s")
        finally:
            if not self._session.lost.is_set():
                ib.cancelMktData(contract)
            # The library would begin the next subscription with the prices of this one.
            kept = ib.wrapper.tickers
            for key in [key for key, known in kept.items() if known is ticker]:
                del kept[key]


async def _event(event: Any) -> None:
    await event


def _refused(symbol: str, refusal: Any) -> Exception:
    if refusal.code == 200:
        return UnknownSymbol(symbol)
    if refusal.code == 321:
        return InvalidRequest([FieldProblem("symbol", refusal.message, symbol)])
    return BrokerFailure(f"the look-up of {symbol} failed: {refusal.message} ({refusal.code})")


def _one(symbol: str, found: list[Any]) -> Any:
    by_id = {details.contract.conId: details.contract for details in found}
    if not by_id:
        raise UnknownSymbol(symbol)
    if len(by_id) > 1:
        names = [f"{c.symbol} {c.primaryExchange or c.exchange} (conid {c.conId})" for c in by_id.values()]
        raise AmbiguousContract(symbol, sorted(names))
    contract = next(iter(by_id.values()))
    contract.exchange = "SMART"
    return contract


def _price(value: float) -> float | None:
    # "not there yet" is NaN, and TWS says -1 for a side of the book that is empty
    return float(value) if value is not None and math.isfinite(value) and value > 0 else None


def _quote(symbol: str, ticker: Any) -> Quote:
    kind = _KINDS.get(ticker.marketDataType, "live")
    when = (ticker.time or datetime.now(UTC)).astimezone(UTC)
    prices = (_price(ticker.bid), _price(ticker.ask), _price(ticker.last), _price(ticker.close))
    return Quote(symbol, *prices, time=when.isoformat(), kind=kind, source="ibkr")
