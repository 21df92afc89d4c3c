"""`watch`: orders, fills and positions as they change."""

from __future__ import annotations

import queue
import time
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from broker.base import BaseBroker
from broker.cli import tables
from broker.cli.desk import Desk
from broker.cli.exits import Exit
from broker.cli.program import command
from broker.errors import BrokerError
from broker.models import EventKind, Fill, Order, OrderEvent, Position

#: seconds after which positions and their prices are read again
REFRESH = 5.0
SHOWN = 15


@dataclass
class Board:
    """What is on the screen."""

    orders: OrderedDict[str, Order] = field(default_factory=OrderedDict)
    fills: list[Fill] = field(default_factory=list)
    positions: list[Position] = field(default_factory=list)
    said: str = ""

    def read(self, broker: BaseBroker) -> None:
        """Take over what the broker holds now; an answer that fails is said, and the rest stays."""
        try:
            self.positions = broker.get_positions()
            self.orders = OrderedDict((o.id, o) for o in reversed(broker.get_orders_history(SHOWN)))
            self.fills = broker.get_fills(limit=SHOWN)
            self.said = ""
        except BrokerError as failure:
            self.said = f"{failure.kind}: {failure.message}"

    def take(self, event: OrderEvent) -> None:
        """Take over one event."""
        if event.order is not None:
            self.orders[event.order.id] = event.order
            self.orders.move_to_end(event.order.id)
        if event.fill is not None:
            known = [fill for fill in self.fills if fill.id != event.fill.id]
            self.fills = [event.fill, *known][:SHOWN]
        if event.kind in (EventKind.GAP, EventKind.UNEXPLAINED_POSITION):
            self.said = f"{event.kind}: {event.message}"

    def picture(self) -> Group:
        """As tables."""
        newest = list(reversed(self.orders.values()))[:SHOWN]
        parts: list[Any] = [tables.positions_table(self.positions), tables.orders_table(newest)]
        parts.append(tables.fills_table(self.fills))
        said = self.said or "Ctrl-C ends it"
        return Group(*parts, Text(said, style="bold red" if self.said else "dim"))


@command("watch")
def watch(
    desk: Desk,
    seconds: Annotated[float | None, typer.Option("--for", min=0, help="End after so many seconds.")] = None,
    events: Annotated[int | None, typer.Option("--events", min=1, help="End after so many events.")] = None,
) -> Exit:
    """Orders, fills and positions as they change, until Ctrl-C. With --json one event a line.

    Over IB Gateway it needs a client id of its own while it runs, and sees the orders of that client
    id only, unless the gateway names it as the master client id.
    """
    broker = desk.broker()
    arrived: queue.SimpleQueue[OrderEvent] = queue.SimpleQueue()
    unsubscribe = broker.subscribe(arrived.put)
    board = Board()
    board.read(broker)
    if desk.json:
        ready = {"kind": "watching", "orders": list(board.orders.values()), "positions": board.positions}
        desk.print_json(ready, indent=None)
    ends = None if seconds is None else time.monotonic() + seconds
    screen = nullcontext() if desk.json else Live(board.picture(), console=desk.out, auto_refresh=False)
    seen = 0
    try:
        with screen as live:
            while (events is None or seen < events) and (ends is None or time.monotonic() < ends):
                event = _next(arrived, ends)
                if event is not None:
                    seen += 1
                    board.take(event)
                if event is None or event.fill is not None:
                    board.read(broker)
                if desk.json and event is not None:
                    desk.print_json(event, indent=None)
                if live is not None:
                    live.update(board.picture(), refresh=True)
    except KeyboardInterrupt:
        pass  # how it is meant to end
    finally:
        unsubscribe()
    return Exit.OK


def _next(arrived: queue.SimpleQueue[OrderEvent], ends: float | None) -> OrderEvent | None:
    """The next event, or None when it is time to read anew."""
    wait = REFRESH if ends is None else max(0.0, min(REFRESH, ends - time.monotonic()))
    try:
        return arrived.get(timeout=wait)
    except queue.Empty:
        return None
