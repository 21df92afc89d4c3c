"""What tests say often about orders."""

from __future__ import annotations

from typing import Any

from broker.base import BaseBroker
from broker.models import Order, OrderRequest
from tests.broker.paper_gateway import eventually


def request(**changes: Any) -> OrderRequest:
    """An order of five AAPL at the market, changed as said."""
    values: dict[str, Any] = {"symbol": "AAPL", "side": "buy", "qty": 5, "order_type": "market"}
    return OrderRequest(**(values | changes))


def settled(broker: BaseBroker, order: Order, status: str) -> Order:
    """The order once it has the status."""

    def found() -> Order | None:
        current = broker.get_order(order.id)
        return current if current.status == status else None

    result: Order = eventually(found, f"order {order.id} is {status}")
    return result
