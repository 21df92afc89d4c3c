"""Orders from their arrival to their end: checks, margin, matching, fills, expiry.

The sequence that front ends see for an accepted order: the answer to `place` (status PreSubmitted), then
events `order_status` (Submitted), and for each fill `execution`, `order_status`, `commission`, `position`,
`account_value`.
"""

from __future__ import annotations

import math
import secrets
from typing import Any

from localcloud.exchange.commissions import order_commission
from localcloud.exchange.engine import Exchange
from localcloud.exchange.ledger import Account
from localcloud.exchange.market import is_on_tick
from localcloud.exchange.matching import Fill, is_triggered, match
from localcloud.exchange.models import (
    CANCELLED,
    FILLED,
    INACTIVE,
    ORDER_TYPES,
    PRE_SUBMITTED,
    SUBMITTED,
    TIMES_IN_FORCE,
    WORKING,
    Execution,
    Order,
    Refused,
)

LARGEST_QUANTITY = 10_000_000
FIRST_PERM_ID = 1_600_000_000


class OrderDesk:
    """Places, changes, cancels and matches orders of one exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._next_perm_id = max(exchange.orders, default=FIRST_PERM_ID + secrets.randbelow(100_000)) + 1
        # Executions of one run share a prefix; the real one's parts are opaque, too.
        self._execution_prefix = f"{secrets.randbits(32):08x}.{int(exchange.clock.now()):08x}"
        self._execution_count = 0

    # -- what front ends ask for -------------------------------------------------------------------

    def place(
        self,
        *,
        account: str,
        conid: int,
        side: str,
        quantity: float,
        order_type: str,
        limit_price: float | None = None,
        stop_price: float | None = None,
        tif: str = "DAY",
        outside_rth: bool = False,
        order_ref: str = "",
        client: dict[str, Any] | None = None,
    ) -> Order:
        """Accepts an order and writes it to the book; `activate` then lets it trade.

        Refused (invalid, tick, unknown_contract, unknown_account): there is no order. An order that comes
        back Inactive was refused by the exchange: `reason_code` is buying_power, short_sale, permission or
        rejected.
        """
        now = self.exchange.clock.now()
        order = Order(
            perm_id=self._next_perm_id,
            account=account,
            conid=conid,
            side=side,
            quantity=quantity,
            order_type=order_type,
            limit_price=limit_price,
            stop_price=stop_price,
            tif=tif,
            outside_rth=outside_rth,
            order_ref=order_ref,
            client=client or {},
            created=now,
            expires=self.exchange.hours.close_of(now) if tif == "DAY" else None,
        )
        self._check(order)
        self._next_perm_id += 1
        self._refuse_if_unaffordable(order)
        self.exchange.keep_order(order)
        self.exchange.book.commit()
        return order

    def preview(self, **wanted: Any) -> dict[str, Any]:
        """What an order would cost and how margin would change; nothing is placed. Raises Refused."""
        order = Order(perm_id=0, **wanted)
        self._check(order)
        account = self.exchange.account(order.account)
        price = self._reference_price(order)
        equity, margin = account.equity(self.exchange.price), account.margin(self.exchange.price)
        change = account.change_of_margin(order.conid, order.sign * order.quantity, price)
        commission = order_commission(order.quantity, price)
        return {
            "init_margin_before": margin,
            "init_margin_change": change,
            "init_margin_after": margin + change,
            "maint_margin_before": margin,
            "maint_margin_change": change,
            "maint_margin_after": margin + change,
            "equity_before": equity,
            "equity_change": -commission,
            "equity_after": equity - commission,
            "commission": commission,
            "currency": self.exchange.instrument(order.conid).currency,
            "warning": self._why_unaffordable(order)[1],
        }

    def modify(
        self,
        perm_id: int,
        *,
        quantity: float | None = None,
        limit_price: float | None = None,
        stop_price: float | None = None,
        order_type: str | None = None,
        tif: str | None = None,
        client: dict[str, Any] | None = None,
    ) -> Order:
        """Changes a working order.

        `activate` then lets it trade again. Raises Refused, and nothing has changed.
        """
        order = self._working(perm_id)
        changes = {
            "quantity": quantity,
            "limit_price": limit_price,
            "stop_price": stop_price,
            "order_type": order_type,
            "tif": tif,
            "client": client,
        }
        changed = Order(**{**order.__dict__, **{k: v for k, v in changes.items() if v is not None}})
        self._check(changed)
        if changed.quantity <= changed.filled:
            raise Refused("invalid", f"{changed.filled:g} traded: the quantity can't become {quantity:g}")
        code, reason = self._why_unaffordable(changed)
        if code:
            raise Refused("buying_power", reason)
        order.__dict__.update(changed.__dict__)
        self.exchange.keep_order(order)
        self.exchange.book.commit()
        return order

    def cancel(self, perm_id: int) -> Order:
        """Cancels what hasn't traded. Raises Refused: unknown_order or not_working."""
        order = self._working(perm_id)
        self._end(order, CANCELLED)
        return order

    def activate(self, order: Order) -> None:
        """Sends an accepted order to the market."""
        if order.status not in WORKING:
            return
        self._publish_status(order)
        if self.exchange.faults.hold_orders:
            return
        self._match(order, resting=order.status == SUBMITTED)
        self.exchange.book.commit()

    def step(self) -> None:
        """Lets working orders trade against the moved market, and ends those whose day is over."""
        now = self.exchange.clock.now()
        for order in list(self.exchange.working.values()):
            if order.expires is not None and now >= order.expires:
                self._end(order, CANCELLED, reason="the order's day is over")
            elif not self.exchange.faults.hold_orders:
                self._match(order, resting=True)
        self.exchange.book.commit()

    # -- checks ------------------------------------------------------------------------------------

    def _working(self, perm_id: int) -> Order:
        order = self.exchange.orders.get(perm_id)
        if order is None:
            raise Refused("unknown_order", f"no order has the permanent id {perm_id}")
        if order.status not in WORKING:
            raise Refused("not_working", f"the order is {order.status}")
        return order

    def _check(self, order: Order) -> None:
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
        needed = {"LMT": ("limit_price",), "STP": ("stop_price",), "STP LMT": ("limit_price", "stop_price")}
        for name in needed.get(order.order_type, ()):
            price = getattr(order, name)
            if price is None or not math.isfinite(price) or price <= 0:
                raise Refused("invalid", f"a {order.order_type} order needs a {name} above 0")
            if not is_on_tick(price, instrument.tick):
                raise Refused("tick", f"{name} {price} is not a multiple of {instrument.tick}")

    def _reference_price(self, order: Order) -> float:
        """The price at which an order is margined."""
        quote = self.exchange.market.quote(order.conid)
        market = quote.ask if order.side == "BUY" else quote.bid
        limit = order.limit_price if order.order_type in ("LMT", "STP LMT") else order.stop_price
        return limit if limit is not None else market

    def _why_unaffordable(self, order: Order) -> tuple[str, str]:
        """Why an account may not place an order: a code and the reason, or two empty strings."""
        account = self.exchange.account(order.account)
        if self.exchange.faults.reject_orders:
            return "rejected", self.exchange.faults.reject_orders
        if self.exchange.instrument(order.conid).currency != "USD":
            return "permission", "No trading permissions."
        if account.kind == "cash" and account.position(order.conid).quantity < order.remaining * -order.sign:
            return "short_sale", "The contract is not available for short sale."
        needed = self._needed(account, order)
        held = sum(self._needed(account, o) for o in self._others(order))
        available = account.available(self.exchange.price) - held
        if needed > 0 and needed > available:
            equity = account.equity(self.exchange.price)
            short_of = equity + needed - available
            return "buying_power", (
                "YOUR ORDER IS NOT ACCEPTED. IN ORDER TO OBTAIN THE DESIRED POSITION YOUR EQUITY WITH LOAN "
                f"VALUE [{equity:.2f} USD] MUST EXCEED THE INITIAL MARGIN [{short_of:.2f} USD]"
            )
        return "", ""

    def _needed(self, account: Account, order: Order) -> float:
        price = self._reference_price(order)
        return max(0.0, account.change_of_margin(order.conid, order.sign * order.remaining, price))

    def _others(self, order: Order) -> list[Order]:
        return [
            other
            for other in self.exchange.working.values()
            if other.account == order.account and other.perm_id != order.perm_id
        ]

    def _refuse_if_unaffordable(self, order: Order) -> None:
        code, reason = self._why_unaffordable(order)
        if code:
            order.status, order.reason_code, order.reason = INACTIVE, code, reason

    # -- trading -----------------------------------------------------------------------------------

    def _match(self, order: Order, *, resting: bool) -> None:
        now = self.exchange.clock.now()
        if not self.exchange.hours.is_open(now, extended=order.outside_rth and order.order_type == "LMT"):
            return
        quote = self.exchange.market.quote(order.conid)
        if not is_triggered(order, quote):
            return
        order.triggered = True
        if order.status == PRE_SUBMITTED:
            order.status = SUBMITTED
            self.exchange.keep_order(order)
            self._publish_status(order)
        largest = self.exchange.faults.largest_fill or None
        resting = resting and order.order_type != "MKT"
        fill = match(order, quote, resting=resting, largest_fill=largest)
        if fill is not None:
            self._trade(order, fill)
        if order.status in WORKING and order.tif in ("IOC", "FOK"):
            self._end(order, CANCELLED, reason="what could not trade at once was cancelled")
        if fill is not None and not (quote.bid_size and quote.ask_size):
            self.exchange.market.refill(order.conid)

    def _trade(self, order: Order, fill: Fill) -> None:
        exchange, account = self.exchange, self.exchange.account(order.account)
        order.average_price = (order.average_price * order.filled + fill.price * fill.quantity) / (
            order.filled + fill.quantity
        )
        order.filled += fill.quantity
        order.last_price = fill.price
        commission = max(0.0, order_commission(order.filled, order.average_price) - order.commission)
        order.commission += commission
        position = account.position(order.conid)
        realized = position.trade(order.sign, fill.quantity, fill.price, commission)
        account.cash -= order.sign * fill.quantity * fill.price + commission
        account.realized_today += realized or 0.0
        order.status = FILLED if order.remaining <= 1e-9 else SUBMITTED
        exchange.market.take(order.conid, order.side, fill.quantity)
        execution = self._execution(order, fill, commission, realized)
        exchange.keep_trade(execution, position, account)
        exchange.keep_order(order)
        exchange.publish(
            account.id,
            "execution",
            execution=exchange.execution_row(execution),
            order=exchange.order_row(order),
        )
        self._publish_status(order)
        exchange.publish(
            account.id,
            "commission",
            exec_id=execution.exec_id,
            commission=commission,
            currency=execution.currency,
            realized_pnl=realized,
        )
        exchange.publish(account.id, "position", position=exchange.position_row(account.id, position))
        exchange.publish(account.id, "account_value", summary=exchange.account_summary(account.id))

    def _execution(self, order: Order, fill: Fill, commission: float, realized: float | None) -> Execution:
        self._execution_count += 1
        instrument = self.exchange.instrument(order.conid)
        return Execution(
            exec_id=f"{self._execution_prefix}.{self._execution_count:08x}.01",
            perm_id=order.perm_id,
            account=order.account,
            conid=order.conid,
            side=order.side,
            quantity=fill.quantity,
            price=fill.price,
            cumulative=order.filled,
            average_price=order.average_price,
            time=self.exchange.clock.now(),
            order_ref=order.order_ref,
            client=order.client,
            commission=commission,
            currency=instrument.currency,
            realized_pnl=realized,
            exchange=instrument.listing,
            liquidity=fill.liquidity,
        )

    def _end(self, order: Order, status: str, *, reason: str = "") -> None:
        order.status, order.reason = status, reason
        self.exchange.keep_order(order)
        self.exchange.book.commit()
        self._publish_status(order)

    def _publish_status(self, order: Order) -> None:
        self.exchange.publish(order.account, "order_status", order=self.exchange.order_row(order))
