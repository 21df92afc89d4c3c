"""Our order types in TWS's words. Source: TWS API, "Basic Orders"."""

from __future__ import annotations

from typing import Any, Final

from broker.brokers.ibkr import library
from broker.models import Order

TWS_TYPES: Final = {
    "market": "MKT",
    "limit": "LMT",
    "stop": "STP",
    "stop_limit": "STP LMT",
    "trailing_stop": "TRAIL",
}
OUR_TYPES: Final = {theirs: ours for ours, theirs in TWS_TYPES.items()}
#: which of our fields an order of a type has as TWS's lmtPrice and auxPrice
LIMITED: Final = frozenset({"limit", "stop_limit"})
STOPPED: Final = frozenset({"stop", "stop_limit"})


def tws_order(order: Order) -> Any:
    """The order as TWS takes it, without its order id."""
    made = library.Order(
        action=order.side.upper(),
        totalQuantity=int(order.qty) if order.qty == int(order.qty) else order.qty,
        orderType=TWS_TYPES[order.order_type],
        tif=order.time_in_force.upper(),
        orderRef=order.client_order_id,
        account=order.account_id,
        outsideRth=order.extended_hours,
    )
    if order.order_type in LIMITED:
        made.lmtPrice = order.limit_price
    if order.order_type in STOPPED:
        made.auxPrice = order.stop_price
    if order.trail_amount is not None:
        made.auxPrice = order.trail_amount
    if order.trail_percent is not None:
        made.trailingPercent = order.trail_percent
    return made


def amount(value: Any) -> float | None:
    """A number of TWS, where "not set" is empty or the largest double; None then."""
    if value in (None, ""):
        return None
    number = float(value)
    return None if abs(number) > 1e300 or number != number else number
