"""The live lock: live trading stays locked until a verification has passed on that very gateway."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broker.errors import ConfigurationError, LiveLocked, shown
from broker.journal import Journal
from broker.risk.store import RiskStore, utc

#: days that a verification is good for: gateways are updated, and settings drift
VERIFICATION_DAYS = 30


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Gateway:
    """What an order goes through; another broker or address is another gateway.

    A client id isn't part of it: whoever verifies uses one of its own beside the service's.
    """

    broker: str
    #: host and port, or the API's endpoint
    address: str

    @property
    def fingerprint(self) -> str:
        """64 characters that stand for the gateway, and tell nothing of it."""
        return hashlib.sha256(f"{self.broker}\n{self.address}".encode()).hexdigest()


def record_verification(
    journal: Journal,
    account: str,
    gateway: Gateway,
    by: str,
    results: Mapping[str, bool],
    clock: Callable[[], datetime] = _now,
) -> bool:
    """Enter a verification's results by check. True if it passed: every check did, and there was one.

    A failed one locks live trading again. Raises `JournalUnavailable`.
    """
    passed = bool(results) and all(results.values())
    RiskStore(journal.engine, clock).record_verification(account, gateway.fingerprint, by, passed, results)
    return passed


def require_verified(
    store: RiskStore, account: str, gateway: Gateway, now: datetime, days: int = VERIFICATION_DAYS
) -> None:
    """Raise `LiveLocked`, which says what to run, unless the newest verification passed and holds still."""
    found = store.last_verification(account, gateway.fingerprint)
    run = (
        "run `make verify STACK=<the environment's stack>` (without a service: `python -m broker verify`), "
        "then send the order again"
    )
    where = f"live trading on account {account} through {gateway.broker} at {gateway.address} is locked"
    if found is None:
        raise LiveLocked(f"{where}: this gateway was never verified; {run}")
    when = utc(found.verified_at)
    if not found.passed:
        failed = ", ".join(sorted(name for name, passed in found.results.items() if not passed))
        raise LiveLocked(
            f"{where}: its verification of {when:%Y-%m-%d} failed ({failed or 'no checks'}); {run}"
        )
    # A time ahead of ours is no proof either.
    if not now - timedelta(days=days) <= when <= now + timedelta(minutes=5):
        raise LiveLocked(f"{where}: its verification of {when:%Y-%m-%d} holds for {days} days; {run}")


def verification_days(environment: Mapping[str, str]) -> int:
    """`LIVE_VERIFICATION_DAYS`. Raises `ConfigurationError`."""
    text = environment.get("LIVE_VERIFICATION_DAYS") or str(VERIFICATION_DAYS)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 365):
        said = f"LIVE_VERIFICATION_DAYS must be a whole number from 1 to 365, not {shown(text)}"
        raise ConfigurationError(said)
    return int(text)
