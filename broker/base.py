"""The interface every broker implements: the migration plan's eleven methods, and what they need.

Every method may be called from any thread. None of them returns `None`, `[]` or `False` for a
failure: failures are the exceptions of `broker.errors`. `None` from `get_position` means that
the symbol isn't held, and `[]` that there are none.

The `*_async` methods are the same operations for callers on an event loop, which they never block.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any, ParamSpec, TypeVar

from broker.capabilities import Capabilities
from broker.errors import (
    InvalidRequest,
    OrderNotCancellable,
    OrderNotFound,
    UnsupportedOperation,
    field_problem,
)
from broker.models import (
    FINAL_STATUSES,
    AccountInfo,
    Clock,
    Fee,
    Fill,
    Health,
    Order,
    OrderEvent,
    OrderPreview,
    OrderRequest,
    Position,
    Quote,
    Timeline,
)
from broker.order_forms import OrderForms
from broker.stream import AsyncUpdates, Updates

__all__ = ["BaseBroker", "Capabilities"]

P = ParamSpec("P")
T = TypeVar("T")

#: calls that may wait for one slow broker at once; more queue up, so that other work keeps its threads
WAITING_CALLS = 32
#: the same of cancels, which must not wait for any of the others
URGENT_CALLS = 8
#: seconds to wait for the end of a bracket's legs before their position is closed
LEGS_END = 10.0


class BaseBroker(OrderForms):
    """Abstract base class for broker implementations."""

    name: str = ""
    capabilities: Capabilities = Capabilities()
    _executor: ThreadPoolExecutor | None = None
    _urgent: ThreadPoolExecutor | None = None
    _under_way: set[Future[Any]] | None = None

    @abstractmethod
    def connect(self) -> bool:
        """Connect to the broker. True once connected; else raises `NotConnected`, and goes on trying."""

    @abstractmethod
    def disconnect(self) -> None:
        """Disconnect from the broker, and stop reconnecting. Orders at the broker stay as they are."""

    @abstractmethod
    def get_account(self, *, account: str = "") -> AccountInfo:
        """Get account information. `account`: one of `get_accounts`; the connection's own unless given.

        Raises `NotConnected`, `InvalidRequest` (no such account).
        """

    @abstractmethod
    def get_positions(self, *, account: str = "") -> list[Position]:
        """Get all open positions of an account; an empty list means that there are none.

        Raises as `get_account`.
        """

    @abstractmethod
    def get_position(self, symbol: str, *, account: str = "") -> Position | None:
        """Position for a specific symbol; None if it isn't held. Raises as `get_account`."""

    @abstractmethod
    def place_order(self, request: OrderRequest) -> Order:
        """Place an order: journalled, sent once, and returned with the broker's first answer.

        A bracket's entry is returned; `Order.legs` are our ids of its take-profit and stop-loss.

        Raises `InvalidRequest` (and `UnknownSymbol`, `AmbiguousContract`), `DuplicateClientOrderId`,
        `NotConnected`, `JournalUnavailable`: nothing was sent. `OrderRejected` (and `InsufficientFunds`,
        `MarketClosed`): the broker refused. `OrderOutcomeUnknown`: nobody knows yet.
        """

    @abstractmethod
    def get_order(self, order_id: str) -> Order:
        """Get order status by our id. Raises `OrderNotFound`, `NotConnected`."""

    def get_order_timeline(self, order_id: str) -> Timeline:
        """An order's whole life: statuses, changes, executions and the broker's words, each with its time.

        From the journal. Of what wasn't placed from here it begins when the broker first showed it; what
        isn't known is said in an entry of its own. Raises as `get_order`.
        """
        raise self._cannot("tell an order's timeline")

    @abstractmethod
    def get_orders_history(self, limit: int = 50) -> list[Order]:
        """Get recent order history, newest first, at most `limit`. Raises `NotConnected`."""

    @abstractmethod
    def cancel_order(self, order_id: str) -> bool:
        """Cancel an order. True: the broker has cancelled it, or taken the request (`pending_cancel`).

        A bracket's entry takes its legs along, and a leg the other one.

        Raises `OrderNotFound`, `OrderNotCancellable` (it is final already), `NotConnected`.
        """

    @abstractmethod
    def clock(self) -> Clock:
        """Whether the market is open, when that changes, and who says so."""

    @abstractmethod
    def health(self) -> Health:
        """The state of the link, proved by a round trip where there is one. Never raises for a dead link."""

    def is_market_open(self) -> bool:
        """Check if market is open: holidays, half days and daylight saving included."""
        return self.clock().is_open

    def get_quote(self, symbol: str) -> Quote:
        """Current prices.

        Raises `UnsupportedOperation`, `UnknownSymbol`, `MarketDataUnavailable`, `NotConnected`.
        """
        raise self._cannot("give quotes")

    # Beyond the plan. What a broker can't do raises `UnsupportedOperation`; `capabilities` says so before.

    def get_accounts(self) -> list[str]:
        """The accounts that this login may trade, the connection's own first. Raises `NotConnected`."""
        return [self.get_account().id]

    def get_order_by_client_id(self, client_order_id: str) -> Order:
        """An order by the id that its caller chose. Raises `OrderNotFound`, `NotConnected`."""
        raise self._cannot("look orders up by client order id")

    def replace_order(
        self,
        order_id: str,
        *,
        qty: float | None = None,
        limit_price: float | None = None,
        stop_price: float | None = None,
        time_in_force: str | None = None,
    ) -> Order:
        """Change a working order; `qty` is the whole quantity, filled shares included.

        Of a bracket prices and the time in force can be changed, of each of its orders, not quantities.

        Returns the order as the broker shows it now: the same one where the broker changes it in
        place, else a new one whose `replaces` is the old one's id. A fill may come first.
        Raises `InvalidRequest`, `OrderNotFound`, `OrderNotReplaceable`, `NotConnected` (nothing was
        sent), `OrderOutcomeUnknown` (read the order: it works, changed or not).
        """
        raise self._cannot("replace orders")

    def cancel_all_orders(self) -> list[Order]:
        """Cancel every working order of ours, each as `cancel_order` does; the orders as they are then.

        An order that was final first isn't an error. Raises `NotConnected`.
        """
        raise self._cannot("cancel all orders")

    def close_position(self, symbol: str, *, qty: float | None = None, client_order_id: str = "") -> Order:
        """Sell what is held (or buy back what is short) at the market: all of it, or `qty` shares.

        The legs of brackets that would close the position as well are cancelled first, when all of it
        is closed. What the process doesn't live to close is without them then: repeat the call.
        Raises `InvalidRequest` (nothing is held, or less than `qty`, or legs close the rest), and what
        `place_order` and `cancel_order` raise.
        Repeated with the same client order id it is the same order, whatever is held by then.
        """
        if client_order_id:
            try:
                known = self.get_order_by_client_id(client_order_id)
            except OrderNotFound:
                pass  # the first time
            else:
                return self.place_order(
                    OrderRequest(symbol, known.side, known.qty, "market", client_order_id=client_order_id)
                )
        position, held = self._held(symbol, qty)
        side = "sell" if held > 0 else "buy"
        legs = self._resting_legs(position.symbol, side)
        if legs and abs(held) > (wanted := abs(held) if qty is None else qty):
            if wanted + _closed_by(legs) > abs(held):
                said = f"the legs of a bracket close {_closed_by(legs):g} of {abs(held):g}: cancel them first"
                raise InvalidRequest([field_problem("qty", said, qty)])
        elif legs:
            self._end_legs(legs)
            position, held = self._held(symbol, qty)  # a leg may have filled first
        wanted = abs(held) if qty is None else qty
        return self.place_order(
            OrderRequest(position.symbol, side, wanted, "market", client_order_id=client_order_id)
        )

    def _held(self, symbol: str, qty: float | None) -> tuple[Position, float]:
        position = self.get_position(symbol)
        held = 0.0 if position is None else position.qty
        if position is None or not held or (isinstance(qty, (int, float)) and qty > abs(held)):
            said = f"can be at most what is held, {abs(held):g}" if held else "nothing is held to close"
            raise InvalidRequest([field_problem("qty" if held else "symbol", said, qty if held else symbol)])
        return position, held

    def _resting_legs(self, symbol: str, side: str) -> list[Order]:
        """The legs of brackets that may still trade."""
        return []

    def _end_legs(self, legs: list[Order]) -> None:
        """Cancel legs, and wait until they are final. Raises `OrderNotCancellable` if one isn't in time."""
        for leg in legs:
            with contextlib.suppress(OrderNotCancellable):  # it ended by itself, or with the other leg
                self.cancel_order(leg.id)
        pause, deadline = threading.Event(), time.monotonic() + LEGS_END
        for leg in legs:
            while (order := self.get_order(leg.id)).status not in FINAL_STATUSES:
                if time.monotonic() > deadline:
                    raise OrderNotCancellable("a leg isn't cancelled yet: nothing was closed", order)
                pause.wait(0.05)

    def get_fills(self, since: datetime | None = None, limit: int = 500) -> list[Fill]:
        """Executions with their commissions, newest first, at most `limit`; those since a moment if given.

        From the journal, which keeps them longer than brokers do. Raises `NotConnected`.
        """
        raise self._cannot("list fills")

    def get_fees(self, since: datetime | None = None, limit: int = 500) -> list[Fee]:
        """Fees that the broker books for the account and not by fill, newest first, at most `limit`.

        Only where `capabilities.fees` says so: elsewhere a fill's commission is all there is. Raises
        `NotConnected`.
        """
        raise self._cannot("list fees: commissions of fills include them")

    def preview_order(self, request: OrderRequest) -> OrderPreview:
        """What an order would cost and how margin would change; nothing is placed or journalled.

        Raises `InvalidRequest`, `OrderRejected` (it would be refused), `NotConnected`.
        """
        raise self._cannot("preview orders")

    def subscribe(self, callback: Callable[[OrderEvent], None]) -> Callable[[], None]:
        """Call `callback` with every order event from now on; calling the result ends that.

        Callbacks run one after the other on a thread of their own, and may call the broker.
        """
        raise self._cannot("stream order updates")

    def order_updates(self) -> Updates:
        """Order events from now on as a blocking iterator; its `close` ends it from any thread."""
        return Updates(self.subscribe)

    def order_updates_async(self) -> AsyncUpdates:
        """Order events from now on, for `async for`; its `aclose` ends it."""
        return AsyncUpdates(self.subscribe)

    def _one_of(self, accounts: Sequence[str], asked: str) -> str:
        """The account asked for, or the first of the login's. Raises `InvalidRequest`."""
        if asked and asked not in accounts:
            said = f"must be one of the login's accounts: {', '.join(accounts)}"
            raise InvalidRequest([field_problem("account", said, asked)])
        return asked or accounts[0]

    def _cannot(self, what: str) -> UnsupportedOperation:
        return UnsupportedOperation(f"{self.name} can't {what}")

    def start(self) -> None:
        """Begin to connect without waiting for it; `health()` tells how it goes."""
        self.connect()

    # The same for callers on an event loop.

    async def get_account_async(self, *, account: str = "") -> AccountInfo:
        """`get_account` without blocking the event loop."""
        return await self._in_thread(self.get_account, account=account)

    async def get_positions_async(self, *, account: str = "") -> list[Position]:
        """`get_positions` without blocking the event loop."""
        return await self._in_thread(self.get_positions, account=account)

    async def get_position_async(self, symbol: str, *, account: str = "") -> Position | None:
        """`get_position` without blocking the event loop."""
        return await self._in_thread(self.get_position, symbol, account=account)

    async def place_order_async(self, request: OrderRequest) -> Order:
        """`place_order` without blocking the event loop."""
        return await self._in_thread(self.place_order, request)

    async def get_order_async(self, order_id: str) -> Order:
        """`get_order` without blocking the event loop."""
        return await self._in_thread(self.get_order, order_id)

    async def get_order_timeline_async(self, order_id: str) -> Timeline:
        """`get_order_timeline` without blocking the event loop."""
        return await self._in_thread(self.get_order_timeline, order_id)

    async def get_orders_history_async(self, limit: int = 50) -> list[Order]:
        """`get_orders_history` without blocking the event loop."""
        return await self._in_thread(self.get_orders_history, limit)

    async def cancel_order_async(self, order_id: str) -> bool:
        """`cancel_order` without blocking the event loop; it doesn't queue behind other waiting calls."""
        return await self._at_once(self.cancel_order, order_id)

    async def get_accounts_async(self) -> list[str]:
        """`get_accounts` without blocking the event loop."""
        return await self._in_thread(self.get_accounts)

    async def get_order_by_client_id_async(self, client_order_id: str) -> Order:
        """`get_order_by_client_id` without blocking the event loop."""
        return await self._in_thread(self.get_order_by_client_id, client_order_id)

    async def place_stop_order_async(
        self, symbol: str, qty: float, side: str, stop_price: float, **options: str
    ) -> Order:
        """`place_stop_order` without blocking the event loop."""
        return await self._in_thread(self.place_stop_order, symbol, qty, side, stop_price, **options)

    async def place_stop_limit_order_async(
        self, symbol: str, qty: float, side: str, stop_price: float, limit_price: float, **options: str
    ) -> Order:
        """`place_stop_limit_order` without blocking the event loop."""
        return await self._in_thread(
            self.place_stop_limit_order, symbol, qty, side, stop_price, limit_price, **options
        )

    async def replace_order_async(
        self,
        order_id: str,
        *,
        qty: float | None = None,
        limit_price: float | None = None,
        stop_price: float | None = None,
        time_in_force: str | None = None,
    ) -> Order:
        """`replace_order` without blocking the event loop."""
        return await self._in_thread(
            self.replace_order,
            order_id,
            qty=qty,
            limit_price=limit_price,
            stop_price=stop_price,
            time_in_force=time_in_force,
        )

    async def cancel_all_orders_async(self) -> list[Order]:
        """`cancel_all_orders` without blocking the event loop; it doesn't queue behind other calls."""
        return await self._at_once(self.cancel_all_orders)

    async def close_position_async(
        self, symbol: str, *, qty: float | None = None, client_order_id: str = ""
    ) -> Order:
        """`close_position` without blocking the event loop."""
        return await self._in_thread(self.close_position, symbol, qty=qty, client_order_id=client_order_id)

    async def get_fills_async(self, since: datetime | None = None, limit: int = 500) -> list[Fill]:
        """`get_fills` without blocking the event loop."""
        return await self._in_thread(self.get_fills, since, limit)

    async def get_fees_async(self, since: datetime | None = None, limit: int = 500) -> list[Fee]:
        """`get_fees` without blocking the event loop."""
        return await self._in_thread(self.get_fees, since, limit)

    async def preview_order_async(self, request: OrderRequest) -> OrderPreview:
        """`preview_order` without blocking the event loop."""
        return await self._in_thread(self.preview_order, request)

    async def get_quote_async(self, symbol: str) -> Quote:
        """`get_quote` without blocking the event loop."""
        return await self._in_thread(self.get_quote, symbol)

    async def clock_async(self) -> Clock:
        """`clock` without blocking the event loop."""
        return await self._in_thread(self.clock)

    async def health_async(self) -> Health:
        """`health` without blocking the event loop."""
        return await self._in_thread(self.health)

    @property
    def busy(self) -> bool:
        """Whether calls of the `*_async` methods are under way, those included whose caller has gone away."""
        return bool(self._under_way)

    async def connect_async(self) -> bool:
        """`connect` without blocking the event loop."""
        return await self._in_thread(self.connect)

    async def disconnect_async(self) -> None:
        """`disconnect` without blocking the event loop."""
        await self._in_thread(self.disconnect)

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(WAITING_CALLS, thread_name_prefix=f"{self.name}-call")
        return await self._submitted(self._executor, functools.partial(call, *args, **kwargs))

    async def _at_once(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread of those that are kept for cancels."""
        if self._urgent is None:
            self._urgent = ThreadPoolExecutor(URGENT_CALLS, thread_name_prefix=f"{self.name}-cancel")
        return await self._submitted(self._urgent, functools.partial(call, *args, **kwargs))

    async def _submitted(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        under_way = self._under_way = set() if self._under_way is None else self._under_way
        running = threads.submit(call)
        under_way.add(running)
        running.add_done_callback(under_way.discard)
        return await asyncio.wrap_future(running)


def _closed_by(legs: list[Order]) -> float:
    """Shares that legs may still trade: of each bracket one fills."""
    left: dict[str | None, float] = {}
    for leg in legs:
        left[leg.parent_id] = max(left.get(leg.parent_id, 0.0), leg.qty - leg.filled_qty)
    return sum(left.values())
