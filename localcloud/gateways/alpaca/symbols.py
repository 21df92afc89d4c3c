"""Symbols, assets and how values are written.

The exchange writes class shares as IBKR does ("BRK B"), Alpaca with a dot ("BRK.B"). Prices and quantities
are strings in the Trading API ("12.5"), numbers in the data API.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from functools import cache
from typing import Any

from localcloud.exchange.clock import EASTERN
from localcloud.exchange.instruments import Instrument, catalogue

_NAMESPACE = uuid.UUID("6f0c6d0e-2d0e-5d0a-9b5e-1c1f0b7a54c1")


def made_id(*parts: object) -> str:
    """A UUID that is always the same for the same parts: the exchange has numbers, Alpaca has UUIDs."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(str(part) for part in parts)))


def asset_id(symbol: str) -> str:
    """The id of an asset by its symbol in Alpaca's spelling."""
    return made_id("asset", symbol)


def to_alpaca(symbol: str) -> str:
    """`BRK B` -> `BRK.B`."""
    return symbol.replace(" ", ".")


@cache
def assets() -> dict[str, Instrument]:
    """What can be traded, by symbol: what is listed in US dollars."""
    listed = [item for item in catalogue().by_conid.values() if item.currency == "USD"]
    return {to_alpaca(item.symbol): item for item in listed}


@cache
def _symbols_by_id() -> dict[str, str]:
    return {asset_id(symbol): symbol for symbol in assets()}


def find(symbol_or_id: str) -> Instrument | None:
    """An instrument by its symbol or its asset's id."""
    return assets().get(_symbols_by_id().get(symbol_or_id.lower(), symbol_or_id.upper()))


def asset_entity(symbol: str, instrument: Instrument) -> dict[str, Any]:
    """An asset (docs.alpaca.markets, Assets)."""
    return {
        "id": asset_id(symbol),
        "class": "us_equity",
        "exchange": instrument.listing,
        "symbol": symbol,
        "name": instrument.name,
        "status": "active",
        "tradable": True,
        "marginable": True,
        "maintenance_margin_requirement": 30,
        "margin_requirement_long": "30",
        "margin_requirement_short": "30",
        "shortable": True,
        "easy_to_borrow": True,
        "fractionable": True,
        "attributes": [],
    }


def text(value: float | None, places: int = 9) -> str | None:
    """`12.50` -> `"12.5"`, `3.0` -> `"3"`, None -> None."""
    if value is None:
        return None
    written = f"{value:.{places}f}"
    short = written.rstrip("0").rstrip(".") if "." in written else written
    return "0" if short == "-0" else short


def money(value: float) -> str:
    """An amount in USD with cents at most: `"100000"`, `"-12.34"`."""
    return text(round(value, 2), 2) or "0"


def moment(at: float | None) -> str | None:
    """Seconds since the epoch -> `"2026-11-20T17:00:00.123456Z"`."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def eastern(at: float) -> str:
    """Seconds since the epoch -> `"2026-11-20T12:00:00.123456-05:00"`, as the clock writes it."""
    return datetime.fromtimestamp(at, EASTERN).isoformat()
