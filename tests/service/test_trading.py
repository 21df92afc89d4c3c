"""The trading endpoints over the simulated broker: what a client sees when all is well.

What the brokers themselves do is in tests/broker; wrong requests are in test_bad_requests.py.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

import httpx

BASE = "/api/v1/connections/default"


def order(**changes: object) -> dict[str, object]:
    body = {
        "symbol": "AAPL",
        "side": "buy",
        "qty": 5,
        "order_type": "market",
        "client_order_id": uuid.uuid4().hex,
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


async def test_account_has_the_plans_fields_and_says_what_last_equity_is(trader: httpx.AsyncClient) -> None:
    account = (await trader.get(f"{BASE}/account")).json()
    plan = {"id", "cash", "buying_power", "portfolio_value", "equity", "last_equity"}
    assert plan <= account.keys()
    assert account["last_equity_source"] == "opening cash"


async def test_no_positions_is_an_empty_list(trader: httpx.AsyncClient) -> None:
    answer = await trader.get(f"{BASE}/positions")
    assert (answer.status_code, answer.json()) == (200, [])


async def test_a_market_order_fills_and_becomes_a_position(trader: httpx.AsyncClient) -> None:
    placed = await trader.post(f"{BASE}/orders", json=order(qty=5))
    assert placed.status_code == 201
    assert placed.json()["status"] == "filled"
    read = await trader.get(placed.headers["location"])
    assert read.json() == placed.json()
    position = (await trader.get(f"{BASE}/positions/AAPL")).json()
    assert position["qty"] == 5
    assert [p["symbol"] for p in (await trader.get(f"{BASE}/positions")).json()] == ["AAPL"]


async def test_a_limit_order_rests_until_it_is_cancelled(trader: httpx.AsyncClient) -> None:
    placed = (await trader.post(f"{BASE}/orders", json=order(order_type="limit", limit_price=1.0))).json()
    assert placed["status"] == "submitted"
    cancelled = await trader.delete(f"{BASE}/orders/{placed['id']}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    again = await trader.delete(f"{BASE}/orders/{placed['id']}")
    assert again.status_code == 409, "a final order can't be cancelled, and that is no success"
    assert again.json()["order"]["status"] == "cancelled"


async def test_a_bracket_is_posted_as_one_order_and_its_legs_are_read_by_their_ids(
    trader: httpx.AsyncClient,
) -> None:
    legs = {"take_profit_price": 2.0, "stop_loss_price": 0.5, "time_in_force": "gtc"}
    body = order(order_type="limit", limit_price=1.0, client_order_id="b", **legs)
    entry = (await trader.post(f"{BASE}/orders", json=body)).json()
    assert (await trader.post(f"{BASE}/orders", json=body)).json()["legs"] == entry["legs"]
    found = [(await trader.get(f"{BASE}/orders/{leg}")).json() for leg in entry["legs"]]
    assert [(leg["client_order_id"], leg["parent_id"]) for leg in found] == [
        ("b.tp", entry["id"]),
        ("b.sl", entry["id"]),
    ]
    refused = await trader.patch(f"{BASE}/orders/{entry['id']}", json={"qty": 3})
    assert refused.status_code == 422
    moved = await trader.patch(f"{BASE}/orders/{entry['legs'][1]}", json={"stop_price": 0.6})
    assert moved.json()["stop_price"] == 0.6
    await trader.delete(f"{BASE}/orders/{entry['id']}")
    ended = [(await trader.get(f"{BASE}/orders/{leg}")).json()["status"] for leg in entry["legs"]]
    assert ended == ["cancelled", "cancelled"]


async def test_a_trailing_stop_is_posted_with_one_distance(trader: httpx.AsyncClient) -> None:
    for trail in ({"trail_amount": 5.0}, {"trail_percent": 2.5}):
        placed = await trader.post(f"{BASE}/orders", json=order(order_type="trailing_stop", **trail))
        assert placed.status_code == 201
        assert [placed.json()[name] for name in trail] == list(trail.values())
    assert (await trader.post(f"{BASE}/orders", json=order(order_type="trailing_stop"))).status_code == 422


async def test_the_history_is_newest_first_and_limited(trader: httpx.AsyncClient) -> None:
    ids = [(await trader.post(f"{BASE}/orders", json=order())).json()["id"] for _ in range(3)]
    listed = (await trader.get(f"{BASE}/orders", params={"limit": 2})).json()
    assert [o["id"] for o in listed] == ids[:0:-1]


async def test_the_idempotency_key_is_the_client_order_id(trader: httpx.AsyncClient) -> None:
    body = order(client_order_id=None)
    key = uuid.uuid4().hex
    first = await trader.post(f"{BASE}/orders", json=body, headers={"idempotency-key": f'"{key}"'})
    second = await trader.post(f"{BASE}/orders", json=body, headers={"idempotency-key": key})
    assert first.json()["client_order_id"] == key
    assert second.json()["id"] == first.json()["id"], "a quoted key and a bare one are the same key"


async def test_the_same_order_posted_by_ten_clients_at_once_is_placed_once(
    client_for: Callable[..., httpx.AsyncClient],
) -> None:
    body = order(qty=3)
    clients = [client_for("trader") for _ in range(10)]
    answers = await asyncio.gather(*(c.post(f"{BASE}/orders", json=body) for c in clients))
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["id"] for a in answers}) == 1
    assert (await clients[0].get(f"{BASE}/positions/AAPL")).json()["qty"] == 3, "filled once, not ten times"
    for client in clients:
        await client.aclose()


async def test_the_same_id_with_another_body_is_refused(trader: httpx.AsyncClient) -> None:
    body = order()
    await trader.post(f"{BASE}/orders", json=body)
    answer = await trader.post(f"{BASE}/orders", json=body | {"qty": 6})
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("duplicate-client-order-id")
    assert answer.json()["order"]["qty"] == 5


async def test_an_order_beyond_the_cash_is_refused_and_stays_refused_when_repeated(
    trader: httpx.AsyncClient,
) -> None:
    body = order(qty=600)  # more than the cash, less than the limit on an order's value
    for _ in range(2):
        answer = await trader.post(f"{BASE}/orders", json=body)
        assert answer.status_code == 422
        assert answer.json()["type"].endswith("insufficient-funds")
        assert answer.json()["order"]["status"] == "rejected"


async def test_clock_quote_and_health_answer(trader: httpx.AsyncClient) -> None:
    assert (await trader.get(f"{BASE}/clock")).json()["is_open"] is True
    quote = (await trader.get(f"{BASE}/quotes/AAPL")).json()
    assert quote["bid"] < quote["ask"]
    assert quote["kind"] == "simulated"
    assert (await trader.get(f"{BASE}/health")).json()["ok"] is True


async def test_probes_need_no_token(app: object) -> None:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as anonymous:
        assert (await anonymous.get("/healthz")).status_code == 200
        assert (await anonymous.get("/readyz")).json() == {"status": "ok"}
