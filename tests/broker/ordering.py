"""What tests say often about orders."""

from __future__ import annotations

from typing import Any

from broker.base import BaseBroker
from broker.journal import Journal
from broker.models import Order, OrderRequest
from tests.broker.paper_gateway import eventually


def request(**changes: Any) -> OrderRequest:
    """An order of five AAPL at the market, changed as said."""
    values: dict[str, Any] = {"symbol": "AAPL", "side": "buy", "qty": 5, "order_type": "market"}
    return OrderRequest(**(values | changes))


def unsent(journal: Journal, account: str, asked: OrderRequest, **options: Any) -> Order:
    """An order that was entered and, as its sender knows, didn't leave; or the one that is there."""
    order, entered = journal.enter(account, asked, **options)
    if entered:
        journal.mark_unsent(order.id)
    return journal.get(account, order.id)


def settled(broker: BaseBroker, order: Order, status: str) -> Order:
    """The order once it has the status."""

    def found() -> Order | None:
        current = broker.get_order(order.id)
        return current if current.status == status else None

    result: Order = eventually(found, f"order {order.id} is {status}")
    return result
