"""Balances, positions and previews out of the gateway's answers. A missing value is an error, never 0."""

from __future__ import annotations

from typing import Any

from broker.brokers.client_portal.answers import Json, number
from broker.errors import BrokerFailure
from broker.models import AccountInfo, Order, OrderPreview, OrderRequest, Position

#: the summary's names for the plan's fields
CASH, POWER, VALUE, EQUITY = "totalcashvalue", "buyingpower", "netliquidation", "equitywithloanvalue"
LAST_EQUITY = "previousdayequitywithloanvalue"


def account_info(account: str, summary: Any) -> AccountInfo:
    """Of `{"netliquidation": {"amount": 1.0, "currency": "USD"}, ..}`. Raises `BrokerFailure`."""
    found: dict[str, float] = {}
    for name in (CASH, POWER, VALUE, EQUITY, LAST_EQUITY):
        entry = summary.get(name) if isinstance(summary, dict) else None
        amount = None if not isinstance(entry, dict) or entry.get("isNull") else number(entry.get("amount"))
        if amount is not None:
            found[name] = amount
    missing = [name for name in (CASH, POWER, VALUE, EQUITY) if name not in found]
    if missing:
        raise BrokerFailure(f"IBKR gave no {', '.join(missing)} for the account")
    last = LAST_EQUITY if LAST_EQUITY in found else VALUE
    source = "previous day's equity with loan value" if last == LAST_EQUITY else "net liquidation value now"
    return AccountInfo(
        id=account,
        cash=found[CASH],
        buying_power=found[POWER],
        portfolio_value=found[VALUE],
        equity=found[EQUITY],
        last_equity=found[last],
        last_equity_source=source,
        currency=str(summary[VALUE].get("currency") or "USD"),
    )


def position_of(row: Json, price: float | None) -> Position:
    """A row of /portfolio2/{account}/positions, which isn't cached as /portfolio's are.

    {"position": 5.0, "conid": "265598", "avgCost": 200.2, "marketPrice": 200.01, "marketValue": 1000.05,
     "unrealizedPnl": -0.95, "description": "AAPL", "currency": "USD"}
    """
    qty, average = number(row.get("position")), number(row.get("avgPrice"))
    average = number(row.get("avgCost")) if average is None else average
    if qty is None or average is None:
        raise BrokerFailure(f"IBKR's position lacks its size or cost: {symbol_of(row)}")
    value, gain = number(row.get("marketValue")), number(row.get("unrealizedPnl"))
    shown = number(row.get("marketPrice"))
    if not shown:
        if price is None:
            raise BrokerFailure(f"IBKR's position lacks its price: {symbol_of(row)}")
        shown, value, gain = price, None, None
    cost = qty * average
    value = qty * shown if value is None else value
    gain = value - cost if gain is None else gain
    return Position(
        symbol=symbol_of(row),
        qty=qty,
        avg_entry_price=average,
        current_price=shown,
        market_value=value,
        unrealized_pl=gain,
        unrealized_plpc=gain / abs(cost) if cost else 0.0,
        currency=str(row.get("currency") or "USD"),
        instrument_id=str(row.get("conid") or ""),
    )


def symbol_of(row: Json) -> str:
    """A position's symbol; IBKR writes `BRK B`."""
    return str(row.get("ticker") or row.get("description") or row.get("contractDesc") or "").replace(" ", ".")


def preview_of(request: OrderRequest, answer: Any) -> OrderPreview:
    """An answer of /orders/whatif.

    {"amount": {"amount": "1,000.05 USD (5 Shares)", "commission": "1.00 USD", "total": "1,001.05 USD"},
     "equity": {"current": "100,000", "change": "-1", "after": "99,999"}, "initial": {..},
     "maintenance": {..}, "warn": null, "error": null}
    """
    amount = answer.get("amount") or {}
    # "0.35 ... 1.05 USD" is a range
    ends = [n for n in map(number, str(amount.get("commission") or "").split("...")) if n is not None]
    return OrderPreview(
        symbol=request.symbol,
        side=request.side,
        qty=request.qty,
        order_type=request.order_type,
        estimated_cost=number(amount.get("amount")),
        commission=ends[0] if len(ends) == 1 else None,
        commission_range=(ends[0], ends[-1]) if len(ends) > 1 else None,
        initial_margin_after=_after(answer, "initial"),
        maintenance_margin_after=_after(answer, "maintenance"),
        equity_after=_after(answer, "equity"),
        warnings=[str(answer["warn"])] if answer.get("warn") else [],
    )


def as_order(request: OrderRequest, account: str) -> Order:
    """An order that isn't in the journal: for a preview."""
    return Order(
        id="",
        symbol=request.symbol,
        side=request.side,
        qty=request.qty,
        order_type=request.order_type,
        status="",
        limit_price=request.limit_price,
        stop_price=request.stop_price,
        trail_amount=request.trail_amount,
        trail_percent=request.trail_percent,
        client_order_id=request.client_order_id,
        time_in_force=request.time_in_force,
        account_id=account,
        extended_hours=request.extended_hours,
    )


def _after(answer: Json, name: str) -> float | None:
    return number((answer.get(name) or {}).get("after"))
