"""The limits as one typed model, with defaults per mode, and how they are read from the environment.

                                    live        paper       environment
    one order's value               10,000      1,000,000   RISK_MAX_ORDER_VALUE
    one order's quantity, shares    1,000       1,000,000   RISK_MAX_ORDER_QTY
    long position, shares           none        none        RISK_MAX_LONG_QTY
    short position, shares          0           none        RISK_MAX_SHORT_QTY
    long position's value           25,000      5,000,000   RISK_MAX_LONG_VALUE
    short position's value          none        5,000,000   RISK_MAX_SHORT_VALUE
    price's distance, per cent
      on the losing side            5           20          RISK_PRICE_COLLAR_PERCENT
      on the other side             50          none        RISK_FAR_COLLAR_PERCENT
    age of a quote, seconds         15          60          RISK_MAX_QUOTE_AGE_SECONDS
    delayed quotes will do          no          yes         RISK_DELAYED_QUOTES (true, false)
    orders in 60 seconds            20          300         RISK_ORDERS_PER_MINUTE
    the day's loss                  none        none        RISK_MAX_DAY_LOSS
    the day's loss, per cent of
      the last equity               3           none        RISK_MAX_DAY_LOSS_PERCENT
    symbols, if only some           all         all         RISK_SYMBOLS_ALLOWED (AAPL,MSFT)
    symbols never                   none        none        RISK_SYMBOLS_FORBIDDEN

Amounts are in the account's currency. `none` switches a limit off; an unset variable leaves the
default. Which column holds is decided by the connection's declared mode, and live's is taken
whenever that isn't plainly paper.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from broker.errors import ConfigurationError, InvalidRequest, shown
from broker.risk.modes import Mode
from broker.validation import check_symbol


@dataclass(frozen=True)
class Limits:
    """What an order may be; None: no such limit. The module's table gives units and defaults."""

    #: one order's value
    max_order_value: float | None = 10_000.0
    #: one order's quantity, in shares
    max_order_qty: float | None = 1_000.0
    #: a long position, in shares
    max_long_qty: float | None = None
    #: a short position, in shares
    max_short_qty: float | None = 0.0
    #: a long position's value
    max_long_value: float | None = 25_000.0
    #: a short position's value
    max_short_value: float | None = None
    #: how far a limit or stop price may be from the quote: above it for a buy, below it for a sale
    price_collar_percent: float | None = 5.0
    #: and to the other side, where an order can't lose but was hardly meant
    far_collar_percent: float | None = 50.0
    #: the age of the quote that value and price are checked against
    max_quote_age_seconds: float = 15.0
    #: whether a delayed quote will do for that
    delayed_quotes: bool = False
    #: orders in 60 seconds
    orders_per_minute: int | None = 20
    #: the day's loss
    max_day_loss: float | None = None
    #: the day's loss, in per cent of the last equity
    max_day_loss_percent: float | None = 3.0
    #: the only symbols that are traded, with commas between
    symbols_allowed: frozenset[str] | None = None
    #: symbols that are never traded, with commas between
    symbols_forbidden: frozenset[str] = frozenset()

    @property
    def need_quote(self) -> bool:
        """Whether an order's value or price is limited."""
        return any(
            limit is not None
            for limit in (
                self.max_order_value,
                self.max_long_value,
                self.max_short_value,
                self.price_collar_percent,
                self.far_collar_percent,
            )
        )

    @property
    def need_equity(self) -> bool:
        """Whether the day's loss is limited."""
        return self.max_day_loss is not None or self.max_day_loss_percent is not None


LIVE = Limits()
PAPER = Limits(
    max_order_value=1_000_000.0,
    max_order_qty=1_000_000.0,
    max_short_qty=None,
    max_long_value=5_000_000.0,
    max_short_value=5_000_000.0,
    price_collar_percent=20.0,
    far_collar_percent=None,
    max_quote_age_seconds=60.0,
    delayed_quotes=True,
    orders_per_minute=300,
    max_day_loss_percent=None,
)


def limits_from_environment(environment: Mapping[str, str], mode: Mode) -> Limits:
    """The mode's defaults, changed as the environment says. Raises `ConfigurationError` with all problems."""
    values: dict[str, object] = {}
    problems: list[str] = []
    for field in dataclasses.fields(Limits):
        name = f"RISK_{field.name.upper()}"
        text = (environment.get(name) or "").strip()
        if text:
            try:
                values[field.name] = _value(field.name, text)
            except ValueError as wrong:
                problems.append(f"{name} {wrong}, not {shown(text)}")
    if problems:
        raise ConfigurationError("; ".join(problems))
    return dataclasses.replace(PAPER if mode == "paper" else LIVE, **values)  # type: ignore[arg-type]


def _value(field: str, text: str) -> object:
    none = text.lower() == "none"
    if field.startswith("symbols_"):
        if none:
            return None if field == "symbols_allowed" else frozenset()
        try:
            return frozenset(check_symbol(part.strip()) for part in text.split(",") if part.strip())
        except InvalidRequest:
            raise ValueError("must be tickers with commas between them, or none") from None
    if field == "delayed_quotes":
        if text.lower() not in ("true", "false"):
            raise ValueError("must be true or false")
        return text.lower() == "true"
    if none and field != "max_quote_age_seconds":
        return None
    number = _number(text)
    if field == "orders_per_minute" and number != int(number):
        raise ValueError("must be a whole number, or none")
    return int(number) if field == "orders_per_minute" else number


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError("must be a number from 0 on, or none")
    return number
