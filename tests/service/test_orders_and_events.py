"""Replace, cancel all, close, preview, fills and the event stream over HTTP, on the simulated broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker.brokers.simulated import SimulatedBroker
from broker.service.auth import LEEWAY
from broker.service.eventlog import EventLog
from tests.service.conftest import Issuer
from tests.service.test_trading import BASE, order


async def placed(trader: httpx.AsyncClient, **changes: object) -> dict[str, Any]:
    answer = await trader.post(f"{BASE}/orders", json=order(**changes))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_an_order_is_replaced_in_place(trader: httpx.AsyncClient) -> None:
    first = await placed(trader, order_type="limit", limit_price=1.0)
    changed = await trader.patch(f"{BASE}/orders/{first['id']}", json={"qty": 7, "limit_price": 1.5})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["qty"], changed.json()["limit_price"]) == (7, 1.5)
    await trader.delete(f"{BASE}/orders/{first['id']}")
    final = await trader.patch(f"{BASE}/orders/{first['id']}", json={"qty": 8})
    assert (final.status_code, final.json()["order"]["status"]) == (409, "cancelled")


async def test_cancelling_all_answers_with_what_was_cancelled(trader: httpx.AsyncClient) -> None:
    ids = {(await placed(trader, order_type="limit", limit_price=1.0 + n))["id"] for n in range(3)}
    answer = await trader.delete(f"{BASE}/orders")
    assert answer.status_code == 200
    assert {o["id"] for o in answer.json()} == ids
    assert {o["status"] for o in answer.json()} == {"cancelled"}
    assert (await trader.delete(f"{BASE}/orders")).json() == []


async def test_closing_a_position_twice_under_one_key_closes_it_once(trader: httpx.AsyncClient) -> None:
    await placed(trader, qty=5)
    keyed = {"idempotency-key": "close-aapl"}
    first = await trader.delete(f"{BASE}/positions/AAPL", params={"qty": 2}, headers=keyed)
    assert first.status_code == 201, first.text
    assert (first.json()["side"], first.json()["qty"]) == ("sell", 2)
    again = await trader.delete(f"{BASE}/positions/AAPL", params={"qty": 2}, headers=keyed)
    assert again.json()["id"] == first.json()["id"]
    assert (await trader.get(f"{BASE}/positions/AAPL")).json()["qty"] == 3
    assert (await trader.get(first.headers["location"])).status_code == 200


async def test_fills_have_their_order_and_commission(trader: httpx.AsyncClient) -> None:
    bought = await placed(trader, qty=2)
    [fill] = (await trader.get(f"{BASE}/fills")).json()
    assert (fill["order_id"], fill["client_order_id"]) == (bought["id"], bought["client_order_id"])
    assert (fill["qty"], fill["commission"]) == (2, 0)
    later = await trader.get(f"{BASE}/fills", params={"since": "2199-01-01T00:00:00Z"})
    assert later.json() == []


async def test_an_order_is_found_by_its_client_order_id(trader: httpx.AsyncClient) -> None:
    first = await placed(trader)
    found = await trader.get(f"{BASE}/orders/by-client-order-id/{first['client_order_id']}")
    assert found.json()["id"] == first["id"]


async def test_an_orders_timeline_is_told_to_readers_and_to_nobody_else(
    trader: httpx.AsyncClient, client_for: Callable[..., httpx.AsyncClient]
) -> None:
    first = await placed(trader, order_type="limit", limit_price=1.0)
    await trader.patch(f"{BASE}/orders/{first['id']}", json={"limit_price": 1.5})
    await trader.delete(f"{BASE}/orders/{first['id']}")
    path = f"{BASE}/orders/{first['id']}/timeline"
    async with client_for("user") as reader:
        answer = await reader.get(path)
        assert (await reader.get(f"{BASE}/orders/{'0' * 32}/timeline")).status_code == 404
    async with client_for("monitor") as other:
        assert (await other.get(path)).status_code == 403
    assert answer.status_code == 200, answer.text
    life = answer.json()
    told = [entry["status"] or entry["kind"] for entry in life["entries"]]
    assert told == ["sent", "submitted", "changed", "pending_cancel", "cancelled"]
    assert life["entries"][2]["changes"] == [{"field": "limit_price", "before": 1.0, "after": 1.5}]
    assert life["complete"]
    assert (life["order"]["id"], life["order"]["status"]) == (first["id"], "cancelled")


async def test_a_preview_places_nothing_and_needs_no_id(trader: httpx.AsyncClient) -> None:
    answer = await trader.post(f"{BASE}/preview", json=order(qty=10, client_order_id=None))
    assert answer.status_code == 200, answer.text
    assert answer.json()["estimated_cost"] > 0
    assert (await trader.get(f"{BASE}/orders")).json() == []


async def test_an_order_for_an_amount_buys_fractions(trader: httpx.AsyncClient) -> None:
    bought = await placed(trader, qty=None, notional=100)
    assert bought["status"] == "filled"
    assert 0 < bought["qty"] < 1
    assert bought["notional"] == 100


async def test_readers_may_read_all_this_and_change_nothing(
    client_for: Callable[..., httpx.AsyncClient],
) -> None:
    async with client_for("user") as reader:
        for path in ("fills", "accounts"):
            assert (await reader.get(f"{BASE}/{path}")).status_code == 200
        for method, path in (
            ("DELETE", "orders"),
            ("DELETE", "positions/AAPL?client_order_id=a"),
            ("PATCH", "orders/x"),
            ("POST", "preview"),
        ):
            answer = await reader.request(method, f"{BASE}/{path}", json={} if method != "DELETE" else None)
            assert answer.status_code == 403, path


@pytest.fixture
async def log() -> AsyncIterator[tuple[SimulatedBroker, EventLog]]:
    broker = SimulatedBroker()
    broker.connect()
    made = EventLog(broker, kept=5)
    yield broker, made
    made.close()


async def take(log: EventLog, last_id: str, count: int) -> list[tuple[str, str]]:
    """The next events after an id: their ids and kinds."""
    found: list[tuple[str, str]] = []
    async with asyncio.timeout(10):
        async for item in log.follow(last_id, 0.05):
            if item is not None:
                found.append((item[0], item[1].kind))
            if len(found) == count:
                break
    return found


async def test_a_client_that_reconnects_gets_what_it_missed(log: tuple[SimulatedBroker, EventLog]) -> None:
    broker, events = log
    first = asyncio.create_task(take(events, "", 2))
    await asyncio.sleep(0)  # it listens now
    broker.place_market_order("AAPL", 1, "buy")
    seen = await first
    assert [kind for _, kind in seen] == ["fill", "status"]
    broker.place_market_order("AAPL", 1, "buy")
    missed = await take(events, seen[0][0], 3)
    assert [kind for _, kind in missed] == ["status", "fill", "status"]
    assert missed[0][0] == seen[1][0], "from the last id on, and nothing twice"


async def test_what_is_not_kept_any_more_is_a_gap(log: tuple[SimulatedBroker, EventLog]) -> None:
    broker, events = log
    first = asyncio.create_task(take(events, "", 2))
    await asyncio.sleep(0)  # it listens now
    broker.place_market_order("AAPL", 1, "buy")
    [(seen, _), _later] = await first
    for _ in range(4):
        broker.place_market_order("AAPL", 1, "buy")
    async with asyncio.timeout(10):
        async for item in events.follow(seen, 0.05):
            if item is not None and item[0].endswith("-10"):
                break  # the last of ten has arrived, and the first five are dropped
    assert [kind for _, kind in await take(events, seen, 2)] == ["gap", "status"]
    assert (await take(events, "another-process-3", 1))[0][1] == "gap"
    assert (await take(events, "no id at all", 1))[0][1] == "gap"


async def test_silence_is_broken_by_heartbeats(log: tuple[SimulatedBroker, EventLog]) -> None:
    async with asyncio.timeout(10):
        async for item in log[1].follow("", 0.01):
            assert item is None
            break


async def test_the_stream_is_server_sent_events(app: FastAPI, trader: httpx.AsyncClient) -> None:
    """The application is asked directly: httpx's transport for it would wait for the stream's end."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": f"{BASE}/events",
        "raw_path": f"{BASE}/events".encode(),
        "query_string": b"",
        "scheme": "http",
        "server": ("service", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(b"authorization", trader.headers["authorization"].encode())],
    }
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    serving = asyncio.create_task(app(scope, receive, sent.put))  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        start = await sent.get()
        headers = dict(start["headers"])
        assert (start["status"], headers[b"content-type"][:17]) == (200, b"text/event-stream")
        assert b"retry" in (await sent.get())["body"]
        await placed(trader)
        text = (await sent.get())["body"].decode()
        gone.set()
        await serving
    fields = dict(line.split(": ", 1) for line in text.strip().splitlines())
    assert fields["event"] == "fill"
    assert "-" in fields["id"]
    assert json.loads(fields["data"])["fill"]["qty"] == 5


async def test_a_stream_ends_with_the_token_that_opened_it(
    client_for: Callable[..., httpx.AsyncClient], issuer: Issuer
) -> None:
    """Guards against somebody who lost a role, or left, and listens on for as long as a connection lasts."""
    token = issuer.token("user", exp=int(time.time() - LEEWAY) + 8)
    async with client_for(token=token) as client, asyncio.timeout(60):
        answer = await client.get(f"{BASE}/events")  # returns at the stream's end
        assert (answer.status_code, answer.text[:5]) == (200, "retry")
        assert (await client.get(f"{BASE}/events")).status_code == 401, "and it isn't opened again"


async def test_streams_end_with_the_connection(app: FastAPI) -> None:
    """Guards against a client that listens on to an instance that has handed the connection over."""
    connection = app.state.connections["default"]
    before = connection.events()
    listening = asyncio.create_task(take(before, "", 1))
    await asyncio.sleep(0)
    await connection.stop()
    async with asyncio.timeout(10):
        assert await listening == []
    assert connection.events() is not before
