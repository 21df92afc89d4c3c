"""What Alpaca shows, taken down in the journal and told to listeners, each change once.

Answers, the stream and look-ups tell of the same order in any order. What is older than what is
known changes nothing: the journal sees to it for fills and final orders, this class for an order
that was only passed on (`pending`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from broker.brokers.alpaca import translation
from broker.journal import Journal
from broker.models import (
    ACKNOWLEDGED_STATUSES,
    EventKind,
    Fill,
    Order,
    OrderEvent,
    OrderReport,
    PositionChange,
    Status,
)
from broker.stream import EventStream

log = logging.getLogger(__name__)

#: orders whose last told state is remembered
REMEMBERED = 20_000


class Records:
    """One account's orders and fills. Safe to use from any thread."""

    def __init__(self, journal: Journal) -> None:
        self.events = EventStream("alpaca-events")
        self.account = ""
        self._journal = journal
        self._lock = threading.RLock()
        self._told: dict[str, tuple[object, ...]] = {}

    def take(self, found: Any, parent: Order | None = None) -> Order:
        """Take an order of Alpaca's down, with its legs; one that the journal doesn't know is entered."""
        with self._lock:
            known = self.known(found) or self._leg(found, parent)
            if known is not None:
                leg = known.parent_id is not None
                order = self.note(known, translation.report_of(found, leg))
            else:
                order = self._adopt(found, parent)
            return self.take_legs(order, found.legs or [])

    def take_legs(self, order: Order, legs: list[Any]) -> Order:
        """Take an order's legs down."""
        with self._lock:
            taken = [(leg, self.take(leg, order)) for leg in legs]
            ids = [o.id for leg, o in taken if translation.word(leg.status) != "replaced"]
            return order if set(ids) <= set(order.legs) else self._journal.attach(order.id, ids)

    def note(self, order: Order, report: OrderReport) -> Order:
        """Take down what Alpaca says about an order of the journal."""
        with self._lock:
            now = self._journal.get(order.account_id, order.id)
            self._told.setdefault(now.id, _state(now))
            if report.status == Status.PENDING and now.status in ACKNOWLEDGED_STATUSES:
                # The answer to placing it may be read after the stream has told more.
                return now
            order = self._journal.update(order.id, report)
            self._tell(order)
            return order

    def known(self, found: Any) -> Order | None:
        """The journal's order for one of Alpaca's."""
        order = self._journal.by_permanent_id(self.account, str(found.id))
        if order is None:
            order = self._journal.find(self.account, str(found.client_order_id or "")[:64])
            # Another order under the same id isn't it.
            if order is None or order.permanent_id is not None or not translation.same_order(order, found):
                return None
        return order

    def _leg(self, found: Any, entry: Order | None) -> Order | None:
        """The leg of ours that Alpaca shows for the first time: it ignores the ids that legs are given.

        Once their entry has filled, legs are listed without it (alpaca-trade-api-js 87).
        """
        if translation.word(found.order_class) == "simple":
            return None
        unseen = [
            order
            for order in self._journal.unsettled(self.account)
            if order.parent_id is not None and order.permanent_id is None and order.replaces is None
        ]
        legs = [
            leg
            for leg in unseen
            if (entry is None or leg.parent_id == entry.id) and translation.same_leg(leg, found)
        ]
        return legs[0] if len(legs) == 1 else None

    def take_fill(self, fill: Fill, key: str) -> bool:
        """Take an execution down, and tell it if it is news."""
        news = self._journal.fills.record(fill, execution=key)
        if news is None:
            return False
        order = self._journal.get(news.account_id, news.order_id) if news.order_id else None
        self.events.publish(OrderEvent(EventKind.FILL, _now(), order=order, fill=news))
        return True

    def take_activity(self, row: dict[str, Any]) -> bool:
        """Take down a fill that the account's activities show. Whether it is news."""
        order = self._journal.by_permanent_id(self.account, str(row["order_id"]))
        fill = translation.fill_of_activity(row, order, self.account)
        return self.take_fill(fill, translation.fill_key(str(row["order_id"]), row["cum_qty"]))

    def compare(self, held: Mapping[str, float], *, accept: bool) -> list[PositionChange]:
        """Positions that the fills don't explain; told to listeners when they are accepted."""
        changes = self._journal.fills.compare(self.account, held, accept=accept)
        for change in changes if accept else []:
            said = (
                f"{change.symbol} was {change.qty_before:g}, our fills make that {change.qty_expected:g}, "
                f"and the broker shows {change.qty_now:g}"
            )
            log.error("unexplained position change: %s", said)
            event = OrderEvent(EventKind.UNEXPLAINED_POSITION, _now(), position=change, message=said)
            self.events.publish(event)
        return changes

    def _adopt(self, found: Any, parent: Order | None) -> Order:
        request = translation.request_from(found)
        if self._journal.find(self.account, request.client_order_id) is not None:
            request = replace(request, client_order_id=translation.own_name(found))
        replaced = (
            self._journal.by_permanent_id(self.account, str(found.replaces)) if found.replaces else None
        )
        order = self._journal.adopt(
            self.account,
            request,
            translation.report_of(found),
            parent_id=parent.id if parent is not None else None,
            replaces=replaced.id if replaced is not None else None,
        )
        self._tell(order)
        return order

    def _tell(self, order: Order) -> None:
        state = _state(order)
        if self._told.get(order.id) == state:
            return
        self._told[order.id] = state
        if len(self._told) > REMEMBERED:
            self._told.pop(next(iter(self._told)))
        self.events.publish(OrderEvent(EventKind.STATUS, _now(), order=order))


def _state(order: Order) -> tuple[object, ...]:
    """What makes an order another one for a listener."""
    return (order.status, order.reason, order.filled_qty, order.qty)


def _now() -> str:
    return datetime.now(UTC).isoformat()
