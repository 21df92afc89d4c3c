"""AlpacaBroker over alpaca-py, against a server that answers in Alpaca's shapes and counts what reaches it.

What it decides: that an order is POSTed once whatever the answer, that failures become the right
errors, and that fields are read right. Alpaca itself isn't here.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from broker.brokers import alpaca
from broker.brokers.alpaca import AlpacaBroker
from broker.errors import (
    InsufficientFunds,
    NotAuthenticated,
    NotConnected,
    OrderOutcomeUnknown,
    OrderRejected,
    RateLimited,
    UnknownSymbol,
)
from broker.journal import Journal
from broker.models import Order

NOW = "2026-11-20T17:00:00Z"
ACCOUNT = {
    "id": str(uuid.UUID(int=1)),
    "account_number": "PA1",
    "status": "ACTIVE",
    "currency": "USD",
    "cash": "1000.5",
    "buying_power": "4002",
    "portfolio_value": "1500.25",
    "equity": "1500.25",
    "last_equity": "1490",
    "created_at": NOW,
}
POSITION = {
    "asset_id": str(uuid.UUID(int=2)),
    "symbol": "AAPL",
    "exchange": "NASDAQ",
    "asset_class": "us_equity",
    "avg_entry_price": "100",
    "qty": "5",
    "side": "long",
    "market_value": "550",
    "cost_basis": "500",
    "unrealized_pl": "50",
    "unrealized_plpc": "0.1",
    "current_price": "110",
}
ASSET = {
    "id": str(uuid.UUID(int=2)),
    "class": "us_equity",
    "exchange": "NASDAQ",
    "symbol": "AAPL",
    "status": "active",
    "tradable": True,
    "marginable": True,
    "shortable": True,
    "easy_to_borrow": True,
    "fractionable": True,
}
CLOCK = {
    "timestamp": NOW,
    "is_open": True,
    "next_open": "2026-11-23T14:30:00Z",
    "next_close": "2026-11-20T21:00:00Z",
}


@dataclass
class Server:
    """What Alpaca holds, what reached it, and how it fails."""

    url: str = ""
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    posts: list[dict[str, Any]] = field(default_factory=list)
    #: answers the next POST /orders: status and body, "lost" (kept, answered 504) or "cut" (kept, no answer)
    post_fault: tuple[int, str] | str | None = None
    all_fault: int | None = None
    hide_orders: bool = False

    def take(self, body: dict[str, Any]) -> dict[str, Any]:
        order = {
            "id": str(uuid.uuid4()),
            "created_at": NOW,
            "updated_at": NOW,
            "submitted_at": NOW,
            "status": "new",
            "filled_qty": "0",
            "filled_avg_price": None,
            "order_class": "simple",
            "extended_hours": False,
            "order_type": body["type"],
        } | body
        self.orders[body["client_order_id"]] = order
        return order

    def get(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        fixed = {"/account": ACCOUNT, "/positions": [POSITION], "/clock": CLOCK, "/assets/AAPL": ASSET}
        fixed["/positions/AAPL"] = POSITION
        if self.all_fault is not None:
            return self.all_fault, {"code": 40110000, "message": "request is not authorized"}
        if path in fixed:
            return 200, fixed[path]
        if path == "/orders:by_client_order_id":
            found = self.orders.get(query["client_order_id"][0])
            return (
                (200, found) if found and not self.hide_orders else (404, {"code": 40410000, "message": "no"})
            )
        if path == "/orders":
            return 200, list(self.orders.values())
        return 404, {"code": 40410000, "message": f"not found: {path}"}


class Handler(BaseHTTPRequestHandler):
    server: Any

    def answer(self, status: int, body: Any) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        if status == 429:
            self.send_header("retry-after", "7")
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.answer(*self.server.state.get(parts.path.removeprefix("/v2"), parse_qs(parts.query)))

    def do_DELETE(self) -> None:
        state: Server = self.server.state
        number = self.path.rpartition("/")[2]
        [order] = [o for o in state.orders.values() if o["id"] == number]
        order["status"] = "canceled"
        self.answer(204, "")

    def do_POST(self) -> None:
        state: Server = self.server.state
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        state.posts.append(body)
        fault = state.post_fault
        if isinstance(fault, tuple):
            self.answer(*fault)
            return
        order = state.take(body)
        if fault == "lost":
            self.answer(504, "upstream timed out")
        elif fault == "cut":
            self.close_connection = True
        else:
            self.answer(200, order)

    def log_message(self, *_said: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.state = state  # type: ignore[attr-defined]
    threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{listener.server_port}"
    yield state
    listener.shutdown()
    listener.server_close()


@pytest.fixture
def broker(server: Server, journal: Journal) -> AlpacaBroker:
    made = AlpacaBroker(journal, api_key="key", secret_key="secret", endpoint=server.url)
    made.connect()
    return made


def buy(broker: AlpacaBroker, client_order_id: str = "one") -> Order:
    return broker.place_limit_order("AAPL", 2, "buy", 100.0, client_order_id=client_order_id)


def test_account_positions_and_clock_are_read(broker: AlpacaBroker) -> None:
    account = broker.get_account()
    assert (account.cash, account.equity, account.last_equity) == (1000.5, 1500.25, 1490)
    [position] = broker.get_positions()
    assert (position.symbol, position.qty, position.unrealized_plpc) == ("AAPL", 5, 0.1)
    assert broker.get_position("MSFT") is None
    clock = broker.clock()
    assert clock.is_open
    assert clock.next_close == "2026-11-20T21:00:00+00:00"
    assert broker.health().ok


def test_an_order_goes_out_once_under_its_client_order_id(broker: AlpacaBroker, server: Server) -> None:
    first = buy(broker)
    assert first.status == "submitted"
    assert buy(broker).id == first.id
    [posted] = server.posts
    assert posted["client_order_id"] == "one"
    assert (posted["symbol"], posted["side"], float(posted["qty"])) == ("AAPL", "buy", 2)
    server.orders["one"] |= {"status": "filled", "filled_qty": "2", "filled_avg_price": "99.5"}
    found = broker.get_order(first.id)
    assert (found.status, found.filled_qty, found.filled_price) == ("filled", 2, 99.5)


def test_a_504_is_posted_once_and_the_order_is_looked_up(broker: AlpacaBroker, server: Server) -> None:
    """alpaca-py by itself POSTs four times on 504."""
    server.post_fault = "lost"
    assert buy(broker).status == "submitted"
    assert len(server.posts) == 1


def test_a_cut_connection_is_posted_once_and_the_order_is_looked_up(
    broker: AlpacaBroker, server: Server
) -> None:
    server.post_fault = "cut"
    assert buy(broker).status == "submitted"
    assert len(server.posts) == 1


def test_what_the_look_up_does_not_find_is_unknown_not_rejected(broker: AlpacaBroker, server: Server) -> None:
    server.post_fault, server.hide_orders = "lost", True
    with pytest.raises(OrderOutcomeUnknown) as silence:
        buy(broker)
    server.hide_orders = False
    assert broker.get_order(silence.value.order.id).status == "submitted", "settled once it can be seen"
    assert len(server.posts) == 1


@pytest.mark.parametrize("status", [429, 504])
def test_no_answer_of_any_kind_makes_the_library_repeat_a_post(
    broker: AlpacaBroker, server: Server, status: int
) -> None:
    server.post_fault, server.hide_orders = (status, '{"code": 1, "message": "busy"}'), True
    with pytest.raises(RateLimited if status == 429 else OrderOutcomeUnknown):
        buy(broker)
    assert len(server.posts) == 1


def test_after_a_rate_limit_the_same_call_places_the_order(broker: AlpacaBroker, server: Server) -> None:
    server.post_fault = (429, '{"code": 42910000, "message": "too many requests"}')
    with pytest.raises(RateLimited) as limited:
        buy(broker)
    assert limited.value.retry_after == 7
    server.post_fault = None
    assert buy(broker).status == "submitted"


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (403, "insufficient buying power", InsufficientFunds),
        (422, "limit price increment must be at least 0.01", OrderRejected),
    ],
)
def test_a_refusal_has_the_brokers_words_and_code(
    broker: AlpacaBroker, server: Server, status: int, message: str, error: type[OrderRejected]
) -> None:
    server.post_fault = (status, json.dumps({"code": status * 100_000, "message": message}))
    with pytest.raises(error, match=message) as refused:
        buy(broker)
    assert refused.value.code == str(status * 100_000)


def test_an_unknown_symbol_is_refused_before_anything_is_sent(broker: AlpacaBroker, server: Server) -> None:
    with pytest.raises(UnknownSymbol):
        broker.place_market_order("NOSUCH", 1, "buy")
    assert server.posts == []


def test_a_cancel_is_confirmed_by_the_brokers_own_status(broker: AlpacaBroker) -> None:
    order = buy(broker)
    assert broker.cancel_order(order.id)
    assert broker.get_order(order.id).status == "cancelled"


def test_the_history_holds_what_others_placed(broker: AlpacaBroker, server: Server) -> None:
    mine = buy(broker)
    asset = {"symbol": "MSFT", "qty": "1", "side": "sell", "type": "market", "time_in_force": "day"}
    server.take(asset | {"client_order_id": "by-hand"})
    history = broker.get_orders_history()
    assert {o.client_order_id for o in history} == {"one", "by-hand"}
    assert [o.id for o in history if o.client_order_id == "one"] == [mine.id]


def test_a_wrong_key_is_an_authentication_error_and_an_absent_server_is_not(
    broker: AlpacaBroker, server: Server, journal: Journal
) -> None:
    server.all_fault = 401
    with pytest.raises(NotAuthenticated):
        broker.get_positions()
    nowhere = AlpacaBroker(journal, api_key="k", secret_key="s", endpoint="http://127.0.0.1:9")
    with pytest.raises(NotConnected) as away:
        nowhere.get_positions()
    assert not isinstance(away.value, NotAuthenticated)
    assert not nowhere.health().ok


def test_requests_have_a_deadline(
    monkeypatch: pytest.MonkeyPatch, journal: Journal, unanswered: Callable[[], str]
) -> None:
    monkeypatch.setattr(alpaca, "TIMEOUT", (0.2, 0.2))
    broker = AlpacaBroker(journal, api_key="k", secret_key="s", endpoint=unanswered())
    with pytest.raises(NotConnected, match="Timeout"):
        broker.get_account()


@pytest.fixture
def unanswered() -> Iterator[Callable[[], str]]:
    """URLs of servers that accept and never answer."""
    import socket

    made: list[socket.socket] = []

    def start() -> str:
        made.append(socket.create_server(("127.0.0.1", 0)))
        return f"http://127.0.0.1:{made[-1].getsockname()[1]}"

    yield start
    for listener in made:
        listener.close()
