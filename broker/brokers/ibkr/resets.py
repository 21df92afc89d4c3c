"""When IBKR restarts its servers.

Source: interactivebrokers.com, "System Status", server reset times of North America: 23:45 to 00:45
on Saturday to Thursday, 23:00 to 03:00 on Friday, New York time. The gateway's own daily restart is
set to the same moment (IBC: AutoRestartTime).
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

NEW_YORK: Final = ZoneInfo("America/New_York")
FRIDAY: Final = 4
NIGHTLY, ON_FRIDAY = time(23, 45), time(23, 0)


def next_reset(now: datetime) -> datetime:
    """The next moment at which the servers go down, in New York's time."""
    today = now.astimezone(NEW_YORK)
    start = _start(today)
    return start if start > today else _start(today + timedelta(days=1))


def _start(day: datetime) -> datetime:
    moment = ON_FRIDAY if day.weekday() == FRIDAY else NIGHTLY
    return datetime.combine(day.date(), moment, NEW_YORK)
