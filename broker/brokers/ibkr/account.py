"""Balances and positions out of what a session holds. A value that is missing is an error, never 0."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from broker.errors import BrokerFailure
from broker.models import AccountInfo, Position

#: TWS's tags for the plan's fields
CASH, POWER, VALUE, EQUITY = "TotalCashValue", "BuyingPower", "NetLiquidation", "EquityWithLoanValue"
LAST_EQUITY = "PreviousDayEquityWithLoanValue"
REQUIRED = (CASH, POWER, VALUE, EQUITY)


def balances(rows: Iterable[Any], account: str) -> dict[str, tuple[float, str]]:
    """Value and currency by tag, of the rows that are one account's totals in its base currency."""
    found: dict[str, tuple[float, str]] = {}
    for row in rows:
        if row.account == account and row.tag in (*REQUIRED, LAST_EQUITY) and row.currency != "BASE":
            try:
                found[row.tag] = (float(row.value), row.currency)
            except ValueError:
                raise BrokerFailure(f"IBKR's {row.tag} isn't a number: {row.value[:40]!a}") from None
    return found


def account_info(account: str, found: dict[str, tuple[float, str]]) -> AccountInfo:
    """The plan's account. Raises `BrokerFailure` if a balance is missing."""
    missing = [tag for tag in REQUIRED if tag not in found]
    if missing:
        raise BrokerFailure(f"IBKR gave no {', '.join(missing)} for the account")
    last = LAST_EQUITY if LAST_EQUITY in found else VALUE
    source = "previous day's equity with loan value" if last == LAST_EQUITY else "net liquidation value now"
    return AccountInfo(
        id=account,
        cash=found[CASH][0],
        buying_power=found[POWER][0],
        portfolio_value=found[VALUE][0],
        equity=found[EQUITY][0],
        last_equity=found[last][0],
        last_equity_source=source,
        currency=found[VALUE][1] or "USD",
    )


def position_of(held: Any, item: Any | None, price: float) -> Position:
    """The plan's position from a position row, its portfolio row if there is one, and a price.

    The position row is told at once after a fill; the portfolio row, which knows prices, may lag behind.
    """
    contract = held.contract
    multiplier = float(contract.multiplier or 1)
    qty, average = float(held.position), float(held.avgCost)
    cost = qty * average  # avgCost includes the multiplier already
    if item is not None and float(item.position) == qty:
        value, gain = float(item.marketValue), float(item.unrealizedPNL)
    else:
        value = qty * price * multiplier
        gain = value - cost
    return Position(
        symbol=contract.symbol.replace(" ", "."),
        qty=qty,
        avg_entry_price=average / multiplier,
        current_price=price,
        market_value=value,
        unrealized_pl=gain,
        unrealized_plpc=gain / abs(cost) if cost else 0.0,
        currency=contract.currency or "USD",
        instrument_id=str(contract.conId),
    )
