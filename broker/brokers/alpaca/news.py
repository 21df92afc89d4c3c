"""What Alpaca tells without being asked, taken down by one thread, and what follows a gap.

After every (re)connection of the stream, and after a failure to take something down: orders are
listed, fills read from the account's activities, and positions compared with the fills.

An order whose outcome is unknown is looked for, in the list and by its client order id, until Alpaca
shows it: at first every few seconds, later every minute, for a day; then at each reconciliation.
That Alpaca doesn't show it proves nothing however often it was asked (a request may sit in a queue
that answered 504), so such an order stays unknown, and a person decides what to make of it.
"""

from __future__ import annotations

import functools
import logging
import math
import queue
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.brokers.alpaca import translation
from broker.brokers.alpaca.desk import Desk
from broker.brokers.alpaca.records import Records
from broker.brokers.alpaca.stream import UpdateStream
from broker.brokers.alpaca.wire import Wire
from broker.errors import BrokerError
from broker.journal import Journal
from broker.models import Order, Status
from broker.stream import gap

log = logging.getLogger(__name__)

#: seconds until a reconciliation that failed is tried again, doubled each time up to the most
AGAIN, MOST = 2.0, 60.0
#: seconds in which the stream usually listens
LISTENS = 0.5
#: seconds between comparisons of positions
COMPARE_EVERY = 300.0
#: seconds after which positions and fills have caught up with each other, and how often they are
#: compared before a difference is reported
SETTLES, COMPARISONS = 1.0, 4
#: orders of unknown outcome: looked for so long on their own, and so many of them at once, the newest
LOOKED_FOR, LOOKED_FOR_AT_ONCE = timedelta(days=1), 20
#: fills are read from so long before the newest known one: some before it may be missing
OVERLAP = timedelta(days=3)
#: of a page of activities, and the most pages read at once
PAGE, PAGES = 100, 100


