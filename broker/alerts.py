"""Alerts to people, by mail, Telegram, Slack and whatever else apprise reaches.

    alerts = Alerts(alert_urls(os.environ.get("ALERT_URLS", "")))
    alerts.notify(Kind.KILL_SWITCH, "trading is halted by ada: odd fills")
    watch = AlertWatch(broker, alerts)                 # second factor, unknown outcomes, positions
    watch.start()

`notify` only queues, so an alert never holds up or breaks trading: a channel that fails is logged,
and what doesn't fit is counted and said with the next alert. The same news is sent once per
`repeat_after`; all news together at most `most_per_hour`, and of one kind `most_of_a_kind`, so that a
flood of one kind (which may be somebody's purpose) hides no other.

No secret leaves here. The URLs hold tokens, so they are never logged (nor does apprise log them); a
text that holds one of the given secrets, or a context value whose name says secret, is blanked.
"""

from __future__ import annotations

import logging
import math
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from broker.alert_kinds import Kind, Severity, about
from broker.base import BaseBroker
from broker.errors import BrokerError, Halted, LimitExceeded
from broker.models import EventKind, Health, Order, OrderEvent, OrderRequest, Status

__all__ = ["AlertWatch", "Alerts", "Kind", "alert_urls"]

log = logging.getLogger(__name__)

QUEUED_AT_MOST = 100
LONGEST_TEXT = 1000
_SECRET_NAME = re.compile(r"pass|secret|token|key|credential|authorization|url", re.IGNORECASE)
_IN_URL = re.compile(r"(\w+://[^\s/:@]*:)[^\s@]+@")
#: seconds that IB Gateway's nightly restart takes at most (60-90 by itself, more on a small machine)
RESTARTS_WITHIN = 180.0
#: seconds between log lines of a health that stays as it is: an alert rule waits for them
HEALTH_SAID_EVERY = 240.0
#: shorter ones would blank ordinary words
_SHORTEST_SECRET = 6


def alert_urls(text: str) -> tuple[str, ...]:
    """The URLs in a text such as `ALERT_URLS`: any number, with white space or commas between them."""
    return tuple(url for url in re.split(r"[\s,]+(?=\w+://)", text.strip()) if url)


@dataclass(frozen=True)
class _Alert:
    title: str
    body: str
    severity: Severity
    #: a channel of its own; the service's if there is none
    url: str = ""
    whose: str = ""
    kind: str = ""
    news: str = ""


