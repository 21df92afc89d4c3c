"""What brokers talk about. The first fields of each are the migration plan's; added ones have defaults.

Quantities are shares, prices and amounts are in the account's currency unless said otherwise,
times are ISO 8601 with a UTC offset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

Side = Literal["buy", "sell"]


@dataclass
class AccountInfo:
    """Standardized account information."""

    id: str
    cash: float
    buying_power: float
    portfolio_value: float
    equity: float
    last_equity: float
    #: where `last_equity` comes from: brokers mean different closes by it
    last_equity_source: str = ""
    currency: str = "USD"


@dataclass
class Position:
    """Standardized position information. A short position has a negative `qty` and `market_value`."""

    symbol: str
    qty: float
    avg_entry_price: float
    current_price: float
    market_value: float
    unrealized_pl: float
    #: a fraction of the cost, so 0.05 is five per cent
    unrealized_plpc: float
    currency: str = "USD"
    instrument_id: str = ""


@dataclass
class Order:
    """Standardized order information. `id` is ours (the journal's), never the broker's."""

    id: str
    symbol: str
    side: str  # 'buy' or 'sell'
    qty: float
    order_type: str  # 'market', 'limit'
    status: str
    limit_price: float | None = None
    filled_qty: float = 0
    filled_price: float | None = None
    created_at: str | None = None
    client_order_id: str = ""
    time_in_force: str = "day"
    account_id: str = ""
    updated_at: str | None = None
    #: why it was rejected, cancelled or isn't known, in the broker's words
    reason: str | None = None
    reason_code: str | None = None
    #: the broker's own numbers: `broker_order_id` may be issued anew, `permanent_id` never is
    broker_order_id: str | None = None
    permanent_id: str | None = None
    broker_status: str | None = None
    #: what the broker remarked without refusing the order
    warnings: list[str] = field(default_factory=list)


class Status:
    """The values of `Order.status`, the same for all brokers."""

    RECORDED: Final = "recorded"  # in our journal, not sent
    SENT: Final = "sent"  # left us, no answer yet
    PENDING: Final = "pending"  # the broker has it, the exchange doesn't
    ACCEPTED: Final = "accepted"  # held by the broker until it may work (TWS: PreSubmitted)
    SUBMITTED: Final = "submitted"  # working
    PARTIALLY_FILLED: Final = "partially_filled"
    INACTIVE: Final = "inactive"  # the broker keeps it without working it (TWS: Inactive)
    PENDING_CANCEL: Final = "pending_cancel"
    FILLED: Final = "filled"
    CANCELLED: Final = "cancelled"
    REJECTED: Final = "rejected"
    EXPIRED: Final = "expired"
    UNKNOWN: Final = "unknown"  # sent, and nothing tells what became of it


#: nothing more happens to an order in one of these
FINAL_STATUSES: Final = frozenset({Status.FILLED, Status.CANCELLED, Status.REJECTED, Status.EXPIRED})
#: the broker has acknowledged an order in one of these
ACKNOWLEDGED_STATUSES: Final = frozenset(
    {
        Status.PENDING,
        Status.ACCEPTED,
        Status.SUBMITTED,
        Status.PARTIALLY_FILLED,
        Status.INACTIVE,
        Status.PENDING_CANCEL,
    }
)


@dataclass(frozen=True)
class OrderRequest:
    """An order as somebody asks for it. `broker.validation.check_order` says what is wrong with one."""

    symbol: str
    side: str
    qty: float
    order_type: str
    limit_price: float | None = None
    time_in_force: str = "day"
    client_order_id: str = ""
    #: who asked, for the journal
    placed_by: str = ""


@dataclass(frozen=True)
class OrderReport:
    """What a broker says about an order at one moment."""

    status: str
    broker_status: str | None = None
    filled_qty: float = 0.0
    filled_price: float | None = None
    broker_order_id: str | None = None
    permanent_id: str | None = None
    reason: str | None = None
    reason_code: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass
class Quote:
    """Prices of one instrument. `None` means that the broker gave none, never zero."""

    symbol: str
    bid: float | None
    ask: float | None
    last: float | None
    close: float | None
    #: when it arrived here
    time: str
    #: live, delayed, frozen or simulated
    kind: str
    source: str


@dataclass
class Clock:
    """Whether the market is open, and when that changes. `source`: broker (its own hours) or calendar."""

    time: str
    is_open: bool
    next_open: str | None
    next_close: str | None
    source: str
    exchange: str = "XNYS"


@dataclass
class Health:
    """The link to the broker as last proved, not merely a living process."""

    ok: bool
    #: connected, connecting, disconnected, link_lost, client_id_in_use, not_logged_in, second_factor,
    #: stand_by, not_configured
    state: str
    since: str
    reason: str = ""
    doing: str = ""
    #: when an answer last came from beyond the gateway
    proved_at: str | None = None
    round_trip_ms: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


def iso(moment: datetime | None) -> str | None:
    """A moment as ISO 8601 with seconds' fraction, or None."""
    return None if moment is None else moment.isoformat()
