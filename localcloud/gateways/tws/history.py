"""Historical data: daily bars, the only ones that the paper exchange has."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from localcloud.exchange.models import Refused
from localcloud.gateways.tws import contracts, times
from localcloud.gateways.tws.client import ApiClient
from localcloud.gateways.tws.codec import Request
from localcloud.gateways.tws.messages import Complaint

WEEKDAYS = {"D": 1, "W": 5, "M": 21, "Y": 252}
DAILY = frozenset({"1 day", "1D"})


async def request(client: ApiClient, request: Request) -> None:
    """Daily bars. Anything else is answered as the real service does when it has no data: error 162."""
    contract = await contracts.find_one(client, request)
    what = f"{contract['symbol']}@{request['exchange']} {request['whatToShow'].title()}"
    if request["barSize"] not in DAILY or request.flag("keepUpToDate"):
        raise Complaint(162, f"HMDS query returned no data: {what}")
    days = _days(request["duration"])
    end = _end(request["endDateTime"])
    try:
        answer = await client.gateway.brokerage.call(
            "history", conid=contract["conid"], days=days, end=None if end is None else end.timestamp()
        )
    except Refused as refusal:
        raise Complaint(162, f"HMDS query returned no data: {what} ({refusal.message})") from None
    bars: list[dict[str, Any]] = answer["bars"]
    until = times.write((end or client.gateway.brokerage.now()).timestamp())
    start = f"{bars[0]['date']} 00:00:00 US/Eastern"
    client.send("historicalData", reqId=request.integer("reqId"), start=start, end=until, bars=bars)


def _days(duration: str) -> int:
    """Weekdays in a duration such as `10 D` or `2 W`. Raises Complaint 321."""
    match = re.fullmatch(r"(\d+) ?([DWMY])", duration.strip())
    if match is None:
        raise Complaint(
            321, f"'bP' : cause - Historical data request for durations {duration!r} is not valid"
        )
    return max(1, int(match[1])) * WEEKDAYS[match[2]]


def _end(text: str) -> datetime | None:
    """The end of the period, None for now. Raises Complaint 321."""
    try:
        return times.parse(text) if text else None
    except ValueError as error:
        raise Complaint(321, f"'bP' : cause - {error}") from None
