"""What TWS says about orders, on its way to the journal and to whoever listens.

Everything is written in one order, by the journal's thread, and told to listeners once it is
written. What a message repeats (TWS sends every status at least twice) is told once.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from broker.brokers.ibkr import library
from broker.brokers.ibkr.executions import Execution
from broker.brokers.ibkr.journal_writer import JournalWriter
from broker.brokers.ibkr.orders import OrderBook, TrackedOrder
from broker.brokers.ibkr.reconcile import Reconciled, reconcile
from broker.brokers.ibkr.session import Session
from broker.errors import BrokerError, NotConnected
from broker.journal import Journal
from broker.models import EventKind, Fill, Order, OrderEvent, PositionChange
from broker.stream import EventStream, gap

log = logging.getLogger(__name__)

#: seconds after which positions and fills have caught up with each other, and how often they are
#: compared before a difference is reported
SETTLES, COMPARISONS = 1.0, 4
#: seconds in which several moves are one
GATHERS = 0.3
#: seconds until the next comparison when one couldn't be made
COMPARE_AGAIN = 5.0
#: orders whose last told state is remembered
REMEMBERED = 20_000


class OrderNews:
    """From `start` to `stop`. The coroutines run on the session's loop."""

    def __init__(self, journal: Journal, name: str) -> None:
        self.events = EventStream(f"{name}-events")
        self._journal = journal
        self._name = name
        self._writer: JournalWriter | None = None
        self._told: dict[str, tuple[object, ...]] = {}
        self._connected_before = False

    def start(self) -> None:
        """Begin to write to the journal."""
        self._writer = JournalWriter(f"{self._name}-journal", self._journal)

    def stop(self) -> None:
        """Write what is left, and end."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()

    def flush(self) -> None:
        """Wait until the journal holds all that TWS said. Raises `JournalUnavailable`."""
        if self._writer is not None:
            self._writer.flush()

    def new_book(self) -> OrderBook:
        """An empty book for a new session, whose news come here."""
        return OrderBook(self.changed, self.executed)

    def changed(self, order: TrackedOrder) -> None:
        """TWS said something about an order."""
        if order.journal_id and self._writer is not None:
            order.note_state()
            self._writer.put(order.journal_id, functools.partial(self._write, order.journal_id, order))

    def executed(self, order: TrackedOrder, execution: Execution) -> None:
        """An execution, or what it cost. Before the first reconciliation it waits for its order."""
        if self._writer is not None and (order.journal_id or order.reconciled):
            self._writer.put(execution.id, functools.partial(self._take_down, order, execution))

    async def reconcile(self, session: Session) -> None:
        """Bring the journal in line with what the session shows. Raises `JournalUnavailable`."""
        if self._connected_before:
            self.events.publish(gap("the link was away; what is known of that time follows"))
        self._connected_before = True
        await self.settle(session)
        session.positions_moved.set()

    async def settle(self, session: Session) -> None:
        """Look up what the journal holds open among what the session shows. Raises `JournalUnavailable`."""
        if self._writer is not None:
            held = {account: _held(session, account) for account in session.accounts}
            # In the writer's turn: what it writes now can't overtake or be overtaken by an order's news.
            work = functools.partial(self._reconcile, held, list(session.book))
            await asyncio.wrap_future(self._writer.run(work))

    async def watch_positions(self, session: Session) -> None:
        """Compare positions with fills at once and whenever they move, until cancelled.

        TWS tells executions of the day only: after a longer gap nothing but the positions tells that
        something happened.
        """
        while True:
            await session.positions_moved.wait()
            await asyncio.sleep(GATHERS)
            session.positions_moved.clear()
            try:
                for account in session.accounts:
                    await self._compare(session, account)
            except (BrokerError, library.RequestError) as failure:
                log.warning("positions can't be compared with fills now: %s", failure)
                await asyncio.sleep(COMPARE_AGAIN)
                session.positions_moved.set()

    def _write(self, journal_id: str, tracked: TrackedOrder) -> Callable[[], None]:
        trail = tracked.trail.copy()
        order = self._journal.update(journal_id, *trail, tracked.report())

        def written() -> None:
            for _ in range(min(len(trail), len(tracked.trail))):
                tracked.trail.popleft()
            self._tell(order)

        return written

    def _take_down(self, tracked: TrackedOrder, execution: Execution) -> Callable[[], None]:
        news = self._record(tracked, execution, tracked.journal_id)
        return functools.partial(self._tell_fill, news) if news is not None else _nothing

    def _record(
        self, tracked: TrackedOrder, execution: Execution, journal_id: str
    ) -> tuple[Fill, Order | None] | None:
        fill = execution.fill(journal_id, tracked.reference if journal_id else "")
        news = self._journal.fills.record(fill, execution=execution.key, revision=execution.revision)
        if news is None:
            return None
        return news, self._journal.get(news.account_id, news.order_id) if news.order_id else None

    def _reconcile(self, held: dict[str, dict[str, float]], shown: list[TrackedOrder]) -> None:
        done: list[Reconciled] = []
        fills: list[tuple[Fill, Order | None]] = []
        with self._journal.together():
            for account, positions in held.items():
                found = reconcile(self._journal, account, shown)
                for order in found.before:
                    self._told.setdefault(order.id, _state(order))
                entered = {id(tracked): order.id for tracked, order, _ in found.adopted}
                for tracked in shown:
                    if tracked.account == account:
                        tracked.reconciled = True
                        journal_id = tracked.journal_id or entered.get(id(tracked), "")
                        recorded = [
                            self._record(tracked, execution, journal_id)
                            for execution in list(tracked.executions.values())
                        ]
                        fills += [news for news in recorded if news is not None]
                # An account's first comparison has to be made while nothing trades.
                self._journal.fills.begin(account, positions)
                done.append(found)
        for found in done:
            for tracked, order, written in found.adopted:
                tracked.journal_id = order.id
                if tracked.report() != written:  # told between the two, when it had no id to be written under
                    self.changed(tracked)
        for news in fills:
            self._tell_fill(news)
        for found in done:
            for order in found.orders.values():
                self._tell(order)

    async def _compare(self, session: Session, account: str) -> None:
        for attempt in range(COMPARISONS):
            if attempt:  # what we traded is told by itself; what others did has to be asked for
                await asyncio.sleep(SETTLES)
                await session.refresh_executions()
                await self.settle(session)
            writer = self._writer
            if writer is None or session.lost.is_set():
                raise NotConnected(session.why_lost or "the connection was closed")
            last = attempt == COMPARISONS - 1
            held = _held(session, account)
            compare = functools.partial(self._journal.fills.compare, account, held, accept=last)
            changes = await asyncio.wrap_future(writer.run(compare))
            if not changes:
                return
        for change in changes:
            self._tell_position(change)

    def _tell(self, order: Order) -> None:
        state = _state(order)
        if self._told.get(order.id) == state:
            return
        self._told[order.id] = state
        if len(self._told) > REMEMBERED:
            self._told.pop(next(iter(self._told)))
        self.events.publish(OrderEvent(EventKind.STATUS, _now(), order=order))

    def _tell_fill(self, news: tuple[Fill, Order | None]) -> None:
        fill, order = news
        self.events.publish(OrderEvent(EventKind.FILL, _now(), order=order, fill=fill))

    def _tell_position(self, change: PositionChange) -> None:
        said = (
            f"{change.symbol} was {change.qty_before:g}, our fills make that {change.qty_expected:g}, "
            f"and the broker shows {change.qty_now:g}"
        )
        log.error("unexplained position change: %s", said)
        event = OrderEvent(EventKind.UNEXPLAINED_POSITION, _now(), position=change, message=said)
        self.events.publish(event)


def _nothing() -> None:
    """Nobody has to be told."""


def _state(order: Order) -> tuple[object, ...]:
    """What makes an order another one for a listener."""
    numbers = (order.filled_qty, order.qty, order.limit_price, order.stop_price, order.time_in_force)
    return (order.status, order.reason, len(order.warnings), *numbers)


def _held(session: Session, account: str) -> dict[str, float]:
    held: dict[str, float] = {}
    for row in session.ib.positions(account):
        symbol = row.contract.symbol.replace(" ", ".")
        held[symbol] = held.get(symbol, 0.0) + float(row.position)
    return held


def _now() -> str:
    return datetime.now(UTC).isoformat()
