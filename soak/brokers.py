"""How each broker is made for a venue. What the deployments configure is set short: time is compressed."""

from __future__ import annotations

from collections.abc import Callable

from broker.base import BaseBroker
from broker.journal import Journal
from soak.certificate import certificate_file
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
        data_endpoint=f"http://127.0.0.1:{port}/data",
        stream_endpoint=f"ws://127.0.0.1:{port}/stream",
    )


def client_portal(venue: Venue, journal: Journal, port: int) -> BaseBroker:
    """Over a Client Portal gateway, verified TLS included."""
    from broker.brokers.client_portal import ClientPortalBroker
    from broker.brokers.client_portal.pacing import Limits

    return ClientPortalBroker(
        journal,
        url=f"https://127.0.0.1:{port}",
        ca_file=str(certificate_file(venue.folder)),
        account=venue.account,
        trading_mode="paper",
        timeout=2.0,
        heartbeat=0.5,
        # The venue keeps no limits, so that a schedule's minutes don't go by in waiting for them.
        limits=Limits(requests=1_000, window=1.0, lists=0.05, tickle=0.1, penalty=1.0),
    )


def simulated(venue: Venue, journal: Journal, port: int) -> BaseBroker:
    """In process: its book ends with it."""
    from broker.brokers.simulated import SimulatedBroker

    return SimulatedBroker(journal, account=venue.account, cash=venue.cash)


Build = Callable[[Venue, Journal, int], BaseBroker]

BUILD: dict[str, Build] = {
    "ibkr": ibkr,
    "alpaca": alpaca,
    "client_portal": client_portal,
    "simulated": simulated,
}
