"""A broker in this process: no account, no network, prices that a seed decides.

For trying code and for tests. It keeps its book in memory: orders outlive it in the journal only,
where those it had not filled end as cancelled. It is not the paper exchange of the local cloud,
which speaks the real protocols.
"""

from __future__ import annotations

import math
import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from broker.base import BaseBroker, Capabilities
from broker.errors import InsufficientFunds, NotConnected, OrderNotCancellable, UnknownSymbol
from broker.journal import Journal
from broker.market.hours import clock_from_calendar
from broker.models import (
    FINAL_STATUSES,
    AccountInfo,
    Clock,
    Health,
    Order,
    OrderReport,
    OrderRequest,
    Position,
    Quote,
    Status,
)
from broker.placement import place
from broker.validation import check_symbol

#: where the random walk begins, in dollars
START_PRICES = {
    "AAPL": 190.0,
    "AMZN": 180.0,
    "BRK.B": 450.0,
    "GOOGL": 170.0,
    "MSFT": 420.0,
    "NVDA": 120.0,
    "QQQ": 480.0,
    "SPY": 560.0,
    "TSLA": 240.0,
}
#: one step of the walk a second; 0.0002 a second is about 3 per cent a trading day
_STEP = 0.0002
_HALF_SPREAD = 0.01


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class _Holding:
    qty: float = 0.0
    cost: float = 0.0  # of one share, on average


@dataclass
class _Market:
    """Prices of all symbols: a random walk that the seed fixes, one step a second."""

    seed: int
    started: datetime
    prices: dict[str, float] = field(default_factory=lambda: dict(START_PRICES))
    steps: int = 0
    fixed: set[str] = field(default_factory=set)

    def advance(self, now: datetime) -> None:
        wanted = int((now - self.started).total_seconds())
        # A process that slept for a day takes the last hour's steps, not 86,400 of them.
        self.steps = max(self.steps, wanted - 3600)
        while self.steps < wanted:
            self.steps += 1
            drawn = random.Random(f"{self.seed}/{self.steps}")
            for symbol in START_PRICES:
                move = math.exp(drawn.gauss(0, _STEP))
                if symbol not in self.fixed:
                    self.prices[symbol] *= move


