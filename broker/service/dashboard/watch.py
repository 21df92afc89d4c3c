"""What a connection shows now: gathered once for all who look.

What can't be read keeps its last value with the time of that value, so that a page can say how old it is. An
order event is shown at once, and the rest is read again after it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import structlog
from sqlalchemy import Engine

from broker.base import BaseBroker
from broker.errors import BrokerError
from broker.models import AccountInfo, Clock, EventKind, Health, Order, Position
from broker.risk.switch import KillSwitch, SwitchState
from broker.service.connections import Connection
from broker.service.dashboard.pushed import HEARTBEAT, Pushed

log = structlog.get_logger("broker.service.dashboard")

T = TypeVar("T")

#: seconds between two readings: through TWS they cost nothing, elsewhere they are requests that are counted
PUSHED_SECONDS, ASKED_SECONDS = 2.0, 5.0
#: how long one reading may take, in seconds
READ_SECONDS = 10.0
ORDERS_SHOWN = 100


@dataclass(frozen=True)
class Piece(Generic[T]):
    """One thing that is shown: its last value, when that was read, and why it couldn't be read since."""

    value: T | None = None
    at: datetime | None = None
    problem: str = ""

    def read(self, value: T) -> Piece[T]:
        """A new value, of now."""
        return Piece(value, datetime.now(UTC))

    def failed(self, why: str) -> Piece[T]:
        """The last value, and why there is no newer one."""
        return replace(self, problem=why)


@dataclass(frozen=True)
class Shown:
    """All that the pages show of a connection."""

    connection: str
    health: Piece[Health] = field(default_factory=Piece)
    account: Piece[AccountInfo] = field(default_factory=Piece)
    positions: Piece[list[Position]] = field(default_factory=Piece)
    orders: Piece[list[Order]] = field(default_factory=Piece)
    clock: Piece[Clock] = field(default_factory=Piece)
    switch: Piece[SwitchState] = field(default_factory=Piece)

    def with_order(self, order: Order) -> Shown:
        """With an order as it is now."""
        known = self.orders.value or []
        if any(one.id == order.id for one in known):
            orders = [order if one.id == order.id else one for one in known]
        else:
            orders = [order, *known]
        return replace(self, orders=replace(self.orders, value=orders[:ORDERS_SHOWN]))

    @property
    def unrealized(self) -> float | None:
        """Profit and loss of what is held, if it is known."""
        held = self.positions.value
        return None if held is None else sum(position.unrealized_pl for position in held)


Render = Callable[[str, Shown], str]


class Watch(Pushed):
    """One connection, looked at by any number of pages of this instance."""

    def __init__(
        self, name: str, via: Connection, engine: Engine, parts: Sequence[str], render: Render
    ) -> None:
        """`render(part, shown)` makes the HTML of one of the `parts`, once for everybody."""
        super().__init__()
        self._via = via
        self._switch = KillSwitch(engine)
        self._parts = parts
        self._render = render
        self.shown = Shown(name)

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        return [self._keep_reading(), self._keep_hearing()]

    async def _keep_reading(self) -> None:
        while True:
            try:
                self._see(await self._read(self.shown))
            except Exception:
                log.exception("the dashboard can't read", connection=self.shown.connection)
            await self._pause(self._interval())

    async def _keep_hearing(self) -> None:
        """Order events, as long as there is a broker that tells them."""
        while True:
            # Without a broker, or one that tells nothing, the readings go on.
            with contextlib.suppress(BrokerError):
                async for item in self._via.events().follow("", HEARTBEAT):
                    if item is None:
                        continue
                    event = item[1]
                    if event.kind == EventKind.STATUS and event.order is not None:
                        self._see(self.shown.with_order(event.order))
                    self.refresh()
            await asyncio.sleep(PUSHED_SECONDS)

    def _interval(self) -> float:
        with contextlib.suppress(BrokerError):
            return PUSHED_SECONDS if self._via.broker.capabilities.exclusive else ASKED_SECONDS
        return PUSHED_SECONDS

    def _see(self, shown: Shown) -> None:
        self.shown = shown
        self._show({part: self._render(part, shown) for part in self._parts})

    async def _read(self, before: Shown) -> Shown:
        health = await _reading(before.health, self._via.health())
        switch = await _reading(before.switch, asyncio.to_thread(self._switch.state))
        try:
            broker = self._via.broker
        except BrokerError as away:
            account = before.account.failed(away.message)
            positions, orders = before.positions.failed(away.message), before.orders.failed(away.message)
            clock = before.clock.failed(away.message)
        else:
            account, positions, orders, clock = await _read_broker(before, broker)
        return Shown(before.connection, health, account, positions, orders, clock, switch)


async def _read_broker(
    before: Shown, broker: BaseBroker
) -> tuple[Piece[AccountInfo], Piece[list[Position]], Piece[list[Order]], Piece[Clock]]:
    return await asyncio.gather(
        _reading(before.account, broker.get_account_async()),
        _reading(before.positions, broker.get_positions_async()),
        _reading(before.orders, broker.get_orders_history_async(ORDERS_SHOWN)),
        _reading(before.clock, broker.clock_async()),
    )


async def _reading(piece: Piece[T], reading: Awaitable[T]) -> Piece[T]:
    """The piece with what was read, or with why it wasn't."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            return piece.read(await reading)
    except BrokerError as failure:
        return piece.failed(failure.message)
    except TimeoutError:
        return piece.failed(f"no answer within {READ_SECONDS:g} s")
