"""Whether to restart the gateway. The answer is nearly always no.

Every start is a login, a live login is a push to somebody's phone, and enough unanswered ones lock the
account. So a gateway is restarted only if it had logged in and then hangs on this machine: its API doesn't
even shake hands, again and again. One that waits for a person, has lost its link to IBKR, is in IBKR's
nightly reset or near its own daily restart is left alone: whatever is wrong with it, a restart here doesn't
cure.
"""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import ibc_log

FAILURES, HANGING_SECONDS = 5, 300  # looks in a row, and how long they must have lasted at least
SETTLING_SECONDS = 600  # after a login: a soft restart alone takes 60 to 90 s
HOURLY, DAILY = 1, 3
IBKR = ZoneInfo("America/New_York")
# IBKR's system status page, North America: Saturday to Thursday 23:45-00:45, Friday 23:00-03:00 Eastern.
RESET_BEGINS, RESET_MINUTES = (23, 40), 70
FRIDAY, FRIDAY_BEGINS, FRIDAY_MINUTES = 4, (22, 55), 250
RESTART_MINUTES_BEFORE, RESTART_MINUTES = 2, 20


def is_quiet(now, settings):
    """Whether the gateway may be away for a good reason at `now` (an aware datetime)."""
    eastern = now.astimezone(IBKR)
    own = now.astimezone(ZoneInfo(settings["time_zone"]))
    daily = datetime.strptime(settings["auto_restart_time"], "%I:%M %p")  # noqa: DTZ007 - a time of day
    weekly = datetime.strptime(settings["cold_restart_time"], "%H:%M")  # noqa: DTZ007
    margin = timedelta(minutes=RESTART_MINUTES_BEFORE)
    for days_ago in (0, 1, -1):  # -1: a window that begins before midnight, for a time just after it
        reset = midnight(eastern, days_ago)
        begins, minutes = (
            (FRIDAY_BEGINS, FRIDAY_MINUTES) if reset.weekday() == FRIDAY else (RESET_BEGINS, RESET_MINUTES)
        )
        if within(eastern, at(reset, *begins), minutes):
            return True
        day = midnight(own, days_ago)
        if within(own, at(day, daily.hour, daily.minute) - margin, RESTART_MINUTES):
            return True
        if day.weekday() == 6 and within(own, at(day, weekly.hour, weekly.minute) - margin, RESTART_MINUTES):
            return True
    return False


def midnight(now, days_ago):
    return (now - timedelta(days=days_ago)).replace(hour=0, minute=0, second=0, microsecond=0)


def at(day, hour, minute):
    return day.replace(hour=hour, minute=minute)


def within(now, begin, minutes):
    return begin <= now < begin + timedelta(minutes=minutes)


class Watchdog:
    """Counts looks that failed. `restarts` are the times of its own restarts, in seconds since the epoch."""

    def __init__(self, settings, restarts=()):
        self._settings = settings
        self.restarts = list(restarts)
        self.failures, self._since = 0, 0.0
        self._link_was_lost = False

    def consider(self, now, is_running, log, look):
        """None to leave the gateway alone, or why it is restarted. `now` is an aware datetime."""
        if look.handshake:
            self.failures, self._link_was_lost = 0, look.link_lost
            return None
        seconds = now.timestamp()
        hangs = (
            is_running
            and log.phase == ibc_log.LOGGED_IN
            and seconds - log.since >= SETTLING_SECONDS
            and not self._link_was_lost
            and not is_quiet(now, self._settings)
        )
        if not self.failures:
            self._since = seconds
        self.failures = self.failures + 1 if hangs else 0
        has_lasted = self.failures >= FAILURES and seconds - self._since >= HANGING_SECONDS
        if not has_lasted or not self._may_restart(seconds):
            return None
        lasted = int(seconds - self._since)
        self.failures = 0
        self.restarts.append(seconds)
        return f"its API hasn't shaken hands for {lasted} s ({look.detail})"

    def _may_restart(self, seconds):
        self.restarts = [then for then in self.restarts if seconds - then < 86400]
        hourly = [then for then in self.restarts if seconds - then < 3600]
        return len(hourly) < HOURLY and len(self.restarts) < DAILY
