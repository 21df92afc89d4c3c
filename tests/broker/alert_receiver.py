"""What an alert channel's messages arrive at, in place of somebody's phone."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """What apprise's json:// posts to."""

    def __init__(self) -> None:
        self.received: list[dict[str, str]] = []
        self.status = 200
        self.slow = threading.Event()
        self.slow.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.slow.wait(10)
                receiver.received.append(json.loads(body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_said: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"json://127.0.0.1:{self.server.server_port}/hook-token-1"


@contextlib.contextmanager
def listening() -> Iterator[Receiver]:
    """A receiver that listens."""
    made = Receiver()
    try:
        yield made
    finally:
        made.slow.set()
        made.server.shutdown()
        made.server.server_close()
