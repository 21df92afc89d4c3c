"""When an account has a droplet at all: always, in a market's hours, or until it was idle for a while.

    always
    hours:XNYS      from a quarter of an hour before the exchange opens until it closes (exchange_calendars)
    idle:30         until nobody has used the connection for 30 minutes

Resting is hibernating: DigitalOcean bills a droplet that is merely switched off. A live login needs a person
at every start, so a live account rests only if its user says to know that. Nothing rests with working orders.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from broker.fleet.account import Account
from broker.market.hours import clock_from_calendar

LEAD = timedelta(minutes=15)
#: a start outside of the hours is somebody's wish, and holds for so long after the last use
AWAKE = timedelta(hours=1)
IDLE_MINUTES = (5, 7 * 24 * 60)

_POLICY = re.compile(r"always|hours:([A-Z0-9_]{2,12})|idle:([0-9]{1,5})")


class PolicyError(ValueError):
    """A policy can't be had: the message says why, and what can."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`calendar` or `idle` (minutes), or neither: always."""

    calendar: str = ""
    idle: int = 0


def parse_policy(text: str) -> Policy:
    """Raises PolicyError."""
    match = _POLICY.fullmatch(text)
    if not match:
        raise PolicyError(f"policy {text[:40]!r} is unknown: use always, hours:XNYS or idle:30 (minutes)")
    calendar, idle = match[1] or "", int(match[2] or 0)
    if match[2] and not IDLE_MINUTES[0] <= idle <= IDLE_MINUTES[1]:
        raise PolicyError(f"policy {text!r}: choose between {IDLE_MINUTES[0]} and {IDLE_MINUTES[1]} minutes")
    if calendar:
        from exchange_calendars import get_calendar_names

        if calendar not in get_calendar_names():
            raise PolicyError(f"policy {text!r}: there is no calendar {calendar}; XNYS is New York's")
    return Policy(calendar, idle)


def check_policy(text: str, environment: str, unattended_live: bool) -> None:
    """Raises PolicyError for a policy that this account can't have."""
    if parse_policy(text) != Policy() and environment == "live" and not unattended_live:
        raise PolicyError(
            f"policy {text!r} on a live account: somebody has to approve each login on the phone. "
            "Set unattended_live to true if you want it all the same"
        )


def rests(account: Account, now: datetime) -> str:
    """Why the account needs no droplet now: `resting`, `idle`, or an empty text."""
    policy = parse_policy(account.policy)
    if policy == Policy() or (account.environment == "live" and not account.unattended_live):
        return ""
    used = account.last_used_at or account.created_at
    if policy.idle:
        return "idle" if now - used >= timedelta(minutes=policy.idle) else ""
    if now - used < AWAKE or _open(policy.calendar, now.replace(second=0, microsecond=0)):
        return ""
    return "resting"


@lru_cache(maxsize=64)
def _open(calendar: str, minute: datetime) -> bool:
    """Whether a market is open or about to open. Cached: a pass asks for each of its accounts."""
    clock = clock_from_calendar(minute, calendar)
    if clock.is_open or clock.next_open is None:
        return True
    return datetime.fromisoformat(clock.next_open) - minute <= LEAD
