"""The simulated broker's market and book: prices from a seed, holdings, and when orders trade.

Pure bookkeeping: nothing here knows the journal or the broker interface.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from datetime import datetime

from broker.errors import InsufficientFunds
from broker.models import Order

#: where the random walk begins, in dollars
START_PRICES = {
    "AAPL": 190.0,
    "AMZN": 180.0,
    "BRK.B": 450.0,
    "GOOGL": 170.0,
    "MSFT": 420.0,
    "NVDA": 120.0,
    "QQQ": 480.0,
    "SPY": 560.0,
    "TSLA": 240.0,
}
#: one step of the walk a second; 0.0002 a second is about 3 per cent a trading day
_STEP = 0.0002
HALF_SPREAD = 0.01


@dataclass
class Market:
    """Prices of all symbols: a random walk that the seed fixes, one step a second."""

    seed: int
    started: datetime
    prices: dict[str, float] = field(default_factory=lambda: dict(START_PRICES))
    steps: int = 0
    fixed: set[str] = field(default_factory=set)

    def advance(self, now: datetime) -> None:
        """Walk to `now`."""
        wanted = int((now - self.started).total_seconds())
        # A process that slept for a day takes the last hour's steps, not 86,400 of them.
        self.steps = max(self.steps, wanted - 3600)
        while self.steps < wanted:
            self.steps += 1
            drawn = random.Random(f"{self.seed}/{self.steps}")
            for symbol in START_PRICES:
                move = math.exp(drawn.gauss(0, _STEP))
                if symbol not in self.fixed:
                    self.prices[symbol] *= move


@dataclass
class Holding:
    """Shares, short ones negative, and what one cost on average."""

    qty: float = 0.0
    cost: float = 0.0


@dataclass
class Resting:
    """An order in the book."""

    order: Order
    #: a stop order's price was reached, so that it trades as a market or limit order now
    triggered: bool = False
    #: the best price since a trailing order was placed
    best: float | None = None


class Book:
    """Cash, holdings and resting orders of one account."""

    def __init__(self, cash: float, market: Market) -> None:
        self.cash = cash
        self.market = market
        self.holdings: dict[str, Holding] = {}
        self.resting: dict[str, Resting] = {}

    def value(self) -> float:
        """Cash and holdings at the walk's prices, in dollars."""
        return self.cash + sum(h.qty * self.market.prices[s] for s, h in self.holdings.items())

    def check_funds(self, order: Order) -> None:
        """Raises `InsufficientFunds` for a purchase that the cash doesn't cover."""
        price = self.market.prices[order.symbol]
        owned = self.holdings.get(order.symbol, Holding()).qty
        needed = (order.qty - order.filled_qty) * (order.limit_price or price)
        if order.side == "buy" and needed > self.cash + max(-owned, 0.0) * price:
            raise InsufficientFunds(f"insufficient buying power: {needed:.2f} needed, {self.cash:.2f} held")

    def shares_for(self, notional: float, symbol: str, side: str) -> float:
        """How many shares an amount of money is, to nine places and never more than the amount."""
        price = self.market.prices[symbol] + (HALF_SPREAD if side == "buy" else -HALF_SPREAD)
        return math.floor(notional / price * 1e9) / 1e9

    def crossed(self, resting: Resting) -> float | None:
        """The price at which an order trades now, or None."""
        order = resting.order
        if order.parent_id in self.resting or not self._awake(resting):
            return None
        price = self.market.prices[order.symbol]
        if order.side == "buy":
            ask = price + HALF_SPREAD
            return ask if order.limit_price is None or order.limit_price >= ask else None
        bid = price - HALF_SPREAD
        return bid if order.limit_price is None or order.limit_price <= bid else None

    def _awake(self, resting: Resting) -> bool:
        order, price = resting.order, self.market.prices[resting.order.symbol]
        stop, rises = order.stop_price, order.side == "buy"
        if order.order_type == "trailing_stop":
            best = price if resting.best is None else resting.best
            resting.best = best = min(best, price) if rises else max(best, price)
            distance = order.trail_amount or best * (order.trail_percent or 0.0) / 100
            stop = best + distance if rises else best - distance
        if stop is not None and (price >= stop if rises else price <= stop):
            resting.triggered = True
        return stop is None or resting.triggered

    def trade(self, order: Order, price: float) -> None:
        """All of an order trades."""
        signed = order.qty if order.side == "buy" else -order.qty
        holding = self.holdings.setdefault(order.symbol, Holding())
        after = round(holding.qty + signed, 9)
        if holding.qty == 0 or holding.qty * signed > 0:
            holding.cost = (holding.qty * holding.cost + signed * price) / after
        elif after * holding.qty < 0:
            holding.cost = price
        holding.qty = after
        self.cash -= signed * price
        self.resting.pop(order.id, None)

    def ends_with(self, order: Order, filled: bool) -> list[Order]:
        """What ends with an order: its legs if it never filled, and the other leg of its bracket."""
        return [
            other.order
            for other in self.resting.values()
            if (other.order.parent_id == order.id and not filled)
            or (order.parent_id is not None and other.order.parent_id == order.parent_id)
        ]
