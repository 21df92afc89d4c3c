"""Clock, calendar and assets of the Trading API, and the stock data API.

Sizes are in shares. A "minute bar" is made from the last trade: the exchange keeps no minutes.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from localcloud.exchange.clock import EASTERN
from localcloud.exchange.instruments import Instrument
from localcloud.gateways.alpaca import symbols
from localcloud.gateways.alpaca.errors import ApiError, malformed, not_found
from localcloud.gateways.alpaca.session import AccountSession

Json = dict[str, Any]
Query = dict[str, str]
BARS_LIMIT = 10_000
#: What a calendar without start and end covers; Alpaca's goes from 1970 to 2029.
USUAL_CALENDAR = timedelta(days=365)


async def clock(session: AccountSession) -> Json:
    """GET /v2/clock."""
    now = await session.call("clock")
    return {
        "timestamp": symbols.eastern(now["time"]),
        "is_open": now["is_open"],
        "next_open": symbols.eastern(now["next_open"]),
        "next_close": symbols.eastern(now["next_close"]),
    }


async def calendar(session: AccountSession, query: Query) -> list[Json]:
    """GET /v2/calendar."""
    today = datetime.fromtimestamp((await session.call("server_time"))["time"], EASTERN).date()
    start = _day(query, "start", today - USUAL_CALENDAR)
    end = _day(query, "end", max(start, today) + USUAL_CALENDAR)
    found = await session.call("calendar", start=start.isoformat(), end=end.isoformat())
    return [{**row, "session_open": "0400", "session_close": "2000"} for row in found["sessions"]]


async def asset(_: AccountSession, symbol_or_id: str) -> Json:
    """GET /v2/assets/{symbol_or_asset_id}."""
    instrument = symbols.find(symbol_or_id)
    if instrument is None:
        raise not_found(f"asset not found for {symbol_or_id}")
    return symbols.asset_entity(symbols.to_alpaca(instrument.symbol), instrument)


async def assets(_: AccountSession, query: Query) -> list[Json]:
    """GET /v2/assets."""
    if query.get("status", "active") != "active" or query.get("asset_class", "us_equity") != "us_equity":
        return []
    listing = query.get("exchange")
    return [
        symbols.asset_entity(symbol, instrument)
        for symbol, instrument in sorted(symbols.assets().items())
        if listing in (None, instrument.listing)
    ]


async def latest(session: AccountSession, kind: str, query: Query) -> Json:
    """GET /v2/stocks/quotes|trades|bars/latest: by symbol; what isn't known is left out."""
    make = {"quotes": _quote, "trades": _trade, "bars": _minute_bar}.get(kind)
    if make is None:
        raise not_found("endpoint not found")
    found = {}
    for symbol, instrument in _wanted(query).items():
        found[symbol] = make(await _look(session, instrument))
    return {kind: found}


async def latest_of_one(session: AccountSession, symbol: str, kind: str) -> Json:
    """GET /v2/stocks/{symbol}/quotes|trades|bars/latest."""
    found = (await latest(session, kind, {"symbols": symbol}))[kind]
    if not found:
        raise not_found(f"no {kind[:-1]} found for {symbol}")
    return {"symbol": symbol.upper(), kind[:-1]: found[symbol.upper()]}


async def snapshots(session: AccountSession, query: Query) -> Json:
    """GET /v2/stocks/snapshots."""
    return {symbol: await _snapshot(session, item) for symbol, item in _wanted(query).items()}


async def bars(session: AccountSession, query: Query) -> Json:
    """GET /v2/stocks/bars: daily ones, the only ones that the exchange has."""
    if query.get("timeframe", "").lower() not in ("1day", "1d", "day"):
        raise ApiError(400, None, "invalid timeframe: the paper exchange has daily bars (1Day) only")
    today = datetime.fromtimestamp((await session.call("server_time"))["time"], EASTERN).date()
    start, end = _day(query, "start", today), _day(query, "end", today)
    limit = min(int(query.get("limit") or BARS_LIMIT), BARS_LIMIT)
    weekdays = sum(1 for ahead in range((end - start).days + 1) if (start + timedelta(ahead)).weekday() < 5)
    found: dict[str, list[Json]] = {}
    for symbol, instrument in _wanted(query).items():
        rows: list[Json] = []
        if weekdays:
            noon = datetime.combine(end, time(12), EASTERN).timestamp()
            answer = await session.call("history", conid=instrument.conid, days=weekdays, end=noon)
            rows = [_daily_bar(row) for row in answer["bars"]]
        if query.get("sort") == "desc":
            rows.reverse()
        found[symbol] = rows[:limit]
        limit -= len(found[symbol])
    return {"bars": found, "next_page_token": None}


def _wanted(query: Query) -> dict[str, Instrument]:
    names = [name.strip().upper() for name in query.get("symbols", "").split(",") if name.strip()]
    if not names:
        raise ApiError(400, None, "symbols is required")
    listed = symbols.assets()
    return {name: listed[name] for name in names if name in listed}


async def _look(session: AccountSession, instrument: Instrument) -> Json:
    answer = await session.call("quote", conid=instrument.conid)
    if answer["entitlement"] == "none":
        raise ApiError(403, None, "subscription does not permit querying recent SIP data")
    return dict(answer["quote"])


def _quote(quote: Json) -> Json:
    return {
        "t": symbols.moment(quote["time"]),
        "ap": quote["ask"],
        "as": quote["ask_size"],
        "ax": "V",
        "bp": quote["bid"],
        "bs": quote["bid_size"],
        "bx": "V",
        "c": ["R"],
        "z": "C",
    }


def _trade(quote: Json) -> Json:
    return {
        "t": symbols.moment(quote["time"]),
        "p": quote["last"],
        "s": quote["last_size"],
        "x": "V",
        "i": int(quote["time"] * 1000) % 10**12,
        "c": ["@"],
        "z": "C",
    }


def _bar(at: str | None, row: Json, close: float, volume: int) -> Json:
    return {
        "t": at,
        "o": row["open"],
        "h": row["high"],
        "l": row["low"],
        "c": close,
        "v": volume,
        "n": max(1, volume // 150),
        "vw": round((row["high"] + row["low"] + close) / 3, 4),
    }


def _minute_bar(quote: Json) -> Json:
    last = dict.fromkeys(("open", "high", "low"), quote["last"])
    return _bar(symbols.moment(quote["time"] // 60 * 60), last, quote["last"], quote["last_size"])


def _daily_bar(row: Json) -> Json:
    day = datetime.strptime(row["date"], "%Y%m%d").replace(tzinfo=EASTERN)
    return _bar(day.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), row, row["close"], row["volume"])


async def _snapshot(session: AccountSession, instrument: Instrument) -> Json:
    quote = await _look(session, instrument)
    yesterday = datetime.fromtimestamp(quote["time"], EASTERN) - timedelta(days=1)
    before = (await session.call("history", conid=instrument.conid, days=1, end=yesterday.timestamp()))[
        "bars"
    ]
    today = datetime.fromtimestamp(quote["time"], EASTERN).replace(hour=0, minute=0, second=0, microsecond=0)
    opened = today.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "latestTrade": _trade(quote),
        "latestQuote": _quote(quote),
        "minuteBar": _minute_bar(quote),
        "dailyBar": _bar(opened, quote, quote["last"], quote["volume"]),
        "prevDailyBar": _daily_bar(before[-1]),
    }


def _day(query: Query, name: str, usual: date) -> date:
    written = query.get(name)
    if not written:
        return usual
    try:
        return datetime.fromisoformat(written).date()
    except ValueError:
        raise malformed(f"{name} is not a date: {written}") from None
