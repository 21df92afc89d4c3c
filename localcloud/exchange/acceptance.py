"""Whether the exchange takes an order: its form, and the account's means."""

from __future__ import annotations

import math

from localcloud.exchange.contingent import partners_of, tradable, waits_for_entry
from localcloud.exchange.engine import Exchange
from localcloud.exchange.ledger import LEVERAGE, Account
from localcloud.exchange.market import is_on_tick
from localcloud.exchange.models import ORDER_TYPES, TIMES_IN_FORCE, Order, Refused

LARGEST_QUANTITY = 10_000_000
_PRICES = {"LMT": ("limit_price",), "STP": ("stop_price",), "STP LMT": ("limit_price", "stop_price")}


class Acceptance:
    """Judges orders of one exchange; changes nothing."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def check(self, order: Order) -> None:
        """Refuses what no exchange would take. Raises Refused."""
        self.exchange.account(order.account)
        instrument = self.exchange.instrument(order.conid)
        if order.side not in ("BUY", "SELL"):
            raise Refused("invalid", f"side is BUY or SELL, not {order.side!r}")
        if order.order_type not in ORDER_TYPES:
            raise Refused("invalid", f"order type {order.order_type!r} is not one of {sorted(ORDER_TYPES)}")
        if order.tif not in TIMES_IN_FORCE:
            raise Refused("invalid", f"time in force {order.tif!r} is not one of {sorted(TIMES_IN_FORCE)}")
        if not math.isfinite(order.quantity) or not 0 < order.quantity <= LARGEST_QUANTITY:
            raise Refused("invalid", f"quantity must be above 0 and at most {LARGEST_QUANTITY}")
        for name in _PRICES.get(order.order_type, ()):
            price = getattr(order, name)
            if not _is_price(price):
                raise Refused("invalid", f"a {order.order_type} order needs a {name} above 0")
            if not is_on_tick(price, instrument.tick):
                raise Refused("tick", f"{name} {price} is not a multiple of {instrument.tick}")
        trails = [trail for trail in (order.trail_amount, order.trail_percent) if trail is not None]
        if order.order_type == "TRAIL" and (len(trails) != 1 or not _is_price(trails[0])):
            raise Refused("invalid", "a TRAIL order needs either a trail_amount or a trail_percent above 0")

    def check_reference(self, order: Order) -> None:
        """Refuses a reference that the account has used before. Raises Refused."""
        if (order.account, order.order_ref) in self.exchange.references:
            raise Refused("duplicate_reference", f"an order with the reference {order.order_ref!r} exists")

    def reference_price(self, order: Order) -> float:
        """The price at which an order is margined."""
        quote = self.exchange.market.quote(order.conid)
        market = quote.ask if order.side == "BUY" else quote.bid
        limit = order.limit_price if order.order_type in ("LMT", "STP LMT") else order.stop_price
        return limit if limit is not None else market

    def refusal(self, order: Order) -> tuple[str, str]:
        """Why an account may not place an order: a code and the reason, or two empty strings."""
        account = self.exchange.account(order.account)
        if self.exchange.faults.reject_orders:
            return "rejected", self.exchange.faults.reject_orders
        if self.exchange.instrument(order.conid).currency != "USD":
            return "permission", "No trading permissions."
        if account.kind == "cash" and account.position(order.conid).quantity < order.remaining * -order.sign:
            return "short_sale", "The contract is not available for short sale."
        if account.kind == "alpaca" and (refused := self._shares_refusal(account, order)):
            return refused
        needed = self._needed(account, order)
        available = account.available(self.exchange.price) - self._held(account, order)
        if needed > 0 and needed > available:
            equity = account.equity(self.exchange.price)
            short_of = equity + needed - available
            return "buying_power", (
                "YOUR ORDER IS NOT ACCEPTED. IN ORDER TO OBTAIN THE DESIRED POSITION YOUR EQUITY WITH LOAN "
                f"VALUE [{equity:.2f} USD] MUST EXCEED THE INITIAL MARGIN [{short_of:.2f} USD]"
            )
        return "", ""

    def buying_power(self, name: str) -> float:
        """What an account may still buy for, its working orders taken off; USD."""
        account = self.exchange.account(name)
        free = account.available(self.exchange.price) - self._held(account, None)
        return max(0.0, free * (1.0 if account.kind == "cash" else LEVERAGE))

    def shares_held(self, order: Order) -> float:
        """Shares that other working orders on the same side already close.

        Of a group only one order can fill, so its largest counts.
        """
        by_group: dict[str, float] = {}
        for other in self._others(order):
            if (other.conid, other.side) == (order.conid, order.side):
                key = other.group or str(other.perm_id)
                by_group[key] = max(by_group.get(key, 0.0), other.remaining)
        return round(sum(by_group.values()), 9)

    def _shares_refusal(self, account: Account, order: Order) -> tuple[str, str] | None:
        """Alpaca's rules on shares: an order can't turn a position over, and fractions can't be sold short.

        docs.alpaca.markets, "Margin and Short Selling" and "Fractional Trading".
        """
        held = account.position(order.conid).quantity
        if order.parent is not None or held * order.sign > 0:
            return None
        if not held:
            short = order.side == "SELL" and order.remaining % 1
            return ("short_sale", "fractional orders cannot be sold short") if short else None
        free = max(0.0, round(abs(held) - self.shares_held(order), 9))
        if order.remaining <= free:
            return None
        return "quantity_held", (
            "insufficient qty available for order "
            f"(requested: {order.remaining:.10g}, available: {free:.10g})"
        )

    def _needed(self, account: Account, order: Order) -> float:
        price, shares = self.reference_price(order), tradable(self.exchange, order)
        return max(0.0, account.change_of_margin(order.conid, order.sign * shares, price))

    def _held(self, account: Account, order: Order | None) -> float:
        return sum(self._needed(account, other) for other in self._others(order, account.id))

    def _others(self, order: Order | None, account: str = "") -> list[Order]:
        """Working orders that take means away from `order`: not what it replaces, nor its own group."""
        own = {order.perm_id, order.replaces} if order is not None else set()
        own |= (
            {partner.perm_id for partner in partners_of(self.exchange, order)} if order is not None else set()
        )
        name = order.account if order is not None else account
        return [
            other
            for other in self.exchange.working.values()
            if other.account == name
            and other.perm_id not in own
            and not waits_for_entry(self.exchange, other)
        ]


def _is_price(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0
