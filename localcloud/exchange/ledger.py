"""An account's money: cash, positions with average cost, margin and buying power.

Margin accounts follow IBKR's Reg T account in its simplest form: a long position needs 25 % of its value (the
maintenance requirement, which is what counts within the day), a short one 30 %, and buying power is four
times the available funds (IBKR, "Account window": Buying Power = 4 x Available Funds for margin accounts).
Cash accounts need 100 %, and can't sell short. Average cost includes commissions, as in TWS. Accounts of
kind `alpaca` are margin accounts that pay no commission (alpaca.markets, "Commission-free trading").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from localcloud.exchange.commissions import order_commission

LONG_REQUIREMENT = 0.25
SHORT_REQUIREMENT = 0.30
OVERNIGHT_REQUIREMENT = 0.50
LEVERAGE = 4.0
DUST = 1e-9

Kind = Literal["margin", "cash", "alpaca"]
PriceOf = Callable[[int], float]


@dataclass
class Position:
    """Shares held (negative.

    Short), average cost per share with commissions, and what closing parts realized.
    """

    conid: int
    quantity: float = 0.0
    average_cost: float = 0.0
    realized_pnl: float = 0.0

    def trade(self, sign: int, quantity: float, price: float, commission: float) -> float | None:
        """Applies a fill; returns the realized profit (after commission) if it closed anything, else None."""
        if self.quantity * sign >= 0:
            self._add(sign, quantity, price, commission)
            return None
        closing = min(quantity, abs(self.quantity))
        share = commission * closing / quantity
        realized = (price - self.average_cost) * closing * -sign - share
        self.quantity += sign * closing
        self.realized_pnl += realized
        if abs(self.quantity) < DUST:
            self.quantity = self.average_cost = 0.0
        if quantity > closing:
            self._add(sign, quantity - closing, price, commission - share)
        return realized

    def _add(self, sign: int, quantity: float, price: float, commission: float) -> None:
        cost = abs(self.quantity) * self.average_cost + quantity * price + sign * commission
        self.quantity += sign * quantity
        self.average_cost = cost / abs(self.quantity)


@dataclass
class Account:
    """One account in its base currency, USD."""

    id: str
    user: str
    kind: Kind = "margin"
    cash: float = 1_000_000.0
    previous_equity: float = 1_000_000.0
    equity_day: str = ""
    realized_today: float = 0.0
    positions: dict[int, Position] = field(default_factory=dict)

    def commission(self, quantity: float, average_price: float) -> float:
        """What an order of which `quantity` shares traded at `average_price` costs."""
        return 0.0 if self.kind == "alpaca" else order_commission(quantity, average_price)

    def position(self, conid: int) -> Position:
        """The position in a contract, empty if there never was one."""
        return self.positions.setdefault(conid, Position(conid))

    def open_positions(self) -> list[Position]:
        """Positions that hold anything."""
        return [item for item in self.positions.values() if item.quantity]

    def equity(self, price_of: PriceOf) -> float:
        """Net liquidation value."""
        return self.cash + sum(item.quantity * price_of(item.conid) for item in self.open_positions())

    def requirement(self, quantity: float, price: float) -> float:
        """Initial margin of holding `quantity` shares at `price`."""
        if self.kind == "cash":
            return max(0.0, quantity * price)
        return abs(quantity * price) * (LONG_REQUIREMENT if quantity > 0 else SHORT_REQUIREMENT)

    def margin(self, price_of: PriceOf) -> float:
        """Initial margin of all positions."""
        return sum(self.requirement(item.quantity, price_of(item.conid)) for item in self.open_positions())

    def available(self, price_of: PriceOf) -> float:
        """Funds that may back new positions: equity less margin, or cash in a cash account."""
        return self.cash if self.kind == "cash" else self.equity(price_of) - self.margin(price_of)

    def change_of_margin(self, conid: int, signed_quantity: float, price: float) -> float:
        """By how much the margin grows (negative: shrinks) when `signed_quantity` shares are traded."""
        held = self.position(conid).quantity
        return self.requirement(held + signed_quantity, price) - self.requirement(held, price)

    def start_day(self, day: str, price_of: PriceOf) -> None:
        """Remembers the equity with which a brokerage day begins."""
        self.equity_day, self.previous_equity, self.realized_today = day, self.equity(price_of), 0.0

    def summary(self, price_of: PriceOf) -> dict[str, Any]:
        """Everything that account summaries show; amounts in USD."""
        positions = self.open_positions()
        prices = {item.conid: price_of(item.conid) for item in positions}
        values = [item.quantity * prices[item.conid] for item in positions]
        equity, margin = self.cash + sum(values), self.margin(prices.__getitem__)
        available = self.cash if self.kind == "cash" else equity - margin
        gross = sum(abs(value) for value in values)
        unrealized = sum(v - p.quantity * p.average_cost for v, p in zip(values, positions, strict=True))
        leverage = 1.0 if self.kind == "cash" else LEVERAGE
        amounts = {
            "net_liquidation": equity,
            "equity_with_loan": equity,
            "previous_equity": self.previous_equity,
            "total_cash": self.cash,
            "settled_cash": self.cash,
            "accrued_cash": 0.0,
            "stock_value": sum(values),
            "gross_position_value": gross,
            "init_margin": margin,
            "maint_margin": margin,
            "available_funds": available,
            "excess_liquidity": available,
            "buying_power": max(0.0, available * leverage),
            "reg_t_equity": equity,
            "reg_t_margin": gross * OVERNIGHT_REQUIREMENT,
            "sma": equity - gross * OVERNIGHT_REQUIREMENT,
            "unrealized_pnl": unrealized,
            "realized_pnl": self.realized_today,
            "daily_pnl": equity - self.previous_equity,
        }
        rounded: dict[str, Any] = {name: round(amount, 2) for name, amount in amounts.items()}
        rounded["cushion"] = round(available / equity, 6) if equity > 0 else 0.0
        rounded["leverage"] = round(gross / equity, 2) if equity > 0 else 0.0
        return {"account": self.id, "currency": "USD", "kind": self.kind, **rounded}

    def as_row(self) -> dict[str, Any]:
        """What is stored of the account itself; positions are stored apart."""
        return {name: value for name, value in self.__dict__.items() if name != "positions"}
