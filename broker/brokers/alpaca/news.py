"""What Alpaca tells without being asked, taken down by one thread, and what follows a gap.

After every (re)connection of the stream, and after a failure to take something down: orders are
listed, fills read from the account's activities, and positions compared with the fills.
"""

from __future__ import annotations

import functools
import logging
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
from broker.models import Status
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

    @property
    def state(self) -> str:
        """The stream's state: off, connecting, connected, reconnecting."""
        return self._stream.state if self._stream is not None else "off"

    @property
    def reconciled(self) -> int:
        """How often the journal was brought in line with Alpaca."""
        return self._reconciled

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
        rows: list[dict[str, Any]] = []
        asked: dict[str, Any] = {"direction": "desc", "page_size": PAGE}
        if since is not None:
            asked["after"] = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        while len(rows) < most:
            ask = functools.partial(self._wire.client.get, "/account/activities/FILL", dict(asked))
            page: Any = self._wire.ask(ask)
            rows += page or []
            if not page or len(page) < PAGE:
                break
            asked["page_token"] = page[-1]["id"]
        for row in reversed(rows):
            self._records.take_activity(row)

    def _updated(self, update: Any) -> None:
        self._queue.put(lambda: self._take(update))

    def _listening(self) -> None:
        self._queue.put(self._listens)

    def _run(self, waiting: queue.SimpleQueue[Callable[[], None] | None]) -> None:
        # Orders are listed once the stream listens; without a stream, after a moment.
        due, failures = time.monotonic() + LISTENS, 0
        while True:
            try:
                work = waiting.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                work = self._reconcile if self._behind else self._compare
            if work is None:
                return
            try:
                work()
            except BrokerError as failure:
                log.warning("Alpaca's news can't be taken down now: %s", failure.message)
                self._behind = True
            except Exception:  # the thread must outlive an answer that nobody expected
                log.exception("Alpaca's news make no sense")
                self._behind = True
            failures = failures + 1 if self._behind else 0
            again = min(AGAIN * 2.0 ** min(failures - 1, 10), MOST) * random.uniform(0.5, 1.0)
            due = time.monotonic() + (again if self._behind else COMPARE_EVERY)

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
            self._settle(order)
        newest = self._journal.fills.recent(account, None, 1)
        since = datetime.fromisoformat(newest[0].time) - OVERLAP if newest else None
        self.read_fills(since)
        self._compare()
        self._behind = False
        self._reconciled += 1

    def _settle(self, order: Any) -> None:
        # What the list has just shown needs no question of its own.
        if order.status in (Status.SENT, Status.UNKNOWN) or order.broker_order_id is None:
            self._desk.look_up(order)

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
