"""The limits as arithmetic on plain values: no clock, no database, no broker."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import LimitExceeded
from broker.models import AccountInfo, OrderRequest, Quote
from broker.risk.limits import Limits

#: less than any broker's smallest fraction of a share: sums of floats may be off by it
_DUST = 1e-9
_LIVE_KINDS = frozenset({"live", "simulated"})


@dataclass(frozen=True)
class Holding:
    """What is held of one symbol, and what may come to it, in shares."""

    #: negative: short
    position: float
    #: what working orders, and orders on their way, may still buy or sell
    pending_buys: float = 0.0
    pending_sells: float = 0.0
    #: bought or sold a moment ago: `position` may or may not hold it already
    recent_buys: float = 0.0
    recent_sells: float = 0.0

    def after(self, side: str, qty: float) -> float:
        """The largest position (for a sale: the lowest) that can come of it if everything fills."""
        if side == "buy":
            return self.position + self.pending_buys + self.recent_buys + qty
        return self.position - self.pending_sells - self.recent_sells - qty

    def reduces(self, side: str, qty: float) -> bool:
        """Whether the order can only bring the position nearer to zero, whatever fills first."""
        after = self.after(side, qty)
        return after <= _DUST if side == "buy" else after >= -_DUST


def is_bracket(request: OrderRequest) -> bool:
    """A bracket's legs trade again, so it never merely reduces."""
    return request.take_profit_price is not None or request.stop_loss_price is not None


def usable_price(request: OrderRequest, quote: Quote | None, limits: Limits) -> float | None:
    """The quote's price on the side that the order would take, or None: there is none that counts."""
    if quote is None:
        return None
    if quote.kind not in _LIVE_KINDS and not limits.delayed_quotes:
        return None
    if quote.age_seconds > limits.max_quote_age_seconds:
        return None
    beyond = quote.ask if request.side == "buy" else quote.bid
    price = beyond or quote.last  # 0 and None are both "no price"
    return price if price is not None and price > 0 else None


def order_price(request: OrderRequest, quoted: float | None) -> float | None:
    """The highest price that the order is reckoned at, or None: nothing tells."""
    if request.order_type in ("limit", "stop_limit") and request.limit_price is not None:
        # A sale fills at its limit or above: the quote is what it will get where that is more.
        return max(request.limit_price, quoted or 0.0) if request.side == "sell" else request.limit_price
    if request.order_type == "stop" and request.stop_price is not None:
        return max(request.stop_price, quoted or 0.0)
    return quoted


def check_symbols(request: OrderRequest, limits: Limits) -> None:
    """Raise `LimitExceeded` for a symbol that may not be traded."""
    if limits.symbols_allowed is not None and request.symbol not in limits.symbols_allowed:
        raise LimitExceeded("symbols_allowed", request.symbol, sorted(limits.symbols_allowed))
    if request.symbol in limits.symbols_forbidden:
        raise LimitExceeded(
            "symbols_forbidden", request.symbol, f"all but {sorted(limits.symbols_forbidden)}"
        )


def check_size(request: OrderRequest, price: float | None, limits: Limits) -> None:
    """Raise `LimitExceeded` for an order that is too large by itself."""
    _at_most("max_order_qty", quantity(request, price), limits.max_order_qty)
    value = request.notional if request.notional is not None else _times(request.qty, price)
    _at_most("max_order_value", value, limits.max_order_value)


def quantity(request: OrderRequest, price: float | None) -> float | None:
    """The order's shares; for an amount of money those that it buys, or None without a price."""
    if request.notional is None:
        return request.qty
    return request.notional / price if price else None


def check_position(request: OrderRequest, price: float | None, holding: Holding, limits: Limits) -> None:
    """Raise `LimitExceeded` if the position could become too large, long or short."""
    long = request.side == "buy"
    name = "long" if long else "short"
    shares = limits.max_long_qty if long else limits.max_short_qty
    money = limits.max_long_value if long else limits.max_short_value
    qty = quantity(request, price)
    if qty is None:
        _at_most(f"max_{name}_qty", None, shares)
        _at_most(f"max_{name}_value", None, money)
        return
    after = holding.after(request.side, qty)
    # A sale that leaves a long position makes no short one, and a buy within a short no long one.
    size = max(after if long else -after, 0.0)
    if size > _DUST:
        _at_most(f"max_{name}_qty", size, shares)
        _at_most(f"max_{name}_value", _times(size, price), money)


def check_collar(request: OrderRequest, quoted: float | None, limits: Limits, reduces: bool) -> None:
    """Raise `LimitExceeded` for a limit or stop price too far from the quote.

    A limit price has a losing side: above the quote for a buy, below it for a sale. A stop price has
    none, so it may be as far as the far collar either way; a stop-limit's limit is measured from its
    stop, where it begins to work. Without a quote only an order that reduces passes: getting out
    mustn't wait for a price.
    """
    near, far = limits.price_collar_percent, limits.far_collar_percent
    if request.order_type in ("limit", "stop_limit"):
        measure = quoted if request.order_type == "limit" else request.stop_price
        away = _away(request.limit_price, measure)
        losing = away if away is None or request.side == "buy" else -away
        if not (losing is None and reduces):
            _at_most("price_collar_percent", losing, near)
            _at_most("far_collar_percent", None if losing is None else -losing, far)
    if request.order_type in ("stop", "stop_limit"):
        away = _away(request.stop_price, quoted)
        if not (away is None and reduces):
            _at_most("far_collar_percent", None if away is None else abs(away), far)


def _away(price: float | None, measure: float | None) -> float | None:
    """How far a price is above another, in per cent."""
    return None if price is None or not measure else (price / measure - 1) * 100


def check_day_loss(account: AccountInfo, limits: Limits) -> None:
    """Raise `LimitExceeded` once the day has lost too much, or if nothing tells what it lost."""
    amount = limits.max_day_loss
    if limits.max_day_loss_percent is not None:
        part = account.last_equity * limits.max_day_loss_percent / 100
        amount = part if amount is None else min(amount, part)
    if amount is None:
        return
    # A last equity that is today's own would make every loss nothing.
    if not account.last_equity > 0 or account.last_equity_source.endswith(" now"):
        raise LimitExceeded("max_day_loss", "unknown: the broker gives no last equity", f"{amount:.2f}")
    loss = account.last_equity - account.equity
    if loss > amount:
        raise LimitExceeded("max_day_loss", round(loss, 2), round(amount, 2))


def _times(qty: float, price: float | None) -> float | None:
    return None if price is None else qty * price


def _at_most(limit: str, value: float | None, allowed: float | None) -> None:
    if allowed is None:
        return
    if value is None:
        raise LimitExceeded(limit, "unknown: no fresh quote", f"{allowed:g}")
    if value > allowed + _DUST:
        raise LimitExceeded(limit, round(value, 6), allowed)
