"""What the listeners of this process were told of orders and fills.

A journal's change is news where one process writes it. Where several share a gateway and a journal, the one
that writes first would be the only one to tell: each therefore keeps in mind what it has told, and looks into
the journal now and then for what others have written.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from broker.journal import Journal
from broker.models import EventKind, Fill, Order, OrderEvent
from broker.stream import EventStream

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
#: orders, and fills, kept in mind
KEPT = 5000
#: how far the clocks of processes may be apart, and what is known from the start
CLOCKS, KNOWN = timedelta(minutes=2), timedelta(days=1)


class Told:
    """Publishes what is news here. Usable from any thread."""

    def __init__(self, journal: Journal, events: EventStream, *, shared: bool) -> None:
        """`shared`: other processes write this journal, too."""
        self._journal, self._events = journal, events
        self.shared = shared
        self._lock = threading.RLock()
        self._orders: OrderedDict[str, Hashable] = OrderedDict()
        self._fills: OrderedDict[Hashable, None] = OrderedDict()
        self._looked: datetime | None = None

    @property
    def listened_to(self) -> bool:
        """Whether anybody listens."""
        return self._events.listened_to

    def publish(self, event: OrderEvent) -> None:
        """Pass an event on."""
        self._events.publish(event)

    def order(self, before: Order | None, after: Order) -> None:
        """An order as the journal has it now, and had it before."""
        state = _state(after)
        with self._lock:
            known = self._orders.get(after.id)
            if known is None and before is not None and (not self.shared or self._looked is None):
                known = _state(before)
            if self.shared:
                _keep(self._orders, after.id, state)
            if state != known:
                self._events.publish(OrderEvent(EventKind.STATUS, _now().isoformat(), order=after))

    def fill(self, told: Fill, news: Fill | None) -> None:
        """An execution as the gateway told it; `news`: the journal's, if it didn't know it so."""
        if self.shared:
            with self._lock:
                known = _is(told) in self._fills or self._looked is None
                _keep(self._fills, _is(told), None)
            news = news or (None if known else told)
        if news is not None:
            self._events.publish(OrderEvent(EventKind.FILL, _now().isoformat(), fill=news))

    def look(self, accounts: Iterable[str]) -> None:
        """Tell what other processes have written since the last look. The first one tells nothing."""
        if not self.shared:
            return
        began = _now()
        first = self._looked is None
        since = began - KNOWN if self._looked is None else self._looked - CLOCKS
        for account in accounts:
            orders = self._journal.changed_since(account, since, KEPT)
            fills = self._journal.fills.recent(account, since, KEPT)
            if first:
                orders += self._journal.unsettled(account)
                with self._lock:
                    for order in orders:
                        _keep(self._orders, order.id, _state(order))
                    for fill in fills:
                        _keep(self._fills, _is(fill), None)
                continue
            for order in orders:
                if _state(order) != self._orders.get(order.id):
                    with self._lock:  # what is told meanwhile is newer than what was read
                        self.order(None, self._journal.get(account, order.id))
            for fill in reversed(fills):
                self.fill(fill, None)
        self._looked = began


def _state(order: Order) -> Hashable:
    """What is news of an order when it changes."""
    return (order.status, order.filled_qty, order.qty, order.limit_price, order.stop_price)


def _is(fill: Fill) -> Hashable:
    return (fill.account_id, fill.id, fill.commission is not None)


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > KEPT:
        kept.popitem(last=False)


def _now() -> datetime:
    return datetime.now(UTC)
