"""Orders that depend on other orders: legs that wait for their entry, and groups of which one fills.

IBKR's attached orders become active in proportion: a leg may trade what its entry has filled. When an
entry that has filled in part is cancelled, its legs stay for that part (inferred: they protect it).
Alpaca's legs wait until the entry "is completely filled" (docs.alpaca.markets, "Bracket Orders").
"""

from __future__ import annotations

from localcloud.exchange.engine import Exchange
from localcloud.exchange.models import FILLED, WORKING, Order

#: `Order.group_type` (TWS API, "One Cancels All", ocaType): any fill ends the others of the group;
#: 2 and 3 reduce them by what has filled
CANCEL_WITH_BLOCK = 1


def tradable(exchange: Exchange, order: Order) -> float:
    """The quantity of an order that may trade now."""
    if order.parent is None:
        return order.remaining
    entry = exchange.orders[order.parent]
    if entry.status == FILLED:
        return order.remaining
    if not entry.filled or waits_for_all(exchange, order):
        return 0.0
    missing = entry.remaining if entry.status in WORKING else 0.0
    return max(0.0, round(order.remaining - missing, 9))


def waits_for_all(exchange: Exchange, leg: Order) -> bool:
    """Whether a leg is of a kind that waits until its entry has filled completely."""
    return exchange.accounts[leg.account].kind == "alpaca"


def waits_for_entry(exchange: Exchange, order: Order) -> bool:
    """Whether an order has to wait for (more of) its entry."""
    return order.parent is not None and not tradable(exchange, order)


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


def legs_left(exchange: Exchange, ended: Order) -> list[Order]:
    """Legs that stay, for what their entry had filled when it ended."""
    return [leg for leg in legs_of(exchange, ended) if ended.filled and not waits_for_all(exchange, leg)]


def depending_on(exchange: Exchange, ended: Order) -> list[Order]:
    """What ends with an order: its partners, and the legs that will never be sent now."""
    staying = {leg.perm_id for leg in legs_left(exchange, ended)}
    legs = [] if ended.status == FILLED else legs_of(exchange, ended)
    found = [*partners_of(exchange, ended), *legs]
    return [order for order in found if order.status in WORKING and order.perm_id not in staying]
