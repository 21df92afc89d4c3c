"""When the market is open: the exchange's calendar, and the broker's own hours where it gives them.

The migration plan's fixed UTC hours are wrong for half of the year (daylight saving) and on
holidays and half days, so nothing here compares hours of the day by hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from broker.models import Clock, iso

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

US_STOCKS = "XNYS"

#: names that TWS still gives some time zones
_OLD_ZONES = {"EST": "America/New_York", "EST5EDT": "America/New_York", "US/Eastern": "America/New_York"}
_SESSION = re.compile(r"(\d{8}):(\d{4})-(?:(\d{8}):)?(\d{4})")


@dataclass(frozen=True)
class Session:
    """One stretch of open market, in UTC."""

    opens: datetime
    closes: datetime


def clock_from_sessions(sessions: Sequence[Session], now: datetime) -> Clock | None:
    """The clock that the broker's own hours give, or None where they don't reach as far as `now`."""
    ahead = sorted((s for s in sessions if s.closes > now), key=lambda s: s.opens)
    if not ahead:
        return None
    current = ahead[0] if ahead[0].opens <= now else None
    later = [s for s in ahead if s.opens > now]
    closes = None
    if current is not None:
        closes = current.closes
        for session in later:  # a market that never closes comes as sessions that touch
            if session.opens - closes > timedelta(minutes=1):
                break
            closes = max(closes, session.closes)
        later = [s for s in later if s.opens > closes]
    elif later:
        closes = later[0].closes
    return Clock(
        time=now.isoformat(),
        is_open=current is not None,
        next_open=iso(later[0].opens) if later else None,
        next_close=iso(closes),
        source="broker",
    )


def parse_liquid_hours(text: str, zone_name: str) -> list[Session]:
    """The sessions in a contract's `liquidHours`, of which days marked CLOSED are none.

    Sample: `20261127:0930-20261127:1300;20261128:CLOSED`, zone `US/Eastern`. An end of `2400` or
    `2359` is the day's end. An unknown zone gives no sessions, so that the calendar is asked.
    """
    try:
        zone = ZoneInfo(_OLD_ZONES.get(zone_name, zone_name))
    except (ZoneInfoNotFoundError, ValueError):
        return []
    sessions = []
    for part in text.split(";"):
        match = _SESSION.fullmatch(part.strip())
        if match:
            start_day, start, end_day, end = match.groups()
            opens = _moment(start_day, start, zone)
            closes = _moment(end_day or start_day, end, zone)
            if closes > opens:
                sessions.append(Session(opens, closes))
    return sessions


def clock_from_calendar(now: datetime, exchange: str = US_STOCKS) -> Clock:
    """The clock that the exchange's calendar gives, half days and holidays included."""
    import pandas as pd

    calendar = _calendar(exchange)
    moment = pd.Timestamp(now.astimezone(UTC))
    is_open = bool(calendar.is_open_at_time(moment, side="left"))
    return Clock(
        time=now.isoformat(),
        is_open=is_open,
        next_open=calendar.next_open(moment).isoformat(),
        next_close=calendar.next_close(moment).isoformat(),
        source="calendar",
        exchange=exchange,
    )


@lru_cache(maxsize=4)
def _calendar(exchange: str) -> ExchangeCalendar:
    import exchange_calendars

    return exchange_calendars.get_calendar(exchange)


def _moment(day: str, time: str, zone: ZoneInfo) -> datetime:
    midnight = datetime.strptime(day, "%Y%m%d").replace(tzinfo=zone)
    if time in ("2359", "2400"):
        return (midnight + timedelta(days=1)).astimezone(UTC)
    return midnight.replace(hour=int(time[:2]), minute=int(time[2:])).astimezone(UTC)
