"""Alpaca's orders, positions and fills in our words, and our orders in Alpaca's."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from broker.journal import FOREIGN
from broker.models import Fee, Fill, Order, OrderReport, OrderRequest, Position, Status
from broker.validation import CLIENT_ORDER_ID

#: Alpaca's order statuses (docs.alpaca.markets, order lifecycle) in our words
STATUS = {
    "new": Status.SUBMITTED,
    "accepted": Status.ACCEPTED,
    "accepted_for_bidding": Status.ACCEPTED,
    "held": Status.ACCEPTED,
    "pending_new": Status.PENDING,
    "pending_review": Status.PENDING,
    "pending_replace": Status.SUBMITTED,
    "partially_filled": Status.PARTIALLY_FILLED,
    "filled": Status.FILLED,
    "done_for_day": Status.INACTIVE,
    "stopped": Status.INACTIVE,
    "suspended": Status.INACTIVE,
    "calculated": Status.INACTIVE,
    "canceled": Status.CANCELLED,
    # Its replacement is an order of its own.
    "replaced": Status.CANCELLED,
    "expired": Status.EXPIRED,
    "rejected": Status.REJECTED,
    "pending_cancel": Status.PENDING_CANCEL,
}
#: the activities that are fees: regulatory ones, those of crypto trades, and what others charge
FEES = "FEE,CFEE,PTC"
ORDER_TYPES = frozenset({"market", "limit", "stop", "stop_limit", "trailing_stop"})


def number(value: Any) -> float | None:
    """Alpaca writes numbers as text: `"12.5"`."""
    return None if value is None or value == "" else float(value)


def word(value: Any) -> str:
    """An enumeration's value, which alpaca-py keeps as plain text where it doesn't know it."""
    return str(getattr(value, "value", value))


def report_of(found: Any, leg: bool = False) -> OrderReport:
    """What Alpaca says about an order. `leg`: of a bracket, which loses what the other leg has closed."""
    status = word(found.status)
    filled = number(found.filled_qty) or 0.0
    # Of an order for an amount of money, the quantity is known once it has filled.
    decided = filled if found.notional is not None and found.qty is None and filled else None
    decided = number(found.qty) if leg else decided
    reason = f"replaced by Alpaca's order {found.replaced_by}" if status == "replaced" else None
    return OrderReport(
        status=STATUS.get(status, Status.PENDING),
        broker_status=status,
        filled_qty=filled,
        filled_price=number(found.filled_avg_price) if filled else None,
        broker_order_id=str(found.id),
        permanent_id=str(found.id),
        reason="Alpaca gives no reason" if status == "rejected" else reason,
        qty=decided,
    )


def request_from(found: Any) -> OrderRequest:
    """The request of an order that the journal doesn't know."""
    name = str(found.client_order_id or "")
    notional = number(found.notional)
    return OrderRequest(
        symbol=str(found.symbol)[:32],
        side=word(found.side)[:4],
        qty=number(found.qty) or 0.0,
        order_type=word(found.order_type or found.type)[:16],
        limit_price=number(found.limit_price),
        time_in_force=word(found.time_in_force)[:8],
        client_order_id=name if CLIENT_ORDER_ID.fullmatch(name) else own_name(found),
        placed_by=FOREIGN,
        stop_price=None if found.trail_price or found.trail_percent else number(found.stop_price),
        notional=notional,
        trail_amount=number(found.trail_price),
        trail_percent=number(found.trail_percent),
        extended_hours=bool(found.extended_hours),
    )


def own_name(found: Any) -> str:
    """A client order id for an order whose own isn't usable here, or is another order's."""
    return f"alpaca-{found.id}"


def same_order(order: Order, found: Any) -> bool:
    """Whether Alpaca's order is the one that we asked for, not another program's under the same id."""
    theirs = request_from(found)
    names = ["symbol", "side", "order_type", "limit_price", "time_in_force", "notional"]
    names += ["trail_amount", "trail_percent"]
    names += ["qty"] if order.notional is None else []
    names += ["stop_price"] if order.trail_amount is None and order.trail_percent is None else []
    return all(getattr(theirs, name) == getattr(order, name) for name in names)


def same_leg(leg: Order, found: Any) -> bool:
    """Whether Alpaca's order may be the leg of ours: it may have lost shares to the other leg."""
    shown = number(found.qty) or 0.0
    return shown <= leg.qty and same_order(replace(leg, qty=shown), found)


