"""What can be traded: stocks and ETFs from `instruments.csv`.

The file gives symbol, IBKR's contract id where it is known, name, listing exchange, currency and start price.
Where it gives no contract id, one is made from symbol and currency, in a range (910,000,000 and up) that real
ones don't reach yet. Prices are start prices of a simulated market, not quotations.
"""

from __future__ import annotations

import csv
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

MADE_UP_FROM, MADE_UP_COUNT = 910_000_000, 80_000_000
# Where an order for a US stock may be sent (a selection of what IBKR lists in contract details).
US_EXCHANGES = "SMART,AMEX,NYSE,CBOE,PHLX,ISE,CHX,ARCA,NASDAQ,DRCTEDGE,BEX,BATS,EDGEA,BYX,IEX,OVERNIGHT"


@dataclass(frozen=True)
class Instrument:
    """One contract. `tick` is the smallest price step, in `currency`."""

    conid: int
    symbol: str
    name: str
    listing: str
    currency: str
    start_price: float
    kind: str
    industry: str
    category: str

    @property
    def tick(self) -> float:
        """Smallest price step: a cent, and a hundredth of a cent below one dollar (SEC rule 612)."""
        return 0.01 if self.start_price >= 1 else 0.0001

    @property
    def trading_class(self) -> str:
        """IBKR's trading class: NMS for what Nasdaq lists, else the symbol without spaces."""
        return "NMS" if self.listing == "NASDAQ" else self.symbol.replace(" ", "")

    @property
    def exchanges(self) -> str:
        """Comma-separated exchanges that take orders for it."""
        return US_EXCHANGES if self.currency == "USD" else f"SMART,{self.listing}"

    def as_dict(self) -> dict[str, Any]:
        """The contract as it travels over the link."""
        return {
            "conid": self.conid,
            "symbol": self.symbol,
            "local_symbol": self.symbol,
            "name": self.name,
            "sec_type": "STK",
            "exchange": "SMART",
            "primary_exchange": self.listing,
            "currency": self.currency,
            "trading_class": self.trading_class,
            "stock_type": self.kind,
            "industry": self.industry,
            "category": self.category,
            "min_tick": self.tick,
            "valid_exchanges": self.exchanges,
        }


class Catalogue:
    """All instruments, by contract id and by symbol."""

    def __init__(self, instruments: list[Instrument]) -> None:
        self.by_conid = {item.conid: item for item in instruments}
        if len(self.by_conid) != len(instruments):
            raise ValueError("two instruments have the same contract id")
        self._by_symbol: dict[str, list[Instrument]] = {}
        for item in instruments:
            self._by_symbol.setdefault(item.symbol, []).append(item)

    def find(
        self, symbol: str = "", *, currency: str = "", exchange: str = "", primary_exchange: str = ""
    ) -> list[Instrument]:
        """Instruments that match every given criterion; `exchange` may be any that takes orders for it."""
        return [
            item
            for item in self._by_symbol.get(symbol.upper(), [])
            if (not currency or item.currency == currency)
            and (not exchange or exchange in item.exchanges.split(","))
            and (not primary_exchange or primary_exchange == item.listing)
        ]

    def search(self, pattern: str, limit: int = 16) -> list[Instrument]:
        """Instruments whose symbol begins with `pattern` or whose name holds it, exact symbols first."""
        wanted = pattern.strip().upper()
        if not wanted:
            return []
        hits = [i for i in self.by_conid.values() if i.symbol.startswith(wanted) or wanted in i.name]
        hits.sort(key=lambda i: (i.symbol != wanted, not i.symbol.startswith(wanted), i.symbol))
        return hits[:limit]


def _instrument(row: dict[str, str]) -> Instrument:
    made_up = MADE_UP_FROM + zlib.crc32(f"{row['symbol']}/{row['currency']}".encode()) % MADE_UP_COUNT
    return Instrument(
        conid=int(row["conid"]) if row["conid"] else made_up,
        symbol=row["symbol"],
        name=row["name"],
        listing=row["listing"],
        currency=row["currency"],
        start_price=float(row["price"]),
        kind=row["kind"],
        industry=row["industry"],
        category=row["category"],
    )


@cache
def catalogue() -> Catalogue:
    """The instruments that come with the exchange."""
    text = resources.files(__package__).joinpath("instruments.csv").read_text("utf-8")
    return Catalogue([_instrument(row) for row in csv.DictReader(text.splitlines())])
