"""The simulated broker's venue: its book lives in its process, and dies with it."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from broker.base import BaseBroker
from broker.errors import BrokerError
from broker.models import Order
from soak.venue import PRICE, Venue


class InProcessVenue(Venue):
    """Looks into the living broker's book, past its interface."""

    complete = False

    def __init__(self) -> None:
        super().__init__("simulated")
        self._broker: Any = None
        self._executions: list[dict[str, Any]] = []
        self._prices = dict.fromkeys(("AAPL", "MSFT"), PRICE)

    def attach(self, broker: BaseBroker) -> None:
        """A new process: a new, empty book, at the market's prices. Its trades are overheard."""
        self._broker = broker
        executions = self._executions = []
        book, trade = self._broker._book, self._broker._book.trade

        def overheard(order: Order, price: float) -> None:
            trade(order, price)
            executions.append(
                {"order_ref": order.client_order_id, "quantity": order.qty, "time": time.time()}
            )

        book.trade = overheard
        for symbol, price in self._prices.items():
            self.set_price(symbol, price)

    def set_price(self, symbol: str, price: float) -> None:
        """Fix a price. If the process dies of it, the next one finds it all the same."""
        self._prices[symbol] = price
        with contextlib.suppress(BrokerError):
            self._broker.set_price(symbol, price)

    def orders(self) -> list[dict[str, Any]]:
        """What rests in the book."""
        with self._broker._lock:
            resting = list(self._broker._book.resting.values())
        return [
            {
                "order_ref": item.order.client_order_id,
                "status": "Submitted",
                "filled": item.order.filled_qty,
                "quantity": item.order.qty,
                "limit_price": item.order.limit_price,
            }
            for item in resting
        ]

    def executions(self) -> list[dict[str, Any]]:
        """The trades of the living book; those of an earlier one ended with it, as what it held did."""
        with self._broker._lock:
            return list(self._executions)

    def positions(self) -> dict[str, float]:
        """What is held."""
        with self._broker._lock:
            return {s: h.qty for s, h in self._broker._book.holdings.items() if h.qty}


def venue_for(kind: str) -> Venue:
    """The venue that a broker trades at."""
    return InProcessVenue() if kind == "simulated" else Venue(kind)
