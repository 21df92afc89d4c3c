"""Schedules as unix-cron writes them, in a time zone: five fields, each a list of values, ranges and steps.

cloud.google.com/scheduler/docs/configuring/cron-job-schedules; crontab(5): where both the day of the month
and the day of the week are restricted, a day that fits either is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PART = re.compile(r"(\*|\d+(?:-\d+)?)(?:/(\d+))?")
_LONGEST = timedelta(days=366 * 8)  # 29 February comes once in eight years at the worst


@dataclass(frozen=True)
class Schedule:
    """When a job runs."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime:
        """The first time after an aware moment, in UTC. Raises ValueError for a date that never comes."""
        # In UTC, where no hour is skipped or comes twice; looked at in the zone.
        found = moment.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        last = found + _LONGEST
        while found < last:
            here = found.astimezone(self.zone)
            if here.month not in self.months or not self._has(here) or here.hour not in self.hours:
                found += timedelta(minutes=60 - here.minute)
            elif here.minute not in self.minutes:
                found += timedelta(minutes=1)
            else:
                return found
        raise ValueError("the schedule names a date that never comes")

    def _has(self, moment: datetime) -> bool:
        day, weekday = moment.day in self.days, moment.isoweekday() % 7 in self.weekdays
        return day or weekday if self.either_day else day and weekday


def parse(text: str, time_zone: str = "Etc/UTC") -> Schedule:
    """Read a schedule. Raises ValueError that says what is wrong with it."""
    fields = text.lower().split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"a schedule has five fields, '*/5 * * * *' for example, and {text!r} {len(fields)}")
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {time_zone!r}") from None
    read = [_field(given, *known) for given, known in zip(fields, _FIELDS, strict=True)]
    weekdays = frozenset(day % 7 for day in read[4])
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    return Schedule(read[0], read[1], read[2], read[3], weekdays, either, zone)


def _field(text: str, name: str, low: int, high: int) -> frozenset[int]:
    names = {"month": (_MONTHS, 1), "weekday": (_WEEKDAYS, 0)}.get(name)
    if names:
        words, first = names
        for number, word in enumerate(words, first):
            text = re.sub(rf"\b{word}\b", str(number), text)
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if not match:
            raise ValueError(f"{part!r} isn't a {name}")
        begin, _, end = match[1].partition("-")
        first, last = (low, high) if begin == "*" else (int(begin), int(end or begin))
        if match[2] and begin != "*" and not end:
            last = high  # 5/15 is 5-59/15
        step = int(match[2] or 1)
        if not low <= first <= last <= high or step < 1:
            raise ValueError(f"{part!r} isn't a {name}, which goes from {low} to {high}")
        found.update(range(first, last + 1, step))
    return frozenset(found)
