"""Wrong requests: a 4xx problem document that names what is wrong; never a 500, never anything placed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

BASE = "/api/v1/connections/default"
GOOD = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "market", "client_order_id": "one"}


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert {"type", "title", "request_id"} <= found.keys()
    assert answer.headers["x-request-id"] == found["request_id"]
    return found


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"qty": 0}, "qty", "0"),
        ({"qty": -3}, "qty", "-3"),
        ({"qty": "5"}, "qty", "'5'"),
        ({"qty": True}, "qty", "True"),
        ({"qty": None}, "qty", "None"),
        ({"qty": float("nan")}, "qty", "nan"),
        ({"qty": float("inf")}, "qty", "inf"),
        ({"qty": 1e300}, "qty", "1e+300"),
        ({"qty": 10**400}, "qty", "1000"),
        ({"qty": [1]}, "qty", "[1]"),
        ({"side": "hold"}, "side", "'hold'"),
        ({"side": ""}, "side", "''"),
        ({"side": 1}, "side", "1"),
        ({"order_type": "stopp"}, "order_type", "'stopp'"),
        ({"order_type": "stop"}, "stop_price", "nothing"),
        ({"order_type": "stop", "stop_price": 0}, "stop_price", "0"),
        ({"order_type": "stop", "stop_price": 5.0, "limit_price": 5.0}, "limit_price", "5.0"),
        ({"order_type": "stop_limit", "stop_price": 5.0}, "limit_price", "nothing"),
        ({"order_type": "trailing_stop"}, "trail_amount", "nothing"),
        ({"order_type": "trailing_stop", "trail_percent": 100}, "trail_percent", "100"),
        (
            {"order_type": "trailing_stop", "trail_percent": 1.0, "trail_amount": 1.0},
            "trail_amount",
            "1.0",
        ),
        ({"stop_price": 5.0}, "stop_price", "5.0"),
        ({"order_type": "limit", "limit_price": 100.001}, "limit_price", "100.001"),
        ({"order_type": "limit", "limit_price": 0.50005}, "limit_price", "0.50005"),
        ({"order_type": "limit", "limit_price": 1_000_000, "qty": 9_000_000}, "qty", "9000000"),
        ({"qty": 0.0000000001}, "qty", "1e-10"),
        ({"notional": 100}, "qty", "1"),
        ({"notional": -1}, "notional", "-1"),
        ({"qty": None, "notional": 1.005}, "notional", "1.005"),
        ({"take_profit_price": 300.0}, "stop_loss_price", "nothing"),
        ({"take_profit_price": 100.0, "stop_loss_price": 300.0}, "take_profit_price", "100.0"),
        ({"extended_hours": "yes"}, "extended_hours", "'yes'"),
        ({"extended_hours": True}, "extended_hours", "True"),
        ({"account": "SOMEBODY"}, "account", "'SOMEBODY'"),
        ({"symbol": "BRK B"}, "symbol", "'BRK B'"),
        ({"symbol": "BRK/B"}, "symbol", "'BRK/B'"),
        ({"symbol": ".B"}, "symbol", "'.B'"),
        ({"order_type": "limit"}, "limit_price", "nothing"),
        ({"order_type": "limit", "limit_price": 0}, "limit_price", "0"),
        ({"order_type": "limit", "limit_price": -1.5}, "limit_price", "-1.5"),
        ({"limit_price": 5.0}, "limit_price", "5.0"),
        ({"time_in_force": "forever"}, "time_in_force", "'forever'"),
        ({"symbol": "NOSUCH"}, "symbol", "NOSUCH"),
        ({"symbol": "AA PL"}, "symbol", "'AA PL'"),
        ({"symbol": ""}, "symbol", "''"),
        ({"symbol": "AAPL\x00"}, "symbol", "'AAPL\\x00'"),
        ({"symbol": "\ud800"}, "symbol", "'\\ud800'"),
        ({"symbol": "A" * 500}, "symbol", "'AAA"),
        ({"symbol": {"a": 1}}, "symbol", "{'a': 1}"),
        ({"client_order_id": None}, "client_order_id", "nothing"),
        ({"client_order_id": "has space"}, "client_order_id", "'has space'"),
        ({"client_order_id": "x" * 65}, "client_order_id", "'xxx"),
        ({"client_order_id": 7}, "client_order_id", "7"),
        ({"leverage": 10}, "leverage", "10"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_wrong_order_names_the_field_and_the_value(
    trader: httpx.AsyncClient, changes: dict[str, object], field: str, value: str
) -> None:
    content = json.dumps(GOOD | changes)
    headers = {"content-type": "application/json"}
    found = assert_problem(await trader.post(f"{BASE}/orders", content=content, headers=headers), 422)
    named = {e["field"].split(".")[0]: e["value"] for e in found["errors"]}
    assert field in named
    assert named[field].startswith(value)
    assert (await trader.get(f"{BASE}/orders")).json() == [], "nothing was placed"


@pytest.mark.parametrize("field", ["symbol", "side", "qty", "order_type"])
async def test_a_missing_field_is_named(trader: httpx.AsyncClient, field: str) -> None:
    body = {name: value for name, value in GOOD.items() if name != field}
    found = assert_problem(await trader.post(f"{BASE}/orders", json=body), 422)
    assert [(e["field"], e["value"]) for e in found["errors"]] == [(field, "nothing")]


async def test_all_wrong_fields_are_said_at_once(trader: httpx.AsyncClient) -> None:
    body = GOOD | {"qty": 0, "side": "x", "order_type": "y"}
    found = assert_problem(await trader.post(f"{BASE}/orders", json=body), 422)
    assert {e["field"] for e in found["errors"]} == {"qty", "side", "order_type"}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"null", 422),
        (b"[]", 422),
        (b"[" * 20_000, 400),
        (b'{"qty": ' + b"9" * 5000 + b"}", 400),
        (b"\xff\xfe", 400),
    ],
    ids=["nothing", "half", "null", "list", "deep", "long number", "not text"],
)
async def test_a_body_that_is_no_order_is_a_problem(
    trader: httpx.AsyncClient, content: bytes, status: int
) -> None:
    headers = {"content-type": "application/json"}
    assert_problem(await trader.post(f"{BASE}/orders", content=content, headers=headers), status)


async def test_a_form_is_no_order(trader: httpx.AsyncClient) -> None:
    assert_problem(await trader.post(f"{BASE}/orders", data={"symbol": "AAPL"}), 422)


async def test_a_body_beyond_the_limit_is_refused_declared_or_streamed(trader: httpx.AsyncClient) -> None:
    large = b" " * 70_000

    async def streamed() -> Any:
        for start in range(0, len(large), 10_000):
            yield large[start : start + 10_000]

    headers = {"content-type": "application/json"}
    assert_problem(await trader.post(f"{BASE}/orders", content=large, headers=headers), 413)
    assert_problem(await trader.post(f"{BASE}/orders", content=streamed(), headers=headers), 413)


async def test_the_key_and_the_id_must_not_contradict_each_other(trader: httpx.AsyncClient) -> None:
    answer = await trader.post(f"{BASE}/orders", json=GOOD, headers={"idempotency-key": "two"})
    assert assert_problem(answer, 422)["errors"][0]["field"] == "client_order_id"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "qty"),
        ({"qty": 0}, "qty"),
        ({"qty": "7"}, "qty"),
        ({"limit_price": float("nan")}, "limit_price"),
        ({"limit_price": 1.001}, "limit_price"),
        ({"stop_price": 5.0}, "stop_price"),
        ({"time_in_force": "forever"}, "time_in_force"),
        ({"symbol": "MSFT"}, "symbol"),
    ],
    ids=str,
)
async def test_a_wrong_replacement_names_the_field_and_changes_nothing(
    trader: httpx.AsyncClient, body: dict[str, object], field: str
) -> None:
    resting = GOOD | {"order_type": "limit", "limit_price": 1.0}
    order = (await trader.post(f"{BASE}/orders", json=resting)).json()
    headers = {"content-type": "application/json"}
    path = f"{BASE}/orders/{order['id']}"
    answer = await trader.patch(path, content=json.dumps(body), headers=headers)
    found = assert_problem(answer, 422)
    assert field in {e["field"].split(".")[0] for e in found["errors"]}
    assert (await trader.get(path)).json() == order


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/connections/other/account", 404),
        ("GET", f"{BASE}/orders/nosuchorder", 404),
        ("GET", f"{BASE}/orders/%00", 404),
        ("DELETE", f"{BASE}/orders/nosuchorder", 404),
        ("GET", f"{BASE}/orders/{'9' * 65}", 422),
        ("GET", f"{BASE}/positions/MSFT", 404),
        ("GET", f"{BASE}/positions/AA%20PL", 422),
        ("GET", f"{BASE}/quotes/NOSUCH", 404),
        ("GET", f"{BASE}/quotes/-", 422),
        ("GET", f"{BASE}/orders?limit=0", 422),
        ("GET", f"{BASE}/orders?limit=x", 422),
        ("GET", f"{BASE}/fills?limit=0", 422),
        ("GET", f"{BASE}/fills?since=yesterday", 422),
        ("GET", f"{BASE}/fills?since=2026-11-20T10:00:00", 422),
        ("GET", f"{BASE}/orders/by-client-order-id/never-placed", 404),
        ("GET", f"{BASE}/orders/by-client-order-id/a%20b", 422),
        ("PATCH", f"{BASE}/orders/nosuchorder", 422),
        ("DELETE", f"{BASE}/positions/AAPL", 422),
        ("DELETE", f"{BASE}/positions/AAPL?client_order_id=c1", 422),
        ("DELETE", f"{BASE}/positions/AAPL?client_order_id=c1&qty=0", 422),
        ("DELETE", f"{BASE}/positions/AAPL?client_order_id=c1&qty=nan", 422),
        ("POST", f"{BASE}/preview", 422),
        ("POST", f"{BASE}/events", 405),
        ("PUT", f"{BASE}/orders", 405),
        ("POST", f"{BASE}/account", 405),
        ("DELETE", "/healthz", 405),
    ],
)
async def test_a_wrong_path_or_method_is_a_problem(
    trader: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await trader.request(method, path)
    assert_problem(answer, status)
    if status == 405:
        assert answer.headers["allow"]


async def test_a_request_id_is_kept_if_it_is_one(trader: httpx.AsyncClient) -> None:
    kept = await trader.get("/healthz", headers={"x-request-id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    replaced = await trader.get("/healthz", headers={"x-request-id": "a b\tc"})
    assert replaced.headers["x-request-id"] != "a b\tc"


async def test_the_openapi_document_describes_problems_and_the_token(
    app: FastAPI, client_for: Callable[..., httpx.AsyncClient]
) -> None:
    async with client_for("user") as client:
        document = (await client.get("/openapi.json")).json()
    operations = {
        f"{method} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    trading = {name: o for name, o in operations.items() if "/connections/" in name}
    assert len(trading) >= 18
    for name, operation in trading.items():
        assert operation["security"], name
        for status in ("401", "403", "404", "422", "503"):
            assert "application/problem+json" in operation["responses"][status]["content"], (name, status)
    placed = trading["post /api/v1/connections/{connection_id}/orders"]
    assert {"201", "400", "409", "413", "504"} <= placed["responses"].keys()
    assert "application/json" not in placed["responses"]["422"]["content"], (
        "FastAPI's own error shape is never sent"
    )
