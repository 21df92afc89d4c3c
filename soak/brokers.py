"""How each broker is made for a venue. What the deployments configure is set short: time is compressed."""

from __future__ import annotations

from collections.abc import Callable

from broker.base import BaseBroker
from broker.journal import Journal
from soak.venue import USER, Venue


def ibkr(venue: Venue, journal: Journal, port: int) -> BaseBroker:
    """Over TWS, with the heartbeat of a very nervous deployment."""
    from broker.brokers.ibkr import IBKRBroker

    return IBKRBroker(journal, port=port, trading_mode="paper", timeout=1.5, heartbeat=0.5)


def alpaca(venue: Venue, journal: Journal, port: int) -> BaseBroker:
    """Over Alpaca's REST API."""
    from broker.brokers.alpaca import AlpacaBroker

    return AlpacaBroker(
        journal,
        api_key=USER,
        secret_key=venue.password,
        paper=True,
        endpoint=f"http://127.0.0.1:{port}/trading",
    )


def simulated(venue: Venue, journal: Journal, port: int) -> BaseBroker:
    """In process: its book ends with it."""
    from broker.brokers.simulated import SimulatedBroker

    broker = SimulatedBroker(journal, account=venue.account, cash=venue.cash)
    broker.connect()
    for symbol in ("AAPL", "MSFT"):
        broker.set_price(symbol, 200.0)
    return broker


Build = Callable[[Venue, Journal, int], BaseBroker]

BUILD: dict[str, Build] = {"ibkr": ibkr, "alpaca": alpaca, "simulated": simulated}
