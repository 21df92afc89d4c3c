"""A server in the place of Yahoo's hosts: the endpoints that yfinance calls for a quote.

Its answers have the shape of Yahoo's as yfinance reads them (yfinance/data.py, scrapers/history.py).
Nothing here was recorded from Yahoo, which tests can't reach.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

#: 22 November 2024, 21:00:01 UTC
TRADED_AT = 1732309201


def chart(symbol: str, **changes: object) -> bytes:
    """What the chart endpoint says of a symbol."""
    meta: dict[str, object] = {
        "currency": "USD",
        "symbol": symbol,
        "exchangeName": "NMS",
        "instrumentType": "EQUITY",
        "regularMarketTime": TRADED_AT,
        "exchangeTimezoneName": "America/New_York",
        "regularMarketPrice": 229.87,
        "chartPreviousClose": 228.52,
        "validRanges": ["1d", "5d"],
    }
    found = {"meta": meta | changes, "timestamp": [TRADED_AT], "indicators": {"quote": [{"close": [229.87]}]}}
    return json.dumps({"chart": {"result": [found], "error": None}}).encode()


NOT_FOUND = json.dumps(
    {
        "chart": {
            "result": None,
            "error": {"code": "Not Found", "description": "No data found, symbol may be delisted"},
        }
    }
).encode()


@dataclass
class Yahoo:
    """What the server answers and was asked."""

    url: str = ""
    symbols: dict[str, bytes] = field(default_factory=lambda: {s: chart(s) for s in ("AAPL", "BRK-B")})
    status: int | None = None
    asked: list[str] = field(default_factory=list)
    #: requests wait for it
    open_: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)

    def charts(self) -> list[str]:
        """The symbols whose chart was asked, in order."""
        return [path.rpartition("/")[2] for path in self.asked if "/v8/finance/chart/" in path]

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if "/v8/finance/chart/" not in path:
            return 200, b"Cr.Umb" if path.endswith("getcrumb") else b""
        self.arrived.set()
        self.open_.wait(20)
        if self.status is not None:
            return self.status, b"Too Many Requests" if self.status == 429 else b"<html>oops</html>"
        found = self.symbols.get(path.rpartition("/")[2])
        return (404, NOT_FOUND) if found is None else (200, found)


def serve(yahoo: Yahoo) -> ThreadingHTTPServer:
    """The server, running; its address is in `yahoo.url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = yahoo.answer(urlsplit(self.path).path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                pass  # the client didn't wait

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_said: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yahoo.url = f"http://127.0.0.1:{server.server_port}"
    return server
