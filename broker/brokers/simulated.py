"""A broker in this process: no account, no network, prices that a seed decides.

For trying code and for tests. It keeps its book in memory: orders outlive it in the journal only,
where those it had not filled end as cancelled. It is not the paper exchange of the local cloud,
which speaks the real protocols.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from broker.base import BaseBroker, Capabilities
from broker.brokers.simulated_book import HALF_SPREAD, START_PRICES, Book, Market, Resting
from broker.errors import (
    InvalidRequest,
    NotConnected,
    OrderNotCancellable,
    OrderNotFound,
    OrderNotReplaceable,
    UnknownSymbol,
    field_problem,
)
from broker.journal import Journal
from broker.market.hours import clock_from_calendar
from broker.models import (
    FINAL_STATUSES,
    AccountInfo,
    Clock,
    EventKind,
    Fill,
    Health,
    Order,
    OrderEvent,
    OrderPreview,
    OrderReport,
    OrderRequest,
    Position,
    Quote,
    Status,
    Timeline,
)
from broker.placement import Guard, judged_change, place
from broker.stream import EventStream
from broker.validation import check_client_order_id, check_order, check_symbol


def _now() -> datetime:
    return datetime.now(UTC)


class SimulatedBroker(BaseBroker):
    """Fills market orders at once and others when the price crosses them, for no commission."""

    name = "simulated"
    capabilities = Capabilities(
        order_types=frozenset({"market", "limit", "stop", "stop_limit", "trailing_stop"}),
        times_in_force=frozenset({"day", "gtc", "ioc", "fok"}),
        fractional=True,
        quotes=True,
        notional=True,
        replace=True,
        preview=True,
        fills=True,
        stream=True,
        bracket=True,
    )

    def __init__(
        self,
        journal: Journal | None = None,
        *,
        account: str = "SIM-1",
        cash: float = 100_000.0,
        seed: int = 1,
        clock: Callable[[], datetime] = _now,
        exchange: str = "",
        guard: Guard | None = None,
    ) -> None:
        """`exchange`: whose hours the market keeps (XNYS, say); always open without it.

        `guard` may refuse orders (see `broker.placement.place`).
        """
        self._journal = journal or Journal.in_file(":memory:")
        self._account = account
        self._opening_cash = cash
        self._clock = clock
        self._exchange = exchange
        self._guard = guard
        self._market = Market(seed, clock())
        self._book = Book(cash, self._market)
        self._events = EventStream("simulated-events")
        self._since = clock()
        self._connected = False
        self._lock = threading.RLock()

    # Connecting

    def connect(self) -> bool:
        """Open the book; what the journal holds as working from another process is cancelled."""
        with self._lock:
            if not self._connected:
                for order in self._journal.unsettled(self._account):
                    if order.id not in self._book.resting:
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

    def get_account(self, *, account: str = "") -> AccountInfo:
        """Cash, and positions at the walk's prices. `last_equity` is the opening cash."""
        with self._lock:
            self._ready()
            self._one_of([self._account], account)
            value, cash = self._book.value(), self._book.cash
            power = max(cash, 0.0)
            return AccountInfo(self._account, cash, power, value, value, self._opening_cash, "opening cash")

    def get_positions(self, *, account: str = "") -> list[Position]:
        """All holdings that aren't zero, by symbol."""
        with self._lock:
            self._ready()
            self._one_of([self._account], account)
            return [self._position(symbol) for symbol, h in sorted(self._book.holdings.items()) if h.qty]

    def get_position(self, symbol: str, *, account: str = "") -> Position | None:
        """One holding, or None."""
        symbol = check_symbol(symbol)
        with self._lock:
            self._ready()
            self._one_of([self._account], account)
            holding = self._book.holdings.get(symbol)
            return self._position(symbol) if holding and holding.qty else None

    def place_order(self, request: OrderRequest) -> Order:
        """See `BaseBroker.place_order`."""
        return place(
            request,
            capabilities=self.capabilities,
            journal=self._journal,
            account=lambda: self._chosen(request.account),
            prepare=lambda asked: self._known(asked.symbol),
            send=self._send,
            settle=lambda order: order,  # its outcome is never unknown here
            note=self._noted,
            guard=self._guard,
        )

    def get_order(self, order_id: str) -> Order:
        """See `BaseBroker.get_order`."""
        with self._lock:
            order = self._journal.get(self._account, order_id)
            self._ready()
            return self._journal.get(self._account, order.id)

    def get_order_by_client_id(self, client_order_id: str) -> Order:
        """See `BaseBroker.get_order_by_client_id`."""
        client_order_id = check_client_order_id(client_order_id)
        with self._lock:
            self._ready()
            order = self._journal.find(self._account, client_order_id)
            if order is None:
                raise OrderNotFound(f"no order has the client order id {client_order_id!a}")
            return order

    def get_order_timeline(self, order_id: str) -> Timeline:
        """See `BaseBroker.get_order_timeline`."""
        return self._journal.timeline(self.get_order(order_id))

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
            self._journal.cancel_asked(order.id)
            self._end(order, filled=False)
            return True

    def cancel_all_orders(self) -> list[Order]:
        """See `BaseBroker.cancel_all_orders`."""
        with self._lock:
            self._ready()
            working = [resting.order.id for resting in self._book.resting.values()]
            for order_id in working:
                if order_id in self._book.resting:  # a leg ends with its entry
                    self._journal.cancel_asked(order_id)
                    self._end(self._book.resting[order_id].order, filled=False)
            return [self._journal.get(self._account, order_id) for order_id in working]

    def replace_order(
        self,
        order_id: str,
        *,
        qty: float | None = None,
        limit_price: float | None = None,
        stop_price: float | None = None,
        time_in_force: str | None = None,
    ) -> Order:
        """See `BaseBroker.replace_order`; the order is changed in place."""
        with self._lock:
            order = self.get_order(order_id)
            if order.id not in self._book.resting:
                raise OrderNotReplaceable(f"the order is {order.status}", order)
            changed, _ = judged_change(
                order,
                self.capabilities,
                self._guard,
                qty=qty,
                limit_price=limit_price,
                stop_price=stop_price,
                time_in_force=time_in_force,
            )
            self._book.check_funds(changed)
            self._book.resting[order.id].order = changed
            shown = {n: getattr(changed, n) for n in ("qty", "limit_price", "stop_price", "time_in_force")}
            self._noted(changed, OrderReport(changed.status, **shown))
            self._match()
            return self._journal.get(self._account, order.id)

    def _resting_legs(self, symbol: str, side: str) -> list[Order]:
        return self._journal.resting_legs(self._account, symbol, side)

    def get_fills(self, since: datetime | None = None, limit: int = 500) -> list[Fill]:
        """See `BaseBroker.get_fills`."""
        with self._lock:
            self._ready()
            return self._journal.fills.recent(self._account, since, limit)

    def preview_order(self, request: OrderRequest) -> OrderPreview:
        """See `BaseBroker.preview_order`."""
        request = check_order(request, self.capabilities)
        with self._lock:
            self._ready()
            order = _as_order(request, self._known(request.symbol))
            if request.notional is not None:
                order.qty = self._book.shares_for(request.notional, order.symbol, order.side)
            self._book.check_funds(order)
            spread = HALF_SPREAD if order.side == "buy" else -HALF_SPREAD
            price = order.limit_price or order.stop_price or self._market.prices[order.symbol] + spread
            cost = price * order.qty
            after = self._book.cash - (cost if order.side == "buy" else -cost)
            return OrderPreview(
                order.symbol,
                order.side,
                order.qty,
                order.order_type,
                estimated_cost=cost,
                commission=0.0,
                equity_after=self._book.value(),
                buying_power_after=max(after, 0.0),
            )

    def subscribe(self, callback: Callable[[OrderEvent], None]) -> Callable[[], None]:
        """See `BaseBroker.subscribe`."""
        return self._events.subscribe(callback)

    def get_quote(self, symbol: str) -> Quote:
        """Bid and ask a cent either side of the walk."""
        with self._lock:
            symbol = self._known(symbol)
            self._ready()
            price = self._market.prices[symbol]
            now = self._clock().isoformat()
            bid, ask = price - HALF_SPREAD, price + HALF_SPREAD
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

    def _chosen(self, account: str) -> str:
        if account not in ("", self._account):
            raise InvalidRequest([field_problem("account", f"must be {self._account}", account)])
        return self._account

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
            if order.notional is not None:
                order = replace(order, qty=self._book.shares_for(order.notional, symbol, order.side))
            self._book.check_funds(order)
            number = uuid.uuid4().hex
            order = replace(order, broker_order_id=number)
            resting = Resting(order)
            self._book.resting[order.id] = resting
            self._add_legs(order)
            price = self._book.crossed(resting)
            if price is not None:
                self._book.trade(order, price)
                self._end(order, filled=True)
                return OrderReport(Status.FILLED, None, order.qty, price, number, number, qty=order.qty)
            if order.time_in_force in ("ioc", "fok"):
                self._end(order, filled=False)
                return OrderReport(Status.CANCELLED, reason="nothing could trade at once")
            return OrderReport(Status.SUBMITTED, broker_order_id=number, permanent_id=number)

    def _add_legs(self, entry: Order) -> None:
        """Take-profit and stop-loss: in the book now, in the market once the entry fills."""
        for leg in self._journal.legs_of(entry):
            number = uuid.uuid4().hex
            held = OrderReport(Status.ACCEPTED, broker_order_id=number, permanent_id=number)
            self._book.resting[leg.id] = Resting(self._noted(leg, held))

    def _noted(self, order: Order, report: OrderReport) -> Order:
        """Take down what became of an order, and tell who listens."""
        noted = self._journal.update(order.id, report)
        now = self._clock().isoformat()
        if noted.status == Status.FILLED and report.filled_price is not None:
            fill = Fill(
                id=uuid.uuid4().hex,
                order_id=noted.id,
                client_order_id=noted.client_order_id,
                symbol=noted.symbol,
                side=noted.side,
                qty=report.filled_qty,
                price=report.filled_price,
                time=now,
                commission=0.0,
                account_id=self._account,
            )
            self._journal.fills.record(fill)
            noted = self._journal.get(self._account, noted.id)
            self._events.publish(OrderEvent(EventKind.FILL, now, order=noted, fill=fill))
        self._events.publish(OrderEvent(EventKind.STATUS, now, order=noted))
        return noted

    def _end(self, order: Order, *, filled: bool) -> None:
        """Take an order that didn't trade (or what ends with one that did) out of the book.

        The legs of an entry that traded go to the market.
        """
        if filled:
            for leg in [r.order for r in self._book.resting.values() if r.order.parent_id == order.id]:
                self._noted(leg, OrderReport(Status.SUBMITTED))
        dependent = self._book.ends_with(order, filled)
        if not filled:
            dependent.append(order)
        for ended in dependent:
            if self._book.resting.pop(ended.id, None) is not None:
                self._noted(ended, OrderReport(Status.CANCELLED))

    def _match(self) -> None:
        for resting in list(self._book.resting.values()):
            order = resting.order
            price = self._book.crossed(resting) if order.id in self._book.resting else None
            if price is not None:
                self._book.trade(order, price)
                self._noted(order, OrderReport(Status.FILLED, None, order.qty, price))
                self._end(order, filled=True)

    def _position(self, symbol: str) -> Position:
        holding = self._book.holdings[symbol]
        price = self._market.prices[symbol]
        gain = (price - holding.cost) * holding.qty
        share = gain / abs(holding.cost * holding.qty)
        return Position(symbol, holding.qty, holding.cost, price, holding.qty * price, gain, share)


def _as_order(request: OrderRequest, symbol: str) -> Order:
    made = Order("", symbol, request.side, request.qty, request.order_type, Status.RECORDED)
    for name in ("limit_price", "stop_price", "notional", "time_in_force"):
        setattr(made, name, getattr(request, name))
    return made