class Alerts:
    """A queue of alerts and the thread that sends them. Usable from any thread."""

    def __init__(
        self,
        urls: Iterable[str] = (),
        *,
        secrets: Iterable[str] = (),
        source: str = "",
        repeat_after: float = 600.0,
        most_per_hour: int = 30,
        most_of_a_kind: int = 10,
        queued: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        kept: Callable[[str, str], None] | None = None,
    ) -> None:
        """`urls`: apprise's; none: alerts are logged only. `source`: who speaks, such as the stack's name.

        `repeat_after` in seconds; `most_of_a_kind` in an hour, as `most_per_hour`; of those with a channel
        of their own it counts each channel's. `queued`: how many may wait to be sent. `kept(kind, text)` is
        told of each alert to the service's channels once it was sent, in the thread that sends; may block.
        """
        self._urls = [url for url in urls if url]
        known = {*secrets, *self._urls}
        self._secrets = sorted((s for s in known if len(s) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._source = source
        self._repeat_after = repeat_after
        self._most = most_per_hour
        self._most_of_a_kind = most_of_a_kind
        self._clock = clock
        self._kept = kept
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}
        self._sent: deque[tuple[float, str]] = deque()
        self._left_out = 0
        self._queue: queue.Queue[_Alert] = queue.Queue(queued or QUEUED_AT_MOST)
        self._thread: threading.Thread | None = None

    def notify(self, kind: str, text: str, **context: object) -> bool:
        """Queue an alert and return at once; False if it was told lately or doesn't fit. Never raises.

        The same kind, text and context are the same news.
        """
        try:
            return self._notify(kind, text, context)
        except Exception:
            log.exception("an alert of kind %s couldn't be made", kind)
            return False

    def tell(self, url: str, whose: str, kind: str, text: str) -> bool:
        """As `notify`, to one channel only: that of `whose` (an account's id, which is no secret)."""
        try:
            return self._notify(kind, text, {}, url, whose)
        except Exception as failure:
            # Its text may hold the URL.
            log.error("an alert for the user of %s couldn't be made: %s", whose, type(failure).__name__)
            return False

    def wait(self) -> None:
        """Return once all that is queued was sent, or has failed."""
        self._queue.join()

    def flush(self, seconds: float) -> bool:
        """As `wait`, but only so long; whether all was sent, or has failed. For what ends soon."""
        waiting = threading.Thread(target=self._queue.join, name="alerts-flush", daemon=True)
        waiting.start()
        waiting.join(seconds)
        return not waiting.is_alive()

    # Observers: what brokers, guards and switches call.

    def order_event(self, event: OrderEvent) -> None:
        """For `BaseBroker.subscribe`: alerts of unknown outcomes and unexplained positions."""
        order, change = event.order, event.position
        if event.kind == EventKind.UNEXPLAINED_POSITION:
            context: dict[str, object] = {}
            if change is not None:
                context = {
                    "account": change.account_id,
                    "symbol": change.symbol,
                    "expected": change.qty_expected,
                    "now": change.qty_now,
                }
            self.notify(Kind.UNEXPLAINED_POSITION, event.message or "look at the account", **context)
        elif order is not None and order.status == Status.UNKNOWN:
            self.outcome_unknown(order)

    def outcome_unknown(self, order: Order) -> None:
        """For `Journal.outcome_unknown`: alerts of an order that left and was never answered."""
        text = f"{order.side} {order.qty:g} {order.symbol}: look at the account before sending another"
        self.notify(Kind.OUTCOME_UNKNOWN, text, order=order.id, account=order.account_id)

    def health(self, health: Health) -> None:
        """A broker's health: alerts when a person has to confirm the login, or may have to for a while.

        IB Gateway doesn't say what it waits for, and its restart every night looks the same.
        And when a Client Portal gateway isn't the pinned one any more: nothing is sent to it until somebody
        has looked.
        """
        if health.state == "certificate_changed":
            self.notify(Kind.CERTIFICATE_CHANGED, health.reason, gateway=health.details.get("gateway"))
        if not health.second_factor:
            return
        if health.state == "second_factor":
            text = health.reason or "confirm the login on the phone"
        elif _seconds_since(health.since) > RESTARTS_WITHIN:
            text = f"look at the phone: a live login may wait to be confirmed. {health.reason}"
        else:
            return
        self.notify(Kind.SECOND_FACTOR, text, since=health.since)

    def refused(self, error: BrokerError, request: OrderRequest, account_id: str) -> None:
        """For `Guard(refused=...)`: alerts of a limit that was hit, once per limit and symbol."""
        if isinstance(error, LimitExceeded):
            text = f"{error.limit} allows {error.allowed}"
            self.notify(Kind.LIMIT, text, symbol=request.symbol, account=account_id)
        elif not isinstance(error, Halted):
            self.notify(Kind.LIMIT, error.message, account=account_id)

    # Sending

    def _notify(
        self, kind: str, text: str, context: Mapping[str, object], url: str = "", whose: str = ""
    ) -> bool:
        said = " ".join(str(text).split())
        rows = [f"{name}: {_plain(name, value)}" for name, value in context.items() if value is not None]
        news = self._blanked("\n".join([said, *rows]))[:LONGEST_TEXT]
        known, now = about(kind), self._clock()
        body = news
        if known.remedy and not url:
            body += f"\nWhat to do: {known.remedy}."
        with self._lock:
            if not self._due(whose or kind, f"{kind}\n{news}", now):
                return False
            if self._left_out and not url:
                body += f"\n({self._left_out} more alerts were left out)"
            title = f"{self._source}: {known.title}" if self._source else known.title
            try:
                self._queue.put_nowait(_Alert(title, body, known.severity, url, whose, kind, news))
            except queue.Full:
                self._left_out += 1
                return False
            self._left_out = 0
            self._start()
        level = logging.ERROR if known.severity is Severity.ERROR else logging.WARNING
        if url:
            log.info("the user is alerted of %s", kind, extra={"account_id": whose})
        else:
            log.log(level, "alert %s: %s", kind, news.replace("\n", "; "), extra={"alert": kind})
        return True

    def _due(self, group: str, news: str, now: float) -> bool:
        for old in [n for n, at in self._told.items() if now - at >= self._repeat_after]:
            del self._told[old]
        if news in self._told:
            return False
        while self._sent and now - self._sent[0][0] >= 3600:
            self._sent.popleft()
        same = sum(1 for _, other in self._sent if other == group)
        if len(self._sent) >= self._most or same >= self._most_of_a_kind:
            self._left_out += 1
            return False
        self._told[news] = now
        self._sent.append((now, group))
        return True

    def _blanked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _IN_URL.sub(r"\1***@", text)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_all, name="alerts", daemon=True)
            self._thread.start()

    def _send_all(self) -> None:
        channels: list[tuple[str, Any]] | None = None
        while True:
            alert = self._queue.get()
            try:
                if alert.url:
                    _send(f"of {alert.whose}", _channel(alert.url), alert)
                    continue
                channels = channels if channels is not None else _channels(self._urls)
                for name, channel in channels:
                    _send(name, channel, alert)
                if self._kept is not None:
                    self._kept(alert.kind, alert.news)
            except Exception as failure:
                # Its text may hold a URL.
                log.error("an alert couldn't be sent or kept: %s", type(failure).__name__)
            finally:
                self._queue.task_done()


