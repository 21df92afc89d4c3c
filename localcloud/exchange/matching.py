"""Which part of an order trades against a quote, and at what price. Pure: nothing here changes an order."""

from __future__ import annotations

from dataclasses import dataclass

from localcloud.exchange.market import Quote, round_to_tick
from localcloud.exchange.models import WAITS_FOR_TRIGGER, Order


@dataclass(frozen=True)
class Fill:
    """A quantity that trades at a price.

    `liquidity`: 1 adds, 2 removes (TWS API, Execution.lastLiquidity).
    """

    quantity: float
    price: float
    liquidity: int


def is_triggered(order: Order, quote: Quote) -> bool:
    """Whether a stop order's trigger has been reached; orders without a stop price always are."""
    if order.triggered or order.order_type not in WAITS_FOR_TRIGGER:
        return True
    assert order.stop_price is not None, "a stop order was accepted without a stop price"
    return quote.last >= order.stop_price if order.side == "BUY" else quote.last <= order.stop_price


def trailed(order: Order, quote: Quote, tick: float) -> tuple[float, float]:
    """A trailing order's high-water mark (low for a purchase) and stop price after `quote`."""
    best = quote.last if order.high_water is None else order.high_water
    best = max(best, quote.last) if order.side == "SELL" else min(best, quote.last)
    distance = order.trail_amount or best * (order.trail_percent or 0.0) / 100
    return best, round_to_tick(best - distance if order.side == "SELL" else best + distance, tick)


def match(order: Order, quote: Quote, *, resting: bool, largest_fill: float | None = None) -> Fill | None:
    """What trades of `order` now, or None.

    An order trades at the other side's price, for at most the displayed size. `resting` orders, which were in
    the book before this quote, trade at their limit as makers do. `largest_fill` caps a fill (a fault that
    forces partial fills).
    """
    price, size = (quote.ask, quote.ask_size) if order.side == "BUY" else (quote.bid, quote.bid_size)
    limited = order.order_type in ("LMT", "STP LMT")
    if limited:
        assert order.limit_price is not None, "a limit order was accepted without a limit price"
        if (price - order.limit_price) * order.sign > 1e-9:
            return None
    quantity = min(order.remaining, float(size) if largest_fill is None else min(size, largest_fill))
    if order.tif == "FOK" and quantity < order.remaining:
        return None
    if quantity <= 0:
        return None
    if limited and resting:
        return Fill(quantity, order.limit_price or price, 1)
    return Fill(quantity, price, 2)
