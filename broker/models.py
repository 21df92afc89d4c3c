"""What brokers talk about. The first fields of each are the migration plan's; added ones have defaults.

Quantities are shares, prices and amounts are in the account's currency unless said otherwise,
times are ISO 8601 with a UTC offset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
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
    order_type: str  # market, limit, stop, stop_limit, trailing_stop
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
    stop_price: float | None = None
    #: money to spend instead of a quantity, which the broker then decides
    notional: float | None = None
    #: how far a trailing stop follows the price: in currency, or in per cent
    trail_amount: float | None = None
    trail_percent: float | None = None
    #: of a bracket: what its legs are sent with
    take_profit_price: float | None = None
    stop_loss_price: float | None = None
    extended_hours: bool = False
    #: of the fills so far; None until the broker has told one
    commission: float | None = None
    #: our ids: the order that this one is a leg of, the one it replaced, and its own legs
    parent_id: str | None = None
    replaces: str | None = None
    legs: list[str] = field(default_factory=list)


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
    #: the price that wakes a stop or stop_limit order
    stop_price: float | None = None
    #: money to spend instead of a quantity; `qty` is 0 then
    notional: float | None = None
    #: of a trailing_stop, one of the two: how far it follows the price, in currency or in per cent
    trail_amount: float | None = None
    trail_percent: float | None = None
    #: both: a bracket, whose two legs may trade what the entry has filled, and of which one does
    take_profit_price: float | None = None
    stop_loss_price: float | None = None
    #: which account of the login; the connection's own when empty
    account: str = ""
    extended_hours: bool = False
    #: for limits: our id of the working order whose place it takes; `replace_order` sets it
    replaces: str = ""


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
    #: the order as the broker shows it now, where it told: a replacement changes them
    qty: float | None = None
    limit_price: float | None = None
    stop_price: float | None = None
    time_in_force: str | None = None
    #: when it was said, where that isn't the moment at which the journal takes it down
    at: datetime | None = None


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

    @property
    def age_seconds(self) -> float:
        """Seconds since the quote's time, never below 0."""
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(self.time)).total_seconds())


@dataclass
class Fill:
    """One execution. What a broker corrects later replaces the fill that it corrects."""

    #: the broker's execution id
    id: str
    #: our id of its order; empty when the journal doesn't know the order
    order_id: str
    client_order_id: str
    symbol: str
    side: str
    qty: float
    price: float
    time: str
    #: positive: paid; None until the broker tells it
    commission: float | None = None
    #: of price and commission
    currency: str = "USD"
    account_id: str = ""


@dataclass
class Fee:
    """What a broker charged the account beside the commissions of its fills, as it was booked."""

    #: the broker's id of the booking
    id: str
    #: the day it was booked for, as the broker tells it: 2026-11-20
    date: str
    #: positive: paid; negative: given back
    amount: float
    #: the broker's name of the kind of booking, such as FEE
    kind: str
    #: the broker's words, such as "TAF fee for proceed of 10 shares (1 trades) on 2026-11-20"
    description: str = ""
    #: empty where the broker books it for the account as a whole
    symbol: str = ""
    currency: str = "USD"
    account_id: str = ""


@dataclass
class OrderPreview:
    """What an order would cost and change, as the broker reckons it; nothing was placed. None: not told."""

    symbol: str
    side: str
    qty: float
    order_type: str
    estimated_cost: float | None = None
    commission: float | None = None
    #: lowest and highest, where the broker can't say the commission exactly
    commission_range: tuple[float, float] | None = None
    initial_margin_after: float | None = None
    maintenance_margin_after: float | None = None
    equity_after: float | None = None
    buying_power_after: float | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass
class PositionChange:
    """A position that isn't what our fills make of the last one seen."""

    symbol: str
    account_id: str
    #: when it was last compared, what the fills since then make of that, and what the broker shows now
    qty_before: float
    qty_expected: float
    qty_now: float


@dataclass
class OrderEvent:
    """Something that happened to orders.

    `status`: `order` as it is now. `fill`: one more execution (or a correction, or its commission).
    `gap`: events may be missing, so read orders and fills again. `unexplained_position`: the position
    isn't what the fills explain; a person looks.
    """

    kind: str
    time: str
    order: Order | None = None
    fill: Fill | None = None
    position: PositionChange | None = None
    message: str = ""


class EventKind:
    """The values of `OrderEvent.kind`."""

    STATUS: Final = "status"
    FILL: Final = "fill"
    GAP: Final = "gap"
    UNEXPLAINED_POSITION: Final = "unexplained_position"


@dataclass
class FieldChange:
    """What a replacement changes of an order. None: there was none, or it isn't told."""

    #: qty, limit_price, stop_price or time_in_force
    field: str
    before: float | str | None
    after: float | str | None


@dataclass
class TimelineEntry:
    """One thing that happened to an order, or that was said about it."""

    #: when the journal learned of it; an execution has its own time in `fill`
    at: str
    #: one of `EntryKind`
    kind: str
    #: of `status`: what the order is from then on, in our word and the broker's
    status: str | None = None
    broker_status: str | None = None
    #: why, or what: the broker's words where it said some
    text: str = ""
    #: the broker's number of its message, such as IBKR's 399
    code: str | None = None
    #: of `status`: shares filled by then, and their average price, where that had changed
    filled_qty: float | None = None
    filled_price: float | None = None
    changes: list[FieldChange] = field(default_factory=list)
    #: of `fill` and `commission`: the execution as it was told then
    fill: Fill | None = None


class EntryKind:
    """The values of `TimelineEntry.kind`."""

    STATUS: Final = "status"
    #: a replacement was sent; it is confirmed by `changed`, or by the status of the order in its place
    CHANGE_REQUESTED: Final = "change_requested"
    CHANGED: Final = "changed"
    #: an execution, or a correction of one
    FILL: Final = "fill"
    #: what an execution cost, where that was told later than the execution
    COMMISSION: Final = "commission"
    #: a remark of the broker's that changed nothing
    MESSAGE: Final = "message"
    #: something before this isn't known, and `text` says what
    GAP: Final = "gap"


@dataclass
class Timeline:
    """An order's whole life, oldest first."""

    #: as it is now
    order: Order
    #: in the order in which the journal learned of them
    entries: list[TimelineEntry]
    #: whether nothing is missing: no entry is a `gap`
    complete: bool


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
    #: connected, connecting, disconnected, no_api, link_lost, client_id_in_use, not_logged_in,
    #: second_factor, competing, wrong_account, stand_by, not_configured
    state: str
    since: str
    reason: str = ""
    doing: str = ""
    #: when an answer last came from beyond the gateway
    proved_at: str | None = None
    round_trip_ms: float | None = None
    #: when the broker's servers are next restarted, where they are at fixed times
    next_reset: str | None = None
    #: a person may have to confirm the login: certain in the state `second_factor`, else what a live
    #: login that isn't there may well wait for
    second_factor: bool = False
    details: dict[str, Any] = field(default_factory=dict)


def iso(moment: datetime | None) -> str | None:
    """A moment as ISO 8601 with seconds' fraction, or None."""
    return None if moment is None else moment.isoformat()
