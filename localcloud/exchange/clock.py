"""The exchange's clock and its opening hours.

The clock is the machine's, moved by an offset or frozen (`set`), so that a test or a person can look at a
weekend, at midnight or at a closing bell. Hours are `open` (always; the demo's default) or `calendar`, the
New York Stock Exchange's with holidays, half days and daylight saving (exchange_calendars, XNYS).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

EASTERN = ZoneInfo("America/New_York")
Hours = Literal["open", "calendar"]
EXTENDED_OPEN_HOUR, EXTENDED_CLOSE_HOUR = 4, 20


@dataclass
class Clock:
    """Seconds since the epoch, as the exchange sees them."""

    offset: float = 0.0
    frozen: float | None = None

    def now(self) -> float:
        """The current time in seconds since the epoch (UTC)."""
        return self.frozen if self.frozen is not None else time.time() + self.offset

    def set(self, at: float | None, *, frozen: bool = False) -> None:
        """Moves the clock to `at` (seconds since the epoch) and lets it run on, or stand still.

        None: real time.
        """
        self.offset = 0.0 if at is None else at - time.time()
        self.frozen = at if frozen else None

    def eastern(self) -> datetime:
        """The current time in New York, whose midnight is the brokerage day's."""
        return datetime.fromtimestamp(self.now(), EASTERN)

    def day(self) -> str:
        """The current brokerage day as YYYYMMDD."""
        return self.eastern().strftime("%Y%m%d")

    def midnight(self) -> float:
        """When the current brokerage day began, in seconds since the epoch."""
        return self.eastern().replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


@dataclass
class MarketHours:
    """When the exchange matches orders."""

    hours: Hours = "open"
    _calendar: Any = field(default=None, repr=False)

    def is_open(self, at: float, *, extended: bool = False) -> bool:
        """Whether orders match at `at`; `extended`: orders that are allowed outside regular hours."""
        if self.hours == "open":
            return True
        session = self.session(datetime.fromtimestamp(at, EASTERN).date())
        if session is None:
            return False
        opens, closes = session
        if extended:
            opens = opens.replace(hour=EXTENDED_OPEN_HOUR, minute=0)
            closes = closes.replace(hour=EXTENDED_CLOSE_HOUR, minute=0)
        return opens.timestamp() <= at < closes.timestamp()

    def session(self, day: date) -> tuple[datetime, datetime] | None:
        """Opening and closing time of `day` in New York, or None on a holiday or weekend."""
        if self.hours == "open":
            start = datetime(day.year, day.month, day.day, tzinfo=EASTERN)
            return start, start.replace(hour=23, minute=59)
        if self._calendar is None:
            # Imported here: it costs more than a second, and the default hours don't need it.
            import exchange_calendars

            self._calendar = exchange_calendars.get_calendar("XNYS")
        if not self._calendar.is_session(day.isoformat()):
            return None
        opens = self._calendar.session_open(day.isoformat())
        closes = self._calendar.session_close(day.isoformat())
        return opens.to_pydatetime().astimezone(EASTERN), closes.to_pydatetime().astimezone(EASTERN)

    def next_open(self, at: float) -> float:
        """When the market opens next, in seconds since the epoch; `at` itself while it is open."""
        return at if self.is_open(at) else self.following_open(at)

    def following_open(self, at: float) -> float:
        """When the next session begins after `at`, whether or not the market is open now."""
        day = datetime.fromtimestamp(at, EASTERN).date()
        for ahead in range(12):
            session = self.session(day + timedelta(days=ahead))
            if session is not None and session[0].timestamp() > at:
                return session[0].timestamp()
        raise ValueError(f"no session of the calendar within 12 days of {day}")

    def close_of(self, at: float) -> float:
        """When a DAY order that is placed at `at` expires.

        The closing bell, or midnight of an open market.
        """
        day = datetime.fromtimestamp(at, EASTERN).date()
        if self.hours == "open":
            following = day + timedelta(days=1)
            return datetime(following.year, following.month, following.day, tzinfo=EASTERN).timestamp()
        session = self.session(day)
        if session is not None and at < session[1].timestamp():
            return session[1].timestamp()
        opening = datetime.fromtimestamp(self.next_open(at), EASTERN).date()
        following_session = self.session(opening)
        assert following_session is not None, "next_open returned a day without a session"
        return following_session[1].timestamp()

    def schedule(self, at: float, *, liquid: bool, days: int = 5) -> str:
        """The hours as contract details carry them: `20261123:0930-20261123:1600;20261126:CLOSED;...`."""
        first = datetime.fromtimestamp(at, EASTERN).date()
        return ";".join(self._day_text(first + timedelta(days=ahead), liquid) for ahead in range(days))

    def _day_text(self, day: date, liquid: bool) -> str:
        if self.hours == "open":
            following = day + timedelta(days=1)
            return f"{day:%Y%m%d}:0000-{following:%Y%m%d}:0000"
        session = self.session(day)
        if session is None:
            return f"{day:%Y%m%d}:CLOSED"
        if liquid:
            return f"{session[0]:%Y%m%d:%H%M}-{session[1]:%Y%m%d:%H%M}"
        return f"{day:%Y%m%d}:0400-{day:%Y%m%d}:2000"
