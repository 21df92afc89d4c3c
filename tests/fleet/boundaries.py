"""Where a process can die: right before each thing that it changes outside of itself.

The points are found, not listed: every request to DigitalOcean that isn't a read, every signed message to an
agent, every commit of a transaction that wrote. A death right after one of them is a death right before the
next: nothing that outlives the process happens in between. A death after the last is no death.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import requests.adapters
from sqlalchemy import Engine, event

from broker.fleet.agents import TlsAgents

_WRITES = ("insert", "update", "delete", "with former")  # the last takes the lease


class Boundaries:
    """Sends this very process a signal at a chosen point, and goes on counting (SIGSTOP may end)."""

    def __init__(self, at: int, number: signal.Signals, note: Callable[[str], None]) -> None:
        """`at`: the point, from 1; 0 for none. `note` is told every point's name before it is passed."""
        self._at, self._signal, self._note = at, number, note
        self._count = 0
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        with self._lock:
            self._count += 1
            self._note(name)
            if self._count == self._at:
                os.kill(os.getpid(), self._signal)

    def install(self, engine: Engine) -> None:
        """From now on, in this process. Undone by its end."""
        send, send_signed = requests.adapters.HTTPAdapter.send, TlsAgents._send_signed
        commit = engine.dialect.do_commit
        written: set[int] = set()

        def sending(adapter: Any, request: Any, *arguments: Any, **named: Any) -> Any:
            if request.method != "GET":
                self.reach(f"{request.method} {request.path_url.rpartition('/v2')[2]}")
            return send(adapter, request, *arguments, **named)

        def signing(agents: Any, endpoint: Any, method: str, path: str, message: Any) -> None:
            self.reach(f"{method} {path}")
            send_signed(agents, endpoint, method, path, message)

        def executing(_connection: Any, cursor: Any, statement: str, *_rest: Any) -> None:
            if statement.lstrip().lower().startswith(_WRITES):
                written.add(id(cursor.connection))

        def committing(connection: Any) -> None:
            if id(connection.driver_connection) in written:
                written.discard(id(connection.driver_connection))
                self.reach("commit")
            commit(connection)

        event.listen(engine, "before_cursor_execute", executing)
        engine.dialect.do_commit = committing  # type: ignore[method-assign]
        requests.adapters.HTTPAdapter.send = sending  # type: ignore[method-assign]
        TlsAgents._send_signed = signing  # type: ignore[method-assign]
