"""When IBKR is away by plan, as a condition under which an alert stays quiet.

IBKR resets its systems at night, from Saturday to Thursday 23:45 to 00:45 and on Friday 23:00 to 03:00, New
York time (its system status page, North America); a few minutes are added on both sides. An alert's query
knows UTC only, so a window here covers both of New York's offsets: it begins with summer's and ends with
winter's, an hour more than need be, at hours at which no American exchange is open. Restarts of the gateway
itself take minutes, less than the alerts wait: they need no window.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_WEEK = 7 * _DAY
# Hours that New York is behind UTC in summer and in winter.
_SUMMER, _WINTER = 4, 5
# The first Saturday after the epoch began, a Thursday, in seconds since it.
_SATURDAY = 2 * _DAY


@dataclass(frozen=True, slots=True)
class Window:
    """Seconds of a period in UTC: from `begins` until `ends` after each start of it, the first at
    `origin`.
    """

    period: int
    origin: int
    begins: int
    ends: int

    def covers(self, at: datetime) -> bool:
        """Whether a moment lies in it."""
        return self.begins <= (int(at.timestamp()) - self.origin) % self.period < self.ends

    def query(self) -> str:
        """PromQL that gives something while it lasts."""
        since = f"(time() - {self.origin}) % {self.period}" if self.origin else f"time() % {self.period}"
        return f"(vector({since}) >= {self.begins} < {self.ends})"


def _window(period: int, origin: int, begins: tuple[int, int], minutes: int) -> Window:
    """From New York's hour and minute, counted from the start of the day in UTC that it falls into."""
    hour, minute = begins
    start = hour * _HOUR + minute * _MINUTE - _DAY
    return Window(period, origin, start + _SUMMER * _HOUR, start + minutes * _MINUTE + _WINTER * _HOUR)


# As the VM's own watchdog has them (cloud-init/files/gateway/watchdog.py); a test compares.
NIGHTLY = _window(_DAY, 0, (23, 40), 70)
FRIDAY_NIGHT = _window(_WEEK, _SATURDAY, (22, 55), 250)
WINDOWS = (NIGHTLY, FRIDAY_NIGHT)


def unless_planned(query: str) -> str:
    """The query, which gives nothing while IBKR is away by plan."""
    return f"({query}) unless on() ({' or '.join(window.query() for window in WINDOWS)})"
