"""From settings to a guard: what is declared of the connection, and which gateway it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.journal import Journal
from broker.risk.guard import POSITION_LAG, Guard, Refused
from broker.risk.live import Gateway
from broker.risk.modes import Declared

if TYPE_CHECKING:
    from broker.factory import BrokerSettings


def declared(settings: BrokerSettings) -> Declared:
    """What the settings say about paper and live."""
    kind = settings.broker_type
    if kind == "alpaca":
        mode = "paper" if settings.alpaca_paper else "live"
        return Declared(kind, mode, endpoint=settings.alpaca_endpoint)
    return Declared(kind, settings.trading_mode, port=settings.gateway_port if kind == "ibkr" else 0)


def gateway(settings: BrokerSettings) -> Gateway:
    """What orders go through, as a verification names it."""
    kind = settings.broker_type
    if kind == "alpaca":
        own = "https://paper-api.alpaca.markets" if settings.alpaca_paper else "https://api.alpaca.markets"
        return Gateway(kind, (settings.alpaca_endpoint or own).rstrip("/"))
    if kind == "simulated":
        return Gateway(kind, "in process")
    if kind == "ibeam":
        # An address is given to another machine some day, a machine's own certificate isn't.
        own = f" with certificate {settings.ibeam_certificate[:16]}" if settings.ibeam_certificate else ""
        return Gateway(kind, settings.ibeam_url.rstrip("/") + own)
    return Gateway(kind, f"{settings.gateway_host}:{settings.gateway_port}")


def guard_for(settings: BrokerSettings, journal: Journal, *, refused: Refused | None = None) -> Guard:
    """The guard for a broker of these settings. Its `attach` is to be called with the broker."""
    return Guard(
        journal,
        declared(settings),
        gateway(settings),
        settings.limits,
        verification_days=settings.verification_days,
        # The simulated book's positions are those of its fills; others may be a moment behind.
        position_lag=0.0 if settings.broker_type == "simulated" else POSITION_LAG,
        refused=refused,
    )