#: apprise's words
_NOTIFY_TYPE = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.ERROR: "failure"}


def understood(url: str) -> bool:
    """Whether a URL is one of apprise's, complete. Nothing is sent."""
    return bool(_channel(url))


def _channel(url: str) -> Any:
    """apprise's channel; false if it doesn't understand the URL."""
    import apprise  # loads slowly, and most processes never alert

    # apprise logs URLs, which hold tokens; what fails is logged here.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    channel = apprise.Apprise()
    channel.add(url)
    return channel


def _channels(urls: list[str]) -> list[tuple[str, Any]]:
    """A name that tells nothing secret, and apprise's channel, for each URL that it understands."""
    found = []
    for number, url in enumerate(urls, 1):
        name = f"{number} ({url.partition('://')[0][:20]})"
        channel = _channel(url)
        if channel:
            found.append((name, channel))
        else:
            log.error("ALERT_URLS: apprise doesn't understand URL %s", name)
    return found


def _send(name: str, channel: Any, alert: _Alert) -> None:
    try:
        sent = channel.notify(title=alert.title, body=alert.body, notify_type=_NOTIFY_TYPE[alert.severity])
    except Exception as failure:
        log.error("alert channel %s failed: %s", name, type(failure).__name__)
        return
    if not sent:
        log.error("alert channel %s failed", name)


def _seconds_since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def _plain(name: str, value: object) -> str:
    if _SECRET_NAME.search(name):
        return "***"
    return " ".join(str(value).split())[:200]


class AlertWatch:
    """Watches one broker for what people must know: its order events, and its health every so often."""

    def __init__(
        self, broker: BaseBroker, alerts: Alerts, every: float = 30.0, connection: str = "default"
    ) -> None:
        """`every`: seconds between looks at the health. `connection`: its id in the service, for the log."""
        self._connection = connection
        self._broker = broker
        self._alerts = alerts
        self._every = every
        self._stopped = threading.Event()
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin to watch. What the broker can't stream isn't watched; its health is."""
        self.stop()
        self._stopped = threading.Event()
        if self._broker.capabilities.stream:
            self._unsubscribe = self._broker.subscribe(self._alerts.order_event)
        threading.Thread(target=self._look, args=(self._stopped,), name="alert-watch", daemon=True).start()

    def stop(self) -> None:
        """Stop watching, at once; it can be started again."""
        self._stopped.set()
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _look(self, stopped: threading.Event) -> None:
        said, told = -math.inf, ""
        while not stopped.wait(self._every):
            try:
                health = self._broker.health()
                self._alerts.health(health)
            except Exception:
                log.exception("the broker's health couldn't be read for alerts")
                continue
            if health.state != told or time.monotonic() - said >= HEALTH_SAID_EVERY:
                said, told = time.monotonic(), health.state
                more = {
                    "connection": self._connection,
                    "broker": self._broker.name,
                    "connected": health.ok,
                    "state": health.state,
                }
                log.info("broker health", extra=more)
