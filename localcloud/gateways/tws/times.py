"""Times as the TWS API writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

EASTERN = ZoneInfo("America/New_York")
TIME = re.compile(r"(\d{8})([ -]) *(\d\d:\d\d:\d\d)(?: (\S+))?")


def parse(text: str) -> datetime:
    """`20261120 16:00:00 US/Eastern`, `20261120 16:00:00` (New York) or `20261120-21:00:00` (UTC).

    Raises ValueError.
    """
    match = TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time of the TWS API")
    try:
        zone = ZoneInfo(match[4]) if match[4] else (UTC if match[2] == "-" else EASTERN)
    except ZoneInfoNotFoundError as error:
        raise ValueError(f"{match[4]!r} is not a time zone") from error
    return datetime.strptime(f"{match[1]} {match[3]}", "%Y%m%d %H:%M:%S").replace(tzinfo=zone)


def write(seconds: float) -> str:
    """Seconds since the epoch as `20261120 16:00:00 US/Eastern`."""
    return datetime.fromtimestamp(seconds, EASTERN).strftime("%Y%m%d %H:%M:%S US/Eastern")
