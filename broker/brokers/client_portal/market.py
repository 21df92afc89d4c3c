"""Contracts, quotes and hours of one gateway."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

from broker.brokers.client_portal.answers import Json, number
from broker.brokers.client_portal.session import Refused, Session
from broker.errors import AmbiguousContract, BrokerFailure, MarketDataUnavailable, UnknownSymbol
from broker.market.hours import Session as MarketSession
from broker.models import Quote

#: seconds to wait for the first price, and between snapshots: the first one only starts the data
QUOTE_WAIT, SNAPSHOT_PAUSE = 4.0, 0.25
LAST, BID, ASK, CLOSE, AVAILABILITY = "31", "84", "86", "7741", "6509"
_FIELDS = [LAST, BID, ASK, CLOSE, AVAILABILITY]
#: the first letter of field 6509
_KINDS = {"R": "live", "D": "delayed", "Z": "frozen", "Y": "delayed frozen"}
HOURS_OF = "SPY"
#: the broker's hours reach some days ahead, and are read anew this often, in seconds
HOURS_AGE = 6 * 3600.0


class Market:
    """What is known about instruments. Contracts are looked up once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._contracts: dict[str, int] = {}
        self._pause = threading.Event()
        self._hours: tuple[float, list[MarketSession]] | None = None

    def conid(self, symbol: str) -> int:
        """IBKR's number of a stock. Raises `UnknownSymbol`, `AmbiguousContract`, `NotConnected`."""
        if symbol not in self._contracts:
            wanted = symbol.replace(".", " ")  # IBKR writes BRK B
            found = self._session.read(lambda w: w.get("trsrv/stocks", params={"symbols": wanted}))
            self._contracts[symbol] = _one(symbol, (found or {}).get(wanted) or [])
        return self._contracts[symbol]

    def quote(self, symbol: str) -> Quote:
        """The first prices that arrive. Raises `MarketDataUnavailable`, and what `conid` raises."""
        conid = self.conid(symbol)
        deadline = time.monotonic() + QUOTE_WAIT
        row: Json = {}
        while not _priced(row):
            row = self._snapshot(conid)
            if str(row.get(AVAILABILITY) or "").startswith("N"):
                raise MarketDataUnavailable(f"no subscription for prices of {symbol}", 354)
            if time.monotonic() > deadline:
                raise MarketDataUnavailable(f"no price of {symbol} came within {QUOTE_WAIT:g} s")
            if not _priced(row):
                self._pause.wait(SNAPSHOT_PAUSE)
        return quote_of(symbol, row)

    def start_data(self, conid: int) -> None:
        """A first snapshot, which a preview wants to have been asked for."""
        self._snapshot(conid)

    def _snapshot(self, conid: int) -> Json:
        rows = self._session.read(
            lambda w: w.get("iserver/marketdata/snapshot", params=_snapshot_of(conid)),
        )
        return next((dict(r) for r in rows or [] if str(r.get("conid")) == str(conid)), {})

    def hours(self) -> list[MarketSession]:
        """The broker's own hours of US stocks, or none where it doesn't give them."""
        if self._hours is None or time.monotonic() - self._hours[0] > HOURS_AGE:
            found: list[MarketSession] = []
            try:
                params = {"conid": str(self.conid(HOURS_OF))}
                found = sessions_of(
                    self._session.read(lambda w: w.get("contract/trading-schedule", params=params))
                )
            except (Refused, UnknownSymbol, AmbiguousContract):
                pass  # an older gateway has no such path; the exchange's calendar is asked then
            self._hours = (time.monotonic(), found)
        return self._hours[1]


def sessions_of(answer: Any) -> list[MarketSession]:
    """The liquid hours of /contract/trading-schedule; times are seconds since 1970.

    {"exchange_time_zone": "US/Central", "schedules": {"20251224": {"extended_hours": [{..}],
     "liquid_hours": [{"closing": 1766600100, "opening": 1766586600}]}}}
    """
    days = answer.get("schedules") if isinstance(answer, dict) else None
    found = []
    for day in days.values() if isinstance(days, dict) else []:
        for hours in day.get("liquid_hours") or []:
            opening, closing = number(hours.get("opening")), number(hours.get("closing"))
            if opening and closing:
                found.append(
                    MarketSession(datetime.fromtimestamp(opening, UTC), datetime.fromtimestamp(closing, UTC))
                )
    return sorted(found, key=lambda s: s.opens)


def quote_of(symbol: str, row: Json) -> Quote:
    """A row of a snapshot.

    {"conid": 265598, "31": "C168.42", "84": "1,168.41", "86": "168.43", "6509": "RpB",
     "_updated": 1702334859712}
    `C` before the last price: it is the previous close. `H`: trading is halted.
    """
    said, last = str(row.get(LAST) or ""), _price(row.get(LAST))
    close = _price(row.get(CLOSE))
    kind = _KINDS.get(str(row.get(AVAILABILITY) or "R")[:1], "live")
    if said.startswith("C"):
        last, close = None, close or last
    elif said.startswith("H"):
        kind = "halted"
    updated = number(row.get("_updated"))
    when = datetime.fromtimestamp(updated / 1000, UTC) if updated else datetime.now(UTC)
    return Quote(
        symbol,
        _price(row.get(BID)),
        _price(row.get(ASK)),
        last,
        close,
        time=when.isoformat(),
        kind=kind,
        source="ibkr",
    )


def _snapshot_of(conid: int) -> dict[str, str]:
    return {"conids": str(conid), "fields": ",".join(_FIELDS)}


def _priced(row: Json) -> bool:
    return any(_price(row.get(name)) is not None for name in (LAST, BID, ASK))


def _price(value: Any) -> float | None:
    found = number(value)
    return found if found is not None and found > 0 else None  # -1: that side of the book is empty


def _one(symbol: str, names: list[Json]) -> int:
    """The US listing. {"AAPL": [{"name": "APPLE INC", "contracts": [{"conid": 265598, "isUS": true}]}]}"""
    found: dict[int, str] = {}
    for name in names:
        for contract in name.get("contracts") or []:
            if contract.get("isUS") and name.get("assetClass", "STK") == "STK":
                conid = number(contract.get("conid"))
                if conid is None:
                    raise BrokerFailure(f"IBKR's contract of {symbol} has no number")
                found[int(conid)] = f"{name.get('name')} {contract.get('exchange')} (conid {int(conid)})"
    if not found:
        raise UnknownSymbol(symbol)
    if len(found) > 1:
        raise AmbiguousContract(symbol, sorted(found.values()))
    return next(iter(found))