class SimulatedBroker(BaseBroker):
    """Fills market orders at once and limit orders when the price crosses them, without commissions."""

    name = "simulated"
    capabilities = Capabilities(fractional=True, quotes=True)

    def __init__(
        self,
        journal: Journal | None = None,
        *,
        account: str = "SIM-1",
        cash: float = 100_000.0,
        seed: int = 1,
        clock: Callable[[], datetime] = _now,
        exchange: str = "",
    ) -> None:
        """`exchange`: whose hours the market keeps (XNYS, say); always open without it."""
        self._journal = journal or Journal.in_file(":memory:")
        self._account = account
        self._opening_cash = self._cash = cash
        self._clock = clock
        self._exchange = exchange
        self._market = _Market(seed, clock())
        self._holdings: dict[str, _Holding] = {}
        self._working: dict[str, Order] = {}
        self._since = clock()
        self._connected = False
        self._lock = threading.RLock()

    def connect(self) -> bool:
        """Open the book; what the journal holds as working from another process is cancelled."""
        with self._lock:
            if not self._connected:
                for order in self._journal.unsettled(self._account):
                    if order.id not in self._working:
                        reason = "the simulated book ended with its process"
                        self._journal.update(order.id, OrderReport(Status.CANCELLED, reason=reason))
                self._connected, self._since = True, self._clock()
        return True

    def disconnect(self) -> None:
        """Close the book until the next `connect`; its orders stay."""
        with self._lock:
            self._connected, self._since = False, self._clock()

    def set_price(self, symbol: str, price: float) -> None:
        """Fix a price in dollars, and match what it crosses."""
        with self._lock:
            symbol = self._known(symbol)
            self._market.fixed.add(symbol)
            self._market.prices[symbol] = price
            self._match()

    def get_account(self) -> AccountInfo:
        """Cash, and positions at the walk's prices. `last_equity` is the opening cash."""
        with self._lock:
            self._ready()
            value = self._cash + sum(h.qty * self._market.prices[s] for s, h in self._holdings.items())
            power = max(self._cash, 0.0)
            return AccountInfo(
                self._account, self._cash, power, value, value, self._opening_cash, "opening cash"
            )

    def get_positions(self) -> list[Position]:
        """All holdings that aren't zero, by symbol."""
        with self._lock:
            self._ready()
            return [self._position(symbol) for symbol, h in sorted(self._holdings.items()) if h.qty]

    def get_position(self, symbol: str) -> Position | None:
        """One holding, or None."""
        symbol = check_symbol(symbol)
        with self._lock:
            self._ready()
            holding = self._holdings.get(symbol)
            return self._position(symbol) if holding and holding.qty else None

    def place_order(self, request: OrderRequest) -> Order:
        """See `BaseBroker.place_order`."""
        return place(
            request,
            capabilities=self.capabilities,
            journal=self._journal,
            account=lambda: self._account,
            prepare=lambda asked: self._known(asked.symbol),
            send=self._send,
            settle=lambda order: order,  # its outcome is never unknown here
            note=lambda order, report: self._journal.update(order.id, report),
        )

    def get_order(self, order_id: str) -> Order:
        """See `BaseBroker.get_order`."""
        with self._lock:
            order = self._journal.get(self._account, order_id)
            self._ready()
            return self._journal.get(self._account, order.id)

    def get_orders_history(self, limit: int = 50) -> list[Order]:
        """See `BaseBroker.get_orders_history`."""
        with self._lock:
            self._ready()
            return self._journal.recent(self._account, limit)

    def cancel_order(self, order_id: str) -> bool:
        """See `BaseBroker.cancel_order`; it is done when this returns."""
        with self._lock:
            order = self.get_order(order_id)
            if order.status in FINAL_STATUSES:
                raise OrderNotCancellable(f"the order is {order.status}", order)
            self._working.pop(order_id, None)
            self._journal.update(order_id, OrderReport(Status.CANCELLED))
            return True

    def get_quote(self, symbol: str) -> Quote:
        """Bid and ask a cent either side of the walk."""
        with self._lock:
            symbol = self._known(symbol)
            self._ready()
            price = self._market.prices[symbol]
            now = self._clock().isoformat()
            bid, ask = price - _HALF_SPREAD, price + _HALF_SPREAD
            return Quote(symbol, bid, ask, price, START_PRICES[symbol], now, "simulated", self.name)

    def clock(self) -> Clock:
        """The exchange's hours, or always open."""
        now = self._clock()
        if self._exchange:
            return clock_from_calendar(now, self._exchange)
        return Clock(now.isoformat(), True, None, None, "broker", exchange="simulated")

    def health(self) -> Health:
        """Always as `connect` and `disconnect` left it."""
        state = "connected" if self._connected else "disconnected"
        proved = self._clock().isoformat() if self._connected else None
        return Health(self._connected, state, self._since.isoformat(), proved_at=proved, round_trip_ms=0.0)

    def _known(self, symbol: str) -> str:
        symbol = check_symbol(symbol)
        if symbol not in START_PRICES:
            raise UnknownSymbol(symbol)
        return symbol

    def _ready(self) -> None:
        if not self._connected:
            raise NotConnected(
                "the simulated broker isn't connected", since=self._since, doing="call connect()"
            )
        self._market.advance(self._clock())
        self._match()

    def _send(self, order: Order, symbol: str) -> OrderReport:
        with self._lock:
            self._ready()
            price = self._market.prices[symbol]
            owned = self._holdings.get(symbol, _Holding()).qty
            needed = order.qty * (order.limit_price or price)
            if order.side == "buy" and needed > self._cash + max(-owned, 0.0) * price:
                raise InsufficientFunds(
                    f"insufficient buying power: {needed:.2f} needed, {self._cash:.2f} held"
                )
            number = uuid.uuid4().hex
            fill = self._crossed(order)
            if fill is not None:
                self._book(order, fill)
                return OrderReport(Status.FILLED, None, order.qty, fill, number, number)
            self._working[order.id] = replace(order, broker_order_id=number)
            return OrderReport(Status.SUBMITTED, broker_order_id=number, permanent_id=number)

    def _match(self) -> None:
        for order in list(self._working.values()):
            fill = self._crossed(order)
            if fill is not None:
                del self._working[order.id]
                self._book(order, fill)
                self._journal.update(order.id, OrderReport(Status.FILLED, None, order.qty, fill))

    def _crossed(self, order: Order) -> float | None:
        price = self._market.prices[order.symbol]
        if order.side == "buy":
            ask = price + _HALF_SPREAD
            return ask if order.limit_price is None or order.limit_price >= ask else None
        bid = price - _HALF_SPREAD
        return bid if order.limit_price is None or order.limit_price <= bid else None

    def _book(self, order: Order, price: float) -> None:
        signed = order.qty if order.side == "buy" else -order.qty
        holding = self._holdings.setdefault(order.symbol, _Holding())
        after = holding.qty + signed
        if holding.qty == 0 or holding.qty * signed > 0:
            holding.cost = (holding.qty * holding.cost + signed * price) / after
        elif after * holding.qty < 0:
            holding.cost = price
        holding.qty = after
        self._cash -= signed * price

    def _position(self, symbol: str) -> Position:
        holding = self._holdings[symbol]
        price = self._market.prices[symbol]
        gain = (price - holding.cost) * holding.qty
        share = gain / abs(holding.cost * holding.qty)
        return Position(symbol, holding.qty, holding.cost, price, holding.qty * price, gain, share)
