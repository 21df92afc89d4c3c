"""What a case is given: a broker, and the book of the exchange that it trades at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from broker.base import BaseBroker
from broker.brokers.simulated import SimulatedBroker
from broker.models import Order, OrderRequest
from soak.venue import Venue


class Book(Protocol):
    """The exchange's own view, never our client's."""

    def orders(self) -> list[dict[str, Any]]: ...

    def executions(self) -> list[dict[str, Any]]: ...

    def positions(self) -> dict[str, float]: ...

    def set_price(self, symbol: str, price: float) -> None: ...


class InProcessBook:
    """The simulated broker's book is in its process: what it holds and lets rest, past its interface."""

    def __init__(self, broker: SimulatedBroker) -> None:
        self._broker = broker

    def orders(self) -> list[dict[str, Any]]:
        """From the journal, which the simulated book writes itself."""
        words = {
            "filled": "Filled",
            "submitted": "Submitted",
            "cancelled": "Cancelled",
            "accepted": "Submitted",
        }
        return [
            {
                "order_ref": order.client_order_id,
                "status": words[order.status],
                "filled": order.filled_qty,
                "quantity": order.qty,
                "limit_price": order.limit_price,
            }
            for order in self._broker.get_orders_history(1000)
            if order.status in words
        ]

    def executions(self) -> list[dict[str, Any]]:
        return [
            {"order_ref": fill.client_order_id, "quantity": fill.qty, "price": fill.price}
            for fill in self._broker.get_fills(limit=1000)
        ]

    def positions(self) -> dict[str, float]:
        return {p.symbol: p.qty for p in self._broker.get_positions()}

    def set_price(self, symbol: str, price: float) -> None:
        self._broker.set_price(symbol, price)


def book_of(broker: BaseBroker, venue: Venue) -> Book:
    return InProcessBook(broker) if isinstance(broker, SimulatedBroker) else venue


@dataclass(frozen=True)
class Desk:
    """A connected broker, with a symbol to trade and prices at which orders rest or trade."""

    broker: BaseBroker
    symbol: str
    #: far below what the symbol costs, so that a purchase rests
    resting_price: float

    def rest(self, client_order_id: str = "", qty: float = 5, price: float = 0.0) -> Order:
        """A purchase that nobody will serve."""
        return self.broker.place_limit_order(
            self.symbol,
            qty,
            "buy",
            price or self.resting_price,
            client_order_id=client_order_id,
            time_in_force="gtc",
        )

    def request(self, **changes: Any) -> OrderRequest:
        values: dict[str, Any] = {
            "symbol": self.symbol,
            "side": "buy",
            "qty": 5,
            "order_type": "limit",
            "limit_price": self.resting_price,
            "time_in_force": "gtc",
        }
        return OrderRequest(**(values | changes))

    def reaches(self, order: Order, *statuses: str) -> Order:
        """The order once it has one of the statuses: brokers tell of what happens a moment later."""
        return eventually(
            lambda: (found := self.broker.get_order(order.id)).status in statuses and found,
            lambda: f"{statuses}, but it is {self.broker.get_order(order.id)}",
        )

    def bought(self, qty: float = 5) -> Order:
        """Shares, and the order that brought them."""
        return self.reaches(self.broker.place_market_order(self.symbol, qty, "buy"), "filled")


def eventually(check: Callable[[], Any], why: Callable[[], str] | str, seconds: float = 15.0) -> Any:
    """The first true answer of `check`."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := check():
            return answer
        pause.wait(0.02)
    pytest.fail(f"never within {seconds:g} s: {why if isinstance(why, str) else why()}")
