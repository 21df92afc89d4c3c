"""One interface over several brokers.

    from broker import get_broker

    broker = get_broker()            # BROKER_TYPE decides: alpaca, ibkr, ibeam, simulated
    broker.place_limit_order("AAPL", 10, "buy", 150.0)

Names are imported when they are first used: the infrastructure program imports
`broker.fleet` only and must not pay for broker libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.base import BaseBroker, Capabilities
    from broker.factory import get_broker
    from broker.models import (
        AccountInfo,
        Clock,
        Fill,
        Health,
        Order,
        OrderEvent,
        OrderPreview,
        OrderRequest,
        Position,
        PositionChange,
        Quote,
    )

__all__ = [
    "AccountInfo",
    "BaseBroker",
    "Capabilities",
    "Clock",
    "Fill",
    "Health",
    "Order",
    "OrderEvent",
    "OrderPreview",
    "OrderRequest",
    "Position",
    "PositionChange",
    "Quote",
    "get_broker",
]

_HOMES = {
    "BaseBroker": "broker.base",
    "Capabilities": "broker.base",
    "get_broker": "broker.factory",
    "AccountInfo": "broker.models",
    "Clock": "broker.models",
    "Fill": "broker.models",
    "Health": "broker.models",
    "Order": "broker.models",
    "OrderEvent": "broker.models",
    "OrderPreview": "broker.models",
    "PositionChange": "broker.models",
    "OrderRequest": "broker.models",
    "Position": "broker.models",
    "Quote": "broker.models",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'broker' has no attribute {name!r}")
    return getattr(import_module(home), name)
