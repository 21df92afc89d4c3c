"""What a broker can do, for callers to ask before they try."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    """What a broker can do beyond the plan's methods."""

    order_types: frozenset[str] = frozenset({"market", "limit"})
    times_in_force: frozenset[str] = frozenset({"day", "gtc"})
    fractional: bool = False
    quotes: bool = False
    #: only one process at a time may hold the connection, so a lease decides which
    exclusive: bool = False
    #: orders for an amount of money
    notional: bool = False
    replace: bool = False
    #: what an order would cost, without placing it
    preview: bool = False
    fills: bool = False
    #: fees that are booked for the account, not in a fill's commission
    fees: bool = False
    #: `subscribe` and `order_updates`
    stream: bool = False
    several_accounts: bool = False
    #: an entry with a take-profit and a stop-loss leg
    bracket: bool = False
    extended_hours: bool = False
