"""The websocket, by ibind's client: orders (`sor`) and trades (`str`) as they happen.

While it isn't there the lists are polled instead (`watch`), so it is a gain in time and never the
only source.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from typing import Any

from ibind import IbkrWsClient
from ibind.events import Orders, SubscriptionUpdated, Trades
from ibind.ibkr_ws.ibkr_subscriptions import OrdersSubscription, TradesSubscription
from ibind.ws.ws_subscriptions import BindingStatus

from broker.brokers.client_portal.book import OrderBook
from broker.brokers.client_portal.session import Session
from broker.errors import BrokerError, NotConnected

log = logging.getLogger(__name__)

#: seconds to wait for a subscription's first answer, and between looks at the websocket
SUBSCRIBED, LOOK = 5.0, 0.25
#: seconds before a websocket that isn't there is made anew: the first pause, and the longest
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: seconds between looks at the lists while there is no websocket and orders are open
POLL = 5.0
#: and while there is one, which may have lost a message
LIVE_POLL = 10.0
ORDERS, TRADES = OrdersSubscription(), TradesSubscription(realtime_updates_only=False)


class _Client(IbkrWsClient):  # type: ignore[misc]
    """ibind's client with our session's state, so that it asks the gateway nothing outside the pacing."""

    session: Session

    def _get_cookie(self) -> str:
        return f"api={json.dumps({'session': self.session.session_id})}"

    def _get_header(self) -> dict[str, str]:
        return self.session.wire.headers()

    def _get_authenticated(self) -> bool:
        return self.session.link.ok


class _Sink:
    """Hears what one client tells, in ibind's own thread and order."""

    def __init__(self, book: OrderBook) -> None:
        self._book = book
        #: set while orders are subscribed to: a websocket that is only open tells nothing
        self.subscribed = threading.Event()
        #: counts subscriptions to orders: ibind makes a broken connection anew by itself, and what
        #: happened until it had subscribed again is told by nobody
        self.subscriptions = 0

    def emit(self, event: Any) -> None:
        """What ibind's client calls for each message, and for each change of a subscription."""
        if isinstance(event, Orders):
            self._book.from_stream(self._book.take_order, event.data.get("args"))
        elif isinstance(event, Trades):
            self._book.from_stream(self._book.take_trade, event.data.get("args"))
        elif isinstance(event, SubscriptionUpdated) and event.binding_key == ORDERS.binding_key():
            if event.status == BindingStatus.ACTIVE:
                self.subscriptions += 1
                self.subscribed.set()
            else:
                self.subscribed.clear()


class Watcher:
    """A thread that keeps the journal up to date: by websocket, by polling, after each connection."""

    def __init__(self, session: Session, book: OrderBook, *, websocket: bool) -> None:
        self._session, self._book = session, book
        self._websocket = websocket
        self._client: _Client | None = None
        self._sink = _Sink(book)
        self._stopped = threading.Event()
        self._seen_epoch = 0
        self._retry_at, self._pause = 0.0, FIRST_PAUSE
        self._polled_at = 0.0
        #: the subscription whose news follow on the last whole look: its client's sink, and its count there
        self._followed: tuple[_Sink, int] | None = None
        #: set once the first look after a connection is done
        self.caught_up = threading.Event()

    @property
    def live(self) -> bool:
        """True while orders' news comes by itself."""
        client = self._client
        return client is not None and self._session.link.ok and self._subscribed(client)

    def _subscribed(self, client: IbkrWsClient) -> bool:
        return bool(client.is_authenticated()) and self._sink.subscribed.is_set()

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped.wait(LOOK):
            if not self._session.link.ok:
                continue
            try:
                self._look()
            except NotConnected as away:
                log.info("orders can't be read now: %s", away.message)
            except BrokerError as failure:
                log.warning("orders can't be read: %s", failure.message)
                self._stopped.wait(POLL)
            except Exception:
                # A thread that ends would leave the journal behind for ever.
                log.exception("watching orders failed unexpectedly")
                self._stopped.wait(POLL)
        self._close()

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    def _look(self) -> None:
        epoch = self._session.epoch
        if epoch != self._seen_epoch:
            first = self._seen_epoch == 0
            self.caught_up.clear()
            self._book.orders.get()  # the first list of a session is empty; the next one is whole
            self._book.reconcile()
            self._seen_epoch = epoch
            self.caught_up.set()
            if not first:
                self._book.missed("the brokerage session was opened again")
        self._connect()
        # Whether it is live says too little: between two looks it may have been away.
        followed = (self._sink, self._sink.subscriptions) if self.live else None
        if self._followed not in (None, followed):
            self._followed = None
            self._book.missed("the websocket was away; orders are read again")
        if followed != self._followed:
            self._book.reconcile()  # what happened between the last look and the subscription
            self._followed = followed
        if time.monotonic() - self._polled_at > (LIVE_POLL if self.live else POLL):
            self._polled_at = time.monotonic()
            self._book.poll()

    def _connect(self) -> None:
        if not self._websocket or self.live or time.monotonic() < self._retry_at:
            return
        self._close()
        try:
            self._client = self._open()
        except Exception as failure:  # ibind raises whatever its parts raise
            log.warning("the websocket can't be opened: %s", type(failure).__name__)
        if self._client is not None and self._subscribed(self._client):
            self._pause = FIRST_PAUSE
            return
        self._close()
        self._retry_at = time.monotonic() + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _open(self) -> _Client:
        if not self._session.session_id:
            self._session.tickle.get()
        self._sink = sink = _Sink(self._book)
        url = self._session.wire.base_url.rstrip("/").replace("https://", "wss://") + "/ws"
        client = _Client(
            account_id=self._session.account,
            url=url,
            ibkr_client=self._session.wire,
            cacert=False,
            sink=sink,
            use_oauth=False,
        )
        client.session = self._session
        # ibind takes the name of a file only; the same context as HTTP's makes the same check.
        client._runtime._transport._sslopt = {"context": self._session.wire.context}
        self._client = client
        if client.start():
            client.subscribe(ORDERS)
            client.subscribe(TRADES)
            sink.subscribed.wait(SUBSCRIBED)  # trades are confirmed by the first one, which may never come
        return client

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                client.shutdown()
            except Exception as failure:  # ibind raises whatever its parts raise
                log.info("the websocket didn't close cleanly: %s", type(failure).__name__)
