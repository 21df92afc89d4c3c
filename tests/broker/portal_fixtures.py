"""Fixtures of the tests of `ClientPortalBroker`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.brokers.client_portal import ClientPortalBroker
from broker.brokers.client_portal.pacing import Limits
from broker.journal import Journal
from tests.broker.paper_gateway import eventually
from tests.broker.portal_gateway import Portal, portal_gateway

#: the paper gateway's limits are off where they aren't what is tested, so nobody waits for them
QUICK = Limits(requests=1000, reserved=0, window=1.0, lists=0.05, tickle=0.05)
Make = Callable[..., ClientPortalBroker]


@pytest.fixture
def portal() -> Iterator[Portal]:
    """A logged-in gateway over TLS, with a tap."""
    with portal_gateway() as made:
        yield made


@pytest.fixture
def make_portal_broker(journal: Journal) -> Iterator[Make]:
    """Makes brokers on a gateway, and disconnects them."""
    made: list[ClientPortalBroker] = []

    def make(portal: Portal, **options: Any) -> ClientPortalBroker:
        defaults: dict[str, Any] = {
            "url": portal.url,
            "ca_file": portal.ca_file,
            "trading_mode": "paper",
            "timeout": 3.0,
            "heartbeat": 0.5,
            "limits": QUICK,
        }
        made.append(ClientPortalBroker(options.pop("journal", journal), **(defaults | options)))
        return made[-1]

    yield make
    for broker in made:
        broker.disconnect()


@pytest.fixture
def ibeam(portal: Portal, make_portal_broker: Make) -> ClientPortalBroker:
    """A connected broker whose websocket is there."""
    broker = make_portal_broker(portal)
    broker.connect()
    eventually(lambda: broker.health().details["websocket"], "the websocket is open")
    return broker
