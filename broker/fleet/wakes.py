"""One instance tells the others what has changed: PostgreSQL's NOTIFY and LISTEN.

The instance that runs passes learns at once what a request to another one asks for, and caches are told of
changes. What is lost while the database or its connection is away costs a timer's interval, nothing else.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)

#: seconds: between looks whether it should end, between checks of a silent connection, until another try
_LOOK, _CHECK, _RETRY = 0.5, 20.0, 2.0
#: what was done: a request has asked for something, or a pass has moved accounts
ASKED, PASSED = "asked", "passed"


class Wakes:
    """Listens in a thread, on a connection of its own; tells from any thread."""

    def __init__(self, engine: Engine, stack: str, heard: Callable[[str, str], None]) -> None:
        """`heard(what, account_id)` is called for what other instances of the stack tell."""
        self._engine = engine
        self._me = secrets.token_hex(6)
        self._stack = stack
        self._heard = heard
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet-wakes", daemon=True)
        #: set while it listens
        self.listening = threading.Event()

    def start(self) -> None:
        """Begin to listen, and go on trying."""
        self._thread.start()

    def stop(self) -> None:
        """End, within a second."""
        self._ended.set()
        self._thread.join(3)

    def tell(self, what: str, account_id: str = "") -> None:
        """Blocking. A failure is no matter: the others come by themselves, later."""
        payload = f"{self._me} {what} {self._stack} {account_id}"
        try:
            with self._engine.begin() as db:
                db.execute(text("select pg_notify('fleet', :payload)"), {"payload": payload})
        except SQLAlchemyError as failure:
            log.warning("other instances aren't told of a change: %s", type(failure).__name__)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._listen()
            except Exception as failure:  # psycopg's own errors too: it is psycopg's connection
                if not self._ended.is_set():
                    log.warning("other instances can't be heard: %s", type(failure).__name__)
            self.listening.clear()
            self._ended.wait(_RETRY)

    def _listen(self) -> None:
        pooled = self._engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()  # it isn't the pool's any more
        try:
            connection.rollback()
            connection.autocommit = True
            connection.execute("listen fleet")
            self.listening.set()
            self._heard(ASKED, "")  # whatever was told meanwhile
            checked = time.monotonic()
            while not self._ended.is_set():
                for note in connection.notifies(timeout=_LOOK):
                    self._take(note.payload)
                if time.monotonic() - checked > _CHECK:  # a peer that is gone is silent, too
                    connection.execute("select 1")
                    checked = time.monotonic()
        finally:
            connection.close()

    def _take(self, payload: str) -> None:
        teller, _, told = payload.partition(" ")
        what, _, told = told.partition(" ")
        stack, _, account_id = told.partition(" ")
        if teller != self._me and stack == self._stack and what in (ASKED, PASSED):
            self._heard(what, account_id)
