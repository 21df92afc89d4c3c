"""What the exchange keeps: orders, executions and positions, and how it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

# Statuses are IBKR's own words (TWS API, "Order Status"), so that a front end needn't translate.
PRE_SUBMITTED = "PreSubmitted"
SUBMITTED = "Submitted"
FILLED = "Filled"
CANCELLED = "Cancelled"
INACTIVE = "Inactive"
# An order in one of these can still trade; Inactive here is an order that the exchange refused.
WORKING = frozenset({PRE_SUBMITTED, SUBMITTED})

ORDER_TYPES = frozenset({"MKT", "LMT", "STP", "STP LMT", "TRAIL"})
WAITS_FOR_TRIGGER = frozenset({"STP", "STP LMT", "TRAIL"})
TIMES_IN_FORCE = frozenset({"DAY", "GTC", "IOC", "FOK"})


class Refused(Exception):
    """The exchange will not do it; nothing was changed.

    `code` is one of: not_logged_in, unknown_method, invalid, unknown_contract, unknown_order, tick,
    not_working, history, unknown_account, duplicate_reference; and, for who asked for refusals instead of
    refused orders, buying_power, short_sale, quantity_held, permission. `message` is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass
class Order:
    """One order; prices in the contract's currency, times in seconds since the epoch.

    `client` is the front end's own note (client id, order id, wire fields), kept and given back untouched.
    `reason` says why the exchange refused or cancelled it, `reason_code` says it to programs: why it was
    refused, or `expired`, `replaced`, `group` for one that the exchange ended.

    `routed`: it has been in an open market. `notional`: an amount of money, which becomes a quantity when it
    first trades. `trail_amount` or `trail_percent`: how far a TRAIL order's stop follows `high_water`, the
    best price since it was routed. `parent`: the order that must be filled before this one is sent. `group`:
    orders of which one fills and the others end, or are reduced (`group_type`: TWS's ocaType). `replaces`
    and `replaced_by` are permanent ids.
    """

    perm_id: int
    account: str
    conid: int
    side: str
    quantity: float
    order_type: str
    limit_price: float | None = None
    stop_price: float | None = None
    tif: str = "DAY"
    outside_rth: bool = False
    order_ref: str = ""
    client: dict[str, Any] = field(default_factory=dict)
    status: str = PRE_SUBMITTED
    reason: str = ""
    reason_code: str = ""
    filled: float = 0.0
    average_price: float = 0.0
    last_price: float = 0.0
    commission: float = 0.0
    triggered: bool = False
    created: float = 0.0
    updated: float = 0.0
    expires: float | None = None
    traded: float | None = None
    routed: bool = False
    notional: float | None = None
    trail_amount: float | None = None
    trail_percent: float | None = None
    high_water: float | None = None
    parent: int | None = None
    group: str = ""
    group_type: int = 3
    replaces: int | None = None
    replaced_by: int | None = None

    @property
    def remaining(self) -> float:
        """Quantity that hasn't traded."""
        # Fractions of shares go to nine places; without the rounding, binary dust would stay open.
        return round(self.quantity - self.filled, 9)

    @property
    def sign(self) -> int:
        """+1 for a purchase, -1 for a sale."""
        return 1 if self.side == "BUY" else -1

    def as_dict(self) -> dict[str, Any]:
        """The order as it travels over the link."""
        return {**self.__dict__, "remaining": self.remaining}


@dataclass
class Execution:
    """One fill. `exec_id` has IBKR's form: four hexadecimal parts, the last of which counts corrections."""

    exec_id: str
    perm_id: int
    account: str
    conid: int
    side: str
    quantity: float
    price: float
    cumulative: float
    average_price: float
    time: float
    order_ref: str
    client: dict[str, Any]
    commission: float
    currency: str
    realized_pnl: float | None
    exchange: str
    liquidity: int

    def as_dict(self) -> dict[str, Any]:
        """The execution as it travels over the link."""
        return dict(self.__dict__)


def from_row(cls: type[Any], row: dict[str, Any]) -> Any:
    """An instance of the dataclass `cls` from a mapping that may hold more than its fields."""
    names = {item.name for item in fields(cls)}
    return cls(**{key: value for key, value in row.items() if key in names})
