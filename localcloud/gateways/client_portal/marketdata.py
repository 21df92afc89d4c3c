"""Quotes and history. A first snapshot only starts the data: it holds contract ids and nothing else."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request

from localcloud.gateways.client_portal.errors import Refusal, accounts_first
from localcloud.gateways.client_portal.gateway import Gateway, Json, body, whole

MOST_CONIDS = 100
DEFAULT_FIELDS = ("31", "84", "86")
_AVAILABILITY = {"live": "RpB", "delayed": "DPB", "none": "N", "competing": "N"}
# What a period of /marketdata/history comes to in weekdays.
_PERIOD_DAYS = {"d": 1, "w": 5, "m": 21, "y": 252}


def price(amount: float) -> str:
    """`1300.5` -> `"1,300.50"`: values are text with thousands separators."""
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:,.4f}"


def quote_fields(contract: Json, quote: Json, entitlement: str, fields: list[str]) -> Json:
    """The asked fields of a snapshot or a subscription, by number, as text.

    31 last, 84/86 bid and ask, 88/85 their sizes, 7059 last size, 70/71 high and low, 82/83 change since the
    close, 87 volume, 7295 open, 7296/7741 the close before, 55 symbol, 7051 company, 6004 exchange,
    6070 kind.
    """
    change = quote["last"] - quote["close"]
    known = {
        "31": price(quote["last"]),
        "84": price(quote["bid"]),
        "86": price(quote["ask"]),
        "88": f"{quote['bid_size']:,}",
        "85": f"{quote['ask_size']:,}",
        "7059": f"{quote['last_size']:,}",
        "70": price(quote["high"]),
        "71": price(quote["low"]),
        "82": f"{change:+.2f}",
        "83": f"{change / quote['close'] * 100:.2f}",
        "87": f"{quote['volume']:,}",
        "7762": str(quote["volume"]),
        "7295": price(quote["open"]),
        "7296": price(quote["close"]),
        "7741": price(quote["close"]),
    }
    if entitlement in ("none", "competing"):
        known = {}
    known |= {
        "55": contract["symbol"],
        "58": contract["name"],
        "6004": contract["primary_exchange"],
        "6070": contract["sec_type"],
        "6509": _AVAILABILITY[entitlement],
        "7051": contract["name"],
    }
    return {number: known[number] for number in fields if number in known}


async def snapshot(gateway: Gateway, request: Request) -> Any:
    """GET /iserver/marketdata/snapshot?conids=..&fields=31,84,86."""
    session, query = gateway.session, request.query_params
    session.require()
    if not session.accounts_asked:
        raise accounts_first()
    conids = [whole(conid, "conids") for conid in query.get("conids", "").split(",") if conid]
    if not conids or len(conids) > MOST_CONIDS:
        raise Refusal(400, f"Bad Request: between 1 and {MOST_CONIDS} conids are required")
    fields = [field for field in query.get("fields", "").split(",") if field] or list(DEFAULT_FIELDS)
    rows: list[Json] = []
    for conid in conids:
        contract = await gateway.contract(conid)
        row: Json = {"conidEx": str(conid), "conid": conid}
        if conid in session.snapshots_asked:
            answer = await session.call("quote", conid=conid)
            shown = quote_fields(contract, answer["quote"], answer["entitlement"], [*fields, "6509"])
            row |= {**shown, "server_id": f"q{len(rows)}", "_updated": int(time.time() * 1000), "6119": "q0"}
        session.snapshots_asked.add(conid)
        rows.append(row)
    return rows


async def unsubscribe_all(gateway: Gateway, request: Request) -> Any:
    """GET /iserver/marketdata/unsubscribeall: the next snapshot is a first one again."""
    gateway.session.require()
    gateway.session.snapshots_asked.clear()
    return {"unsubscribed": True}


async def unsubscribe(gateway: Gateway, request: Request) -> Any:
    """POST /iserver/marketdata/unsubscribe."""
    gateway.session.require()
    gateway.session.snapshots_asked.discard(whole(str((await body(request)).get("conid")), "conid"))
    return {"success": True}


def _days(period: str) -> int:
    """`"2w"` -> 10 weekdays."""
    number, unit = period[:-1], period[-1:]
    if not number.isdigit() or unit not in _PERIOD_DAYS:
        raise Refusal(500, f"Bad period: {period}")
    return max(1, int(number) * _PERIOD_DAYS[unit])


async def history(gateway: Gateway, request: Request) -> Any:
    """GET /iserver/marketdata/history?conid=..&period=1w&bar=1d. The paper exchange has daily bars only."""
    query = request.query_params
    if query.get("bar", "1d") != "1d":
        raise Refusal(500, "Chart data unavailable")
    conid, period = whole(query.get("conid", ""), "conid"), query.get("period", "1w")
    contract = await gateway.contract(conid)
    bars = (await gateway.session.call("history", conid=conid, days=_days(period)))["bars"]
    data = [
        {
            "o": bar["open"],
            "c": bar["close"],
            "h": bar["high"],
            "l": bar["low"],
            "v": bar["volume"] / 100,
            "t": int(datetime.strptime(bar["date"], "%Y%m%d").replace(tzinfo=UTC).timestamp() * 1000),
        }
        for bar in bars
    ]
    return {
        "symbol": contract["symbol"],
        "text": contract["name"],
        "priceFactor": 100,
        "startTime": f"{bars[0]['date']}-00:00:00",
        "timePeriod": period,
        "barLength": 86400,
        "mdAvailability": "S",
        "mktDataDelay": 0,
        "outsideRth": False,
        "volumeFactor": 100,
        "priceDisplayRule": 1,
        "priceDisplayValue": "2",
        "negativeCapable": False,
        "messageVersion": 2,
        "data": data,
        "points": len(data) - 1,
        "travelTime": 1,
    }
