"""Orders from their arrival to their end: checks, margin, matching, fills, expiry.

The sequence that front ends see for an accepted order: the answer to `place` (status PreSubmitted), then
events `order_status` (Submitted), and for each fill `execution`, `order_status`, `commission`, `position`,
`account_value`.
"""

from __future__ import annotations

import math
import secrets
from typing import Any

from localcloud.exchange.acceptance import Acceptance
from localcloud.exchange.contingent import (
    CANCEL_WITH_BLOCK,
    depending_on,
    legs_left,
    legs_of,
    partners_of,
    tradable,
    waits_for_entry,
)
from localcloud.exchange.engine import Exchange
from localcloud.exchange.market import Quote
from localcloud.exchange.matching import Fill, is_triggered, match, trailed
from localcloud.exchange.models import (
    CANCELLED,
    FILLED,
    INACTIVE,
    PRE_SUBMITTED,
    SUBMITTED,
    WORKING,
    Execution,
    Order,
    Refused,
)

FIRST_PERM_ID = 1_600_000_000
FRACTIONS = 1_000_000_000


def shares_for(notional: float, price: float) -> float:
    """How many shares an amount of money buys at a price, to nine places, never more than the amount."""
    return math.floor(notional / price * FRACTIONS) / FRACTIONS


class OrderDesk:
    """Places, changes, cancels and matches orders of one exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.acceptance = Acceptance(exchange)
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
        notional: float | None = None,
        trail_amount: float | None = None,
        trail_percent: float | None = None,
        legs: list[dict[str, Any]] | None = None,
        one_cancels_other: bool = False,
        parent: int | None = None,
        group: str = "",
        group_type: int = 3,
        unique_reference: bool = False,
        keep_refused: bool = True,
    ) -> Order:
        """Accepts an order and writes it to the book; `activate` then lets it trade.

        Refused (invalid, tick, unknown_contract, unknown_account, duplicate_reference): there is no order.
        An order that comes back Inactive was refused by the exchange: `reason_code` is buying_power,
        short_sale, quantity_held, permission or rejected; without `keep_refused` all but the last are
        Refused, too. `notional` (USD) takes the place of a quantity. `legs` are sent when the order has
        filled, or with it when `one_cancels_other`. `parent` attaches the order as a leg to a working one;
        `group`: see `Order`. The stop price of a TRAIL order is where its stop begins.
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
            notional=notional,
            trail_amount=trail_amount,
            trail_percent=trail_percent,
            parent=parent,
            group=group or ("" if parent is None else str(parent)),
            group_type=group_type,
        )
        if parent is not None and self._working(parent).account != account:
            raise Refused("unknown_order", f"order {parent} is another account's")
        if notional is not None:
            self.exchange.instrument(conid)
            order.quantity = shares_for(notional, self.acceptance.reference_price(order))
        self.acceptance.check(order)
        if unique_reference:
            self.acceptance.check_reference(order)
        attached = self._legs(order, legs or [], one_cancels_other=one_cancels_other)
        if parent is None:  # a leg only closes what its entry opens
            self._refuse_if_unaffordable(order, keep=keep_refused)
        self._next_perm_id += 1 + len(attached)
        for kept in [order, *attached]:
            _begin_trail(kept)
            kept.status, kept.reason_code, kept.reason = order.status, order.reason_code, order.reason
            self.exchange.keep_order(kept)
        self.exchange.book.commit()
        return order

    def preview(self, **wanted: Any) -> dict[str, Any]:
        """What an order would cost and how margin would change; nothing is placed. Raises Refused."""
        order = Order(perm_id=0, **wanted)
        self.acceptance.check(order)
        account = self.exchange.account(order.account)
        price = self.acceptance.reference_price(order)
        equity, margin = account.equity(self.exchange.price), account.margin(self.exchange.price)
        change = account.change_of_margin(order.conid, order.sign * order.quantity, price)
        commission = account.commission(order.quantity, price)
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
            "warning": self.acceptance.refusal(order)[1],
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
        trail_amount: float | None = None,
        trail_percent: float | None = None,
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
            "trail_amount": trail_amount,
            "trail_percent": trail_percent,
        }
        changed = Order(**{**order.__dict__, **{k: v for k, v in changes.items() if v is not None}})
        if trail_amount is not None or trail_percent is not None:
            changed.trail_amount, changed.trail_percent = trail_amount, trail_percent
        self.acceptance.check(changed)
        if changed.quantity <= changed.filled:
            raise Refused("invalid", f"{changed.filled:g} traded: the quantity can't become {quantity:g}")
        code, reason = self.acceptance.refusal(changed) if order.parent is None else ("", "")
        if code:
            raise Refused("buying_power", reason)
        order.__dict__.update(changed.__dict__)
        self.exchange.keep_order(order)
        self.exchange.book.commit()
        return order

    def replace(self, perm_id: int, **changes: Any) -> Order:
        """Ends a working order and puts a changed copy in its place, under a permanent id of its own.

        The copy carries what has traded (its quantity is the whole, as in FIX). `changes` are fields of
        `Order`. Raises Refused, and nothing has changed.
        """
        old, now = self._working(perm_id), self.exchange.clock.now()
        fresh = {"perm_id": self._next_perm_id, "replaces": perm_id, "status": PRE_SUBMITTED, "routed": False}
        new = Order(**{**old.__dict__, "created": now, **fresh, **changes})
        new.expires = self.exchange.hours.close_of(now) if new.tif == "DAY" else None
        self.acceptance.check(new)
        if new.order_ref != old.order_ref:
            self.acceptance.check_reference(new)
        if new.quantity <= new.filled:
            raise Refused("invalid", "qty must be > filled_qty")
        code, reason = self.acceptance.refusal(new)
        if code:
            raise Refused(code, reason)
        self._next_perm_id += 1
        old.status, old.reason_code, old.replaced_by = CANCELLED, "replaced", new.perm_id
        for leg in legs_of(self.exchange, old):
            leg.parent = new.perm_id
            self.exchange.keep_order(leg)
        self.exchange.keep_order(old)
        self.exchange.keep_order(new)
        self.exchange.book.commit()
        return new

    def cancel(self, perm_id: int) -> Order:
        """Cancels what hasn't traded. Raises Refused: unknown_order or not_working."""
        order = self._working(perm_id)
        self._end(order, CANCELLED)
        return order

    def activate(self, order: Order) -> None:
        """Sends an accepted order to the market."""
        if order.status not in WORKING:
            return
        self.publish_status(order)
        if self.exchange.faults.hold_orders:
            return
        self._match(order, resting=order.status == SUBMITTED)
        self.exchange.book.commit()

    def step(self) -> None:
        """Lets working orders trade against the moved market, and ends those whose day is over."""
        now = self.exchange.clock.now()
        for order in list(self.exchange.working.values()):
            if order.expires is not None and now >= order.expires:
                self._end(order, CANCELLED, reason="the order's day is over", code="expired")
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

    def _refuse_if_unaffordable(self, order: Order, *, keep: bool) -> None:
        code, reason = self.acceptance.refusal(order)
        if code and not keep and code != "rejected":
            raise Refused(code, reason)
        if code:
            order.status, order.reason_code, order.reason = INACTIVE, code, reason

    def _legs(self, entry: Order, wanted: list[dict[str, Any]], *, one_cancels_other: bool) -> list[Order]:
        """The orders that go with an entry; of an OCO pair the entry itself is one."""
        if one_cancels_other:
            entry.group = str(entry.perm_id)
        copied = ("account", "conid", "quantity", "tif", "created", "expires")
        shared = {name: getattr(entry, name) for name in copied}
        legs = [
            Order(
                perm_id=entry.perm_id + number,
                group=str(entry.perm_id),
                parent=None if one_cancels_other else entry.perm_id,
                **{**shared, "side": "SELL" if entry.side == "BUY" else "BUY", **leg},
            )
            for number, leg in enumerate(wanted, 1)
        ]
        for leg in legs:
            leg.expires = self.exchange.hours.close_of(leg.created) if leg.tif == "DAY" else None
            self.acceptance.check(leg)
        return legs

    # -- trading -----------------------------------------------------------------------------------

    def _match(self, order: Order, *, resting: bool) -> None:
        now = self.exchange.clock.now()
        if not self.exchange.hours.is_open(now, extended=order.outside_rth and order.order_type == "LMT"):
            return
        if order.status not in WORKING or waits_for_entry(self.exchange, order):
            return
        quote = self.exchange.market.quote(order.conid)
        self._route(order, quote)
        if not is_triggered(order, quote):
            return
        order.triggered = True
        if order.status == PRE_SUBMITTED:
            order.status = SUBMITTED
            self.exchange.keep_order(order)
            self.publish_status(order)
        largest = self._largest_fill(order)
        resting = resting and order.order_type != "MKT"
        if order.notional is not None and not order.filled:
            order.quantity = shares_for(order.notional, quote.ask if order.side == "BUY" else quote.bid)
        fill = match(order, quote, resting=resting, largest_fill=largest)
        if fill is not None:
            self._trade(order, fill)
        if order.status in WORKING and order.tif in ("IOC", "FOK"):
            self._end(order, CANCELLED, reason="what could not trade at once was cancelled")
        if fill is not None and not (quote.bid_size and quote.ask_size):
            self.exchange.market.refill(order.conid)

    def _largest_fill(self, order: Order) -> float | None:
        """What bounds a fill besides the market: a fault, or how much of its entry a leg may close."""
        bounds = [tradable(self.exchange, order)] if order.parent is not None else []
        forced = self.exchange.faults.largest_fill
        return min([*bounds, forced] if forced else bounds, default=None)

    def _route(self, order: Order, quote: Quote) -> None:
        """An order's arrival in the open market, and how its trail follows."""
        if not order.routed:
            order.routed = True
            self.exchange.keep_order(order)
            self.exchange.publish(order.account, "order_routed", order=self.exchange.order_row(order))
        if order.order_type == "TRAIL" and not order.triggered:
            moved = trailed(order, quote, self.exchange.instrument(order.conid).tick)
            if moved != (order.high_water, order.stop_price):
                order.high_water, order.stop_price = moved
                self.exchange.keep_order(order)
                row = self.exchange.order_row(order)
                self.exchange.publish(order.account, "order_trailed", order=row)

    def _trade(self, order: Order, fill: Fill) -> None:
        exchange, account = self.exchange, self.exchange.account(order.account)
        order.average_price = (order.average_price * order.filled + fill.price * fill.quantity) / (
            order.filled + fill.quantity
        )
        order.filled = round(order.filled + fill.quantity, 9)
        order.last_price, order.traded = fill.price, exchange.clock.now()
        commission = max(0.0, account.commission(order.filled, order.average_price) - order.commission)
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
            position=position.quantity,
        )
        self.publish_status(order)
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
        self._settle_group(order, fill)

    def _settle_group(self, order: Order, fill: Fill) -> None:
        """What a fill does to orders that depend on it."""
        ends_group = order.status == FILLED or order.group_type == CANCEL_WITH_BLOCK
        for partner in partners_of(self.exchange, order):
            left = round(partner.quantity - fill.quantity, 9)
            if ends_group or left <= partner.filled:
                self._end(partner, CANCELLED, reason="another order of its group filled", code="group")
            else:
                self._resize(partner, left)
        for leg in legs_of(self.exchange, order):
            if not waits_for_entry(self.exchange, leg):
                self.activate(leg)

    def _resize(self, order: Order, quantity: float) -> None:
        order.quantity = quantity
        self.exchange.keep_order(order)
        self.publish_status(order)

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

    def _end(self, order: Order, status: str, *, reason: str = "", code: str = "") -> None:
        order.status, order.reason, order.reason_code = status, reason, code
        self.exchange.keep_order(order)
        self.exchange.book.commit()
        self.publish_status(order)
        for leg in legs_left(self.exchange, order):
            left = round(leg.quantity - order.remaining, 9)
            if left > leg.filled:
                self._resize(leg, left)
            else:
                self._end(leg, FILLED if leg.filled else CANCELLED, reason="its entry ended", code="group")
        # Who ends a whole group sees to each of it; the one that filled in part isn't to end with it.
        whole_group = code == "group"
        for other in depending_on(self.exchange, order):
            if whole_group and other.parent != order.perm_id:
                continue
            self._end(
                other, status, reason=reason or "an order that it depends on ended", code=code or "group"
            )

    def publish_status(self, order: Order) -> None:
        """Tells subscribers how an order stands."""
        self.exchange.publish(order.account, "order_status", order=self.exchange.order_row(order))


def _begin_trail(order: Order) -> None:
    """Where a trail begins that was given its first stop price: as if that followed from a price."""
    if order.order_type != "TRAIL" or order.stop_price is None or order.high_water is not None:
        return
    if order.trail_amount is not None:
        order.high_water = order.stop_price - order.sign * order.trail_amount
    else:
        order.high_water = order.stop_price / (1 + order.sign * (order.trail_percent or 0.0) / 100)