def body_of(order: Order, symbol: str) -> Any:
    """alpaca-py's request for an order."""
    from alpaca.trading import requests as theirs
    from alpaca.trading.enums import OrderClass, OrderSide, TimeInForce

    body: dict[str, Any] = {
        "symbol": symbol,
        "side": OrderSide(order.side),
        "time_in_force": TimeInForce(order.time_in_force),
        "client_order_id": order.client_order_id,
    }
    body |= {"qty": order.qty} if order.notional is None else {"notional": order.notional}
    if order.extended_hours:
        body["extended_hours"] = True
    if order.take_profit_price is not None and order.stop_loss_price is not None:
        body["order_class"] = OrderClass.BRACKET
        body["take_profit"] = theirs.TakeProfitRequest(limit_price=order.take_profit_price)
        body["stop_loss"] = theirs.StopLossRequest(stop_price=order.stop_loss_price)
    match order.order_type:
        case "limit":
            return theirs.LimitOrderRequest(**body, limit_price=order.limit_price)
        case "stop":
            return theirs.StopOrderRequest(**body, stop_price=order.stop_price)
        case "stop_limit":
            return theirs.StopLimitOrderRequest(
                **body, stop_price=order.stop_price, limit_price=order.limit_price
            )
        case "trailing_stop":
            if order.trail_amount is not None:
                return theirs.TrailingStopOrderRequest(**body, trail_price=order.trail_amount)
            return theirs.TrailingStopOrderRequest(**body, trail_percent=order.trail_percent)
    return theirs.MarketOrderRequest(**body)


def position_of(found: Any) -> Position:
    """A position; a short one has a negative quantity, however Alpaca writes it."""
    sign = -1.0 if word(found.side) == "short" else 1.0
    qty = sign * abs(float(found.qty))
    entry = float(found.avg_entry_price)
    # Alpaca leaves out what depends on a price while it has none.
    price = number(found.current_price) or number(found.lastday_price) or entry
    gain = number(found.unrealized_pl)
    gain = (price - entry) * qty if gain is None else gain
    share = number(found.unrealized_plpc)
    return Position(
        symbol=str(found.symbol),
        qty=qty,
        avg_entry_price=entry,
        current_price=price,
        market_value=sign * abs(number(found.market_value) or price * qty),
        unrealized_pl=gain,
        unrealized_plpc=(gain / abs(entry * qty) if entry else 0.0) if share is None else share,
        instrument_id=str(found.asset_id),
    )


def fill_key(alpaca_order: str, cumulative: Any) -> str:
    """What an execution is known by, in the stream and in the account's activities alike.

    Alpaca promises no id that both share; the order with the shares filled after it is one.
    """
    return f"{alpaca_order}/{float(cumulative):.9f}".rstrip("0").rstrip(".")


def fill_of_update(update: Any, order: Order) -> Fill:
    """A fill as the stream tells it."""
    return Fill(
        id=str(update.execution_id or fill_key(str(update.order.id), update.order.filled_qty)),
        order_id=order.id,
        client_order_id=order.client_order_id,
        symbol=order.symbol,
        side=order.side,
        qty=float(update.qty),
        price=float(update.price),
        time=update.timestamp.astimezone(UTC).isoformat(),
        # Alpaca's trades in US stocks are free of commission; regulatory fees are booked once a day.
        commission=0.0,
        account_id=order.account_id,
    )


def fee_of_activity(row: dict[str, Any], account: str) -> Fee:
    """A fee as the account's activities show it.

    `{"id": "20261120000000000::7b1...", "activity_type": "FEE", "date": "2026-11-20", "net_amount": "-0.03",
    "description": "TAF fee for proceed of 10 shares (1 trades) on 2026-11-20", "status": "executed"}`
    """
    return Fee(
        id=str(row["id"]).rpartition("::")[2],
        date=str(row["date"]),
        amount=0.0 - float(row["net_amount"]),  # not -0.0
        kind=str(row["activity_type"]),
        description=str(row.get("description") or ""),
        symbol=str(row.get("symbol") or ""),
        account_id=account,
    )


def fill_of_activity(row: dict[str, Any], order: Order | None, account: str) -> Fill:
    """A fill as the account's activities show it.

    `{"id": "20261120170000123::0e9...", "activity_type": "FILL", "qty": "4", "cum_qty": "4", "side": "buy",
    "price": "100.01", "symbol": "AAPL", "order_id": "6b1...", "transaction_time": "2026-11-20T17:00:00Z"}`
    """
    side = str(row["side"])
    return Fill(
        id=str(row["id"]).rpartition("::")[2],
        order_id=order.id if order is not None else "",
        client_order_id=order.client_order_id if order is not None else "",
        symbol=str(row["symbol"]),
        side="sell" if side.startswith("sell") else "buy",  # sell_short is a sale
        qty=float(row["qty"]),
        price=float(row["price"]),
        time=datetime.fromisoformat(str(row["transaction_time"])).astimezone(UTC).isoformat(),
        commission=float(row.get("commission") or 0.0),
        account_id=account,
    )
