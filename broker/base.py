"""The interface every broker implements: the migration plan's eleven methods, and what they need.

Every method may be called from any thread. None of them returns `None`, `[]` or `False` for a
failure: failures are the exceptions of `broker.errors`. `None` from `get_position` means that
the symbol isn't held, and `[]` that there are none.

The `*_async` methods are the same operations for callers on an event loop, which they never block.
"""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from broker.errors import UnsupportedOperation
from broker.models import AccountInfo, Clock, Health, Order, OrderRequest, Position, Quote

P = ParamSpec("P")
T = TypeVar("T")

#: calls that may wait for one slow broker at once; more queue up, so that other work keeps its threads
WAITING_CALLS = 32


@dataclass(frozen=True)
class Capabilities:
    """What a broker can do beyond the plan's methods."""

    order_types: frozenset[str] = frozenset({"market", "limit"})
    times_in_force: frozenset[str] = frozenset({"day", "gtc"})
    fractional: bool = False
    quotes: bool = False
    #: only one process at a time may hold the connection, so a lease decides which
    exclusive: bool = False


class BaseBroker(ABC):
    """Abstract base class for broker implementations."""

    name: str = ""
    capabilities: Capabilities = Capabilities()
    _executor: ThreadPoolExecutor | None = None

    @abstractmethod
    def connect(self) -> bool:
        """Connect to the broker. True once connected; else raises `NotConnected`, and goes on trying."""

    @abstractmethod
    def disconnect(self) -> None:
        """Disconnect from the broker, and stop reconnecting. Orders at the broker stay as they are."""

    @abstractmethod
    def get_account(self) -> AccountInfo:
        """Get account information. Raises `NotConnected`."""

    @abstractmethod
    def get_positions(self) -> list[Position]:
        """Get all open positions; an empty list means that there are none. Raises `NotConnected`."""

    @abstractmethod
    def get_position(self, symbol: str) -> Position | None:
        """Position for a specific symbol; None if it isn't held. Raises `NotConnected`, `InvalidRequest`."""

    @abstractmethod
    def place_order(self, request: OrderRequest) -> Order:
        """Place an order: journalled, sent once, and returned with the broker's first answer.

        Raises `InvalidRequest` (and `UnknownSymbol`, `AmbiguousContract`), `DuplicateClientOrderId`,
        `NotConnected`, `JournalUnavailable`: nothing was sent. `OrderRejected` (and `InsufficientFunds`,
        `MarketClosed`): the broker refused. `OrderOutcomeUnknown`: nobody knows yet.
        """

    @abstractmethod
    def get_order(self, order_id: str) -> Order:
        """Get order status by our id. Raises `OrderNotFound`, `NotConnected`."""

    @abstractmethod
    def get_orders_history(self, limit: int = 50) -> list[Order]:
        """Get recent order history, newest first, at most `limit`. Raises `NotConnected`."""

    @abstractmethod
    def cancel_order(self, order_id: str) -> bool:
        """Cancel an order. True: the broker has cancelled it, or taken the request (`pending_cancel`).

        Raises `OrderNotFound`, `OrderNotCancellable` (it is final already), `NotConnected`.
        """

    @abstractmethod
    def clock(self) -> Clock:
        """Whether the market is open, when that changes, and who says so."""

    @abstractmethod
    def health(self) -> Health:
        """The state of the link, proved by a round trip where there is one. Never raises for a dead link."""

    def place_market_order(
        self, symbol: str, qty: float, side: str, *, client_order_id: str = "", time_in_force: str = "day"
    ) -> Order:
        """Place a market order. See `place_order`; without a client order id a fresh one is made."""
        return self.place_order(
            OrderRequest(
                symbol, side, qty, "market", client_order_id=client_order_id, time_in_force=time_in_force
            )
        )

    def place_limit_order(
        self,
        symbol: str,
        qty: float,
        side: str,
        limit_price: float,
        *,
        client_order_id: str = "",
        time_in_force: str = "day",
    ) -> Order:
        """Place a limit order. See `place_order`; without a client order id a fresh one is made."""
        return self.place_order(
            OrderRequest(
                symbol,
                side,
                qty,
                "limit",
                limit_price=limit_price,
                client_order_id=client_order_id,
                time_in_force=time_in_force,
            )
        )

    def is_market_open(self) -> bool:
        """Check if market is open: holidays, half days and daylight saving included."""
        return self.clock().is_open

    def get_quote(self, symbol: str) -> Quote:
        """Current prices.

        Raises `UnsupportedOperation`, `UnknownSymbol`, `MarketDataUnavailable`, `NotConnected`.
        """
        raise UnsupportedOperation(f"{self.name} gives no quotes")

    def start(self) -> None:
        """Begin to connect without waiting for it; `health()` tells how it goes."""
        self.connect()

    # The same for callers on an event loop.

    async def get_account_async(self) -> AccountInfo:
        """`get_account` without blocking the event loop."""
        return await self._in_thread(self.get_account)

    async def get_positions_async(self) -> list[Position]:
        """`get_positions` without blocking the event loop."""
        return await self._in_thread(self.get_positions)

    async def get_position_async(self, symbol: str) -> Position | None:
        """`get_position` without blocking the event loop."""
        return await self._in_thread(self.get_position, symbol)

    async def place_order_async(self, request: OrderRequest) -> Order:
        """`place_order` without blocking the event loop."""
        return await self._in_thread(self.place_order, request)

    async def get_order_async(self, order_id: str) -> Order:
        """`get_order` without blocking the event loop."""
        return await self._in_thread(self.get_order, order_id)

    async def get_orders_history_async(self, limit: int = 50) -> list[Order]:
        """`get_orders_history` without blocking the event loop."""
        return await self._in_thread(self.get_orders_history, limit)

    async def cancel_order_async(self, order_id: str) -> bool:
        """`cancel_order` without blocking the event loop."""
        return await self._in_thread(self.cancel_order, order_id)

    async def get_quote_async(self, symbol: str) -> Quote:
        """`get_quote` without blocking the event loop."""
        return await self._in_thread(self.get_quote, symbol)

    async def clock_async(self) -> Clock:
        """`clock` without blocking the event loop."""
        return await self._in_thread(self.clock)

    async def health_async(self) -> Health:
        """`health` without blocking the event loop."""
        return await self._in_thread(self.health)

    async def disconnect_async(self) -> None:
        """`disconnect` without blocking the event loop."""
        await self._in_thread(self.disconnect)

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(WAITING_CALLS, thread_name_prefix=f"{self.name}-call")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, functools.partial(call, *args, **kwargs))
