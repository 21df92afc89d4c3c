"""Orders by their type: the plan's ways to place one. Each is `place_order` with its request spelt out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from broker.models import Order, OrderRequest


class OrderForms(ABC):
    """A part of `BaseBroker`."""

    @abstractmethod
    def place_order(self, request: OrderRequest) -> Order:
        """See `BaseBroker.place_order`."""

    def place_market_order(
        self, symbol: str, qty: float, side: str, *, client_order_id: str = "", time_in_force: str = "day"
    ) -> Order:
        """Place a market order. See `place_order`; without a client order id a fresh one is made."""
        return self.place_order(
            OrderRequest(
                symbol, side, qty, "market", client_order_id=client_order_id, time_in_force=time_in_force
            )
        )

    def place_limit_order(
        self,
        symbol: str,
        qty: float,
        side: str,
        limit_price: float,
        *,
        client_order_id: str = "",
        time_in_force: str = "day",
    ) -> Order:
        """Place a limit order. See `place_order`; without a client order id a fresh one is made."""
        return self.place_order(
            OrderRequest(
                symbol,
                side,
                qty,
                "limit",
                limit_price=limit_price,
                client_order_id=client_order_id,
                time_in_force=time_in_force,
            )
        )

    def place_stop_order(
        self,
        symbol: str,
        qty: float,
        side: str,
        stop_price: float,
        *,
        client_order_id: str = "",
        time_in_force: str = "day",
    ) -> Order:
        """Place an order that becomes a market order at `stop_price`. See `place_order`."""
        return self.place_order(
            OrderRequest(
                symbol,
                side,
                qty,
                "stop",
                stop_price=stop_price,
                client_order_id=client_order_id,
                time_in_force=time_in_force,
            )
        )

    def place_stop_limit_order(
        self,
        symbol: str,
        qty: float,
        side: str,
        stop_price: float,
        limit_price: float,
        *,
        client_order_id: str = "",
        time_in_force: str = "day",
    ) -> Order:
        """Place an order that becomes a limit order at `stop_price`. See `place_order`."""
        return self.place_order(
            OrderRequest(
                symbol,
                side,
                qty,
                "stop_limit",
                limit_price=limit_price,
                stop_price=stop_price,
                client_order_id=client_order_id,
                time_in_force=time_in_force,
            )
        )
