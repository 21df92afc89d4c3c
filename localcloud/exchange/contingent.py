"""Orders that depend on other orders: legs that wait for their entry, and groups of which one fills."""

from __future__ import annotations

from localcloud.exchange.engine import Exchange
from localcloud.exchange.models import FILLED, WORKING, Order


def waits_for_entry(exchange: Exchange, order: Order) -> bool:
    """Whether an order's entry hasn't filled completely yet."""
    return order.parent is not None and exchange.orders[order.parent].status != FILLED


def legs_of(exchange: Exchange, entry: Order) -> list[Order]:
    """Working orders that were sent, or will be, because `entry` fills."""
    return [order for order in exchange.working.values() if order.parent == entry.perm_id]


def partners_of(exchange: Exchange, order: Order) -> list[Order]:
    """The other working orders of an order's group."""
    if not order.group:
        return []
    return [
        other
        for other in exchange.working.values()
        if other.account == order.account and other.group == order.group and other.perm_id != order.perm_id
    ]


def depending_on(exchange: Exchange, ended: Order) -> list[Order]:
    """What ends with an order: its partners, and the legs that will never be sent now."""
    legs = [] if ended.status == FILLED else legs_of(exchange, ended)
    return [order for order in [*partners_of(exchange, ended), *legs] if order.status in WORKING]