class News:
    """One account's news. `start` to `stop`."""

    def __init__(
        self,
        wire: Wire,
        records: Records,
        desk: Desk,
        journal: Journal,
        account: Callable[[], str],
        stream: Callable[[Callable[[Any], None], Callable[[], None]], UpdateStream],
    ) -> None:
        """`stream` opens the stream, given what is called with an update, and when it listens."""
        self._wire, self._records, self._desk, self._journal = wire, records, desk, journal
        self._account = account
        self._open_stream = stream
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stream: UpdateStream | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._behind = True
        self._listened = False
        self._reconciled = 0
        self._unknown = 0
        self._look_pause, self._look_at = AGAIN, math.inf
        desk.unanswered = self._unanswered

    @property
    def state(self) -> str:
        """The stream's state: off, connecting, connected, reconnecting."""
        return self._stream.state if self._stream is not None else "off"

    @property
    def reconciled(self) -> int:
        """How often the journal was brought in line with Alpaca."""
        return self._reconciled

    @property
    def unknown(self) -> int:
        """How many orders had an unknown outcome when they were last looked for."""
        return self._unknown

    def start(self) -> None:
        """Begin to listen."""
        if self._thread is None:
            self._behind = True
            self._stopping = threading.Event()
            self._queue = queue.SimpleQueue()
            self._thread = threading.Thread(
                target=self._run, args=(self._queue,), name="alpaca-news", daemon=True
            )
            self._thread.start()
            self._stream = self._open_stream(self._updated, self._listening)

    def stop(self) -> None:
        """End, with what was told taken down."""
        if self._stream is not None:
            self._stream.stop()
            self._stream = None
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            self._queue.put(None)
            thread.join(SETTLES)

    def read_fills(self, since: datetime | None, most: int = PAGE * PAGES) -> None:
        """Take down the account's fills since a moment, or the newest. Raises what requests raise."""
        for row in reversed(self.activities("FILL", since, most)):
            self._records.take_activity(row)

    def activities(self, kinds: str, since: datetime | None, most: int) -> list[dict[str, Any]]:
        """The account's activities of some kinds since a moment, newest first, by whole pages."""
        rows: list[dict[str, Any]] = []
        asked: dict[str, Any] = {"activity_types": kinds, "direction": "desc", "page_size": PAGE}
        if since is not None:
            asked["after"] = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        while len(rows) < most:
            ask = functools.partial(self._wire.client.get, "/account/activities", dict(asked))
            page: Any = self._wire.ask(ask)
            rows += page or []
            if not page or len(page) < PAGE:
                break
            asked["page_token"] = page[-1]["id"]
        return rows

    def _updated(self, update: Any) -> None:
        self._queue.put(lambda: self._take(update))

    def _listening(self) -> None:
        self._queue.put(self._listens)

    def _unanswered(self) -> None:
        """An order was sent and not answered: look for it soon."""

        def soon() -> None:
            self._look_pause, self._look_at = AGAIN, time.monotonic() + AGAIN

        self._queue.put(soon)

    def _run(self, waiting: queue.SimpleQueue[Callable[[], None] | None]) -> None:
        # Orders are listed once the stream listens; without a stream, after a moment.
        reconcile_at, compare_at = time.monotonic() + LISTENS, time.monotonic() + COMPARE_EVERY
        failures = 0
        while True:
            due = min(compare_at, self._look_at, reconcile_at if self._behind else math.inf)
            try:
                work = waiting.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                now = time.monotonic()
                if self._behind and now >= reconcile_at:
                    work = self._reconcile
                else:
                    work = self._look_again if now >= self._look_at else self._compare
            if work is None:
                return
            was_behind = self._behind
            try:
                work()
            except BrokerError as failure:
                log.warning("Alpaca's news can't be taken down now: %s", failure.message)
                self._behind = True
            except Exception:  # the thread must outlive an answer that nobody expected
                log.exception("Alpaca's news make no sense")
                self._behind = True
            now = time.monotonic()
            if work in (self._compare, self._reconcile):
                compare_at = now + COMPARE_EVERY
            if not self._behind:
                failures = 0
            elif not was_behind or work in (self._reconcile, self._listens):
                failures += 1  # what else is taken down meanwhile mustn't put the next attempt off
                reconcile_at = now + min(AGAIN * 2.0 ** min(failures - 1, 10), MOST) * random.uniform(
                    0.5, 1.0
                )

    def _listens(self) -> None:
        if self._listened:
            said = "the stream was away; what is known of that time follows"
            self._records.events.publish(gap(said))
        self._listened = True
        self._behind = True
        self._reconcile()

    def _take(self, update: Any) -> None:
        self._account()
        found = update.order
        if self._records.known(found) is None and translation.word(found.order_class) != "simple":
            # A leg tells nothing of its entry; the list does.
            self._desk.refresh(limit=PAGE)
        order = self._records.take(found)
        if update.price is not None and update.qty is not None:
            fill = translation.fill_of_update(update, order)
            self._records.take_fill(fill, translation.fill_key(str(found.id), found.filled_qty))

    def _reconcile(self) -> None:
        account = self._account()
        self._desk.refresh()
        for order in self._journal.unsettled(account):
            # What the list has just shown needs no question of its own.
            if order.status == Status.SENT or (
                order.broker_order_id is None and order.status != Status.UNKNOWN
            ):
                self._desk.look_up(order)
        self._look_for(self._all_unknown(account))
        newest = self._journal.fills.recent(account, None, 1)
        since = datetime.fromisoformat(newest[0].time) - OVERLAP if newest else None
        self.read_fills(since)
        self._compare()
        self._behind = False
        self._reconciled += 1

    def _look_again(self) -> None:
        """Look for the orders of unknown outcome, and plan when to do so next."""
        try:
            account = self._account()
            self._desk.refresh()
            self._look_for(self._all_unknown(account))
        except BrokerError as failure:
            log.info("orders of unknown outcome can't be looked for now: %s", failure.message)
            self._look_at = time.monotonic() + self._look_pause
        self._look_pause = min(self._look_pause * 2, MOST)

    def _look_for(self, unknown: list[Order]) -> None:
        for order in unknown[-LOOKED_FOR_AT_ONCE:]:
            self._desk.look_up(order, urgent=False)
        left = self._all_unknown(self._account()) if unknown else []
        since = (datetime.now(UTC) - LOOKED_FOR).isoformat()
        worth_it = any((order.created_at or "") > since for order in left)
        self._look_at = time.monotonic() + self._look_pause if worth_it else math.inf
        self._unknown = len(left)

    def _all_unknown(self, account: str) -> list[Order]:
        """The orders of unknown outcome, the oldest first."""
        return [order for order in self._journal.unsettled(account) if order.status == Status.UNKNOWN]

    def _compare(self) -> None:
        self._account()
        for attempt in range(COMPARISONS):
            if attempt:
                self._stopping.wait(SETTLES)
                self.read_fills(datetime.now(UTC) - OVERLAP)
            positions: Any = self._wire.ask(self._wire.client.get_all_positions) or []
            held = {p.symbol: p.qty for p in map(translation.position_of, positions)}
            if not self._records.compare(held, accept=attempt == COMPARISONS - 1):
                return
