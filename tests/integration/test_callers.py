"""The broker from Django (WSGI and ASGI), FastAPI under uvloop, plain threads and event loops: at once.

Orders are counted in the journal and by the positions they made: each caller's order exists once.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.test import Client
from fastapi import FastAPI

from broker.base import BaseBroker
from broker.models import Order, OrderRequest
from tests.broker.paper_gateway import eventually
from tests.integration import django_site
from tests.integration.servers import asgi, wsgi


@pytest.fixture(autouse=True)
def site(broker: BaseBroker) -> Iterator[None]:
    """The Django site trades through the test's broker."""
    django_site.broker = broker
    yield
    django_site.broker = None


def order(**changes: Any) -> dict[str, Any]:
    body = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "limit", "limit_price": 1.0}
    return body | {"client_order_id": f"t-{uuid.uuid4().hex[:12]}"} | changes


def cancel(broker: BaseBroker, client_order_id: str) -> Order:
    placed = broker.get_order_by_client_id(client_order_id)
    broker.cancel_order(placed.id)
    return placed


def test_a_django_view_reads_the_account(broker: BaseBroker) -> None:
    answer = Client().get("/account")
    assert (answer.status_code, answer.json()["id"]) == (200, broker.get_account().id)


def test_an_asynchronous_django_view_reads_it_too(broker: BaseBroker) -> None:
    answer = Client().get("/account-async")
    assert (answer.status_code, answer.json()["id"]) == (200, broker.get_account().id)


def test_a_django_view_places_an_order_once_however_often_it_is_posted(broker: BaseBroker) -> None:
    body = order()
    client = Client()
    answers = [client.post("/orders", json.dumps(body), content_type="application/json") for _ in range(3)]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert cancel(broker, body["client_order_id"]).id == answers[0].json()["id"]


def test_a_wrong_order_is_the_callers_mistake_in_django_too() -> None:
    answer = Client().post("/orders", json.dumps(order(qty=0)), content_type="application/json")
    assert (answer.status_code, "qty" in answer.json()["error"]) == (422, True)


def test_django_under_a_threaded_wsgi_server_serves_twenty_callers_at_once(broker: BaseBroker) -> None:
    with wsgi(get_wsgi_application()) as url, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: httpx.get(f"{url}/account", timeout=30).json()["id"], range(40)))
    assert set(answers) == {broker.get_account().id}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_django_under_an_asgi_server_serves_sync_and_async_views(broker: BaseBroker, loop: str) -> None:
    with asgi(get_asgi_application(), loop) as url, ThreadPoolExecutor(10) as pool:
        paths = ["account", "account-async"] * 10
        answers = list(pool.map(lambda path: httpx.get(f"{url}/{path}", timeout=30).json()["id"], paths))
    assert set(answers) == {broker.get_account().id}


def fastapi_app(broker: BaseBroker) -> FastAPI:
    """One endpoint on the event loop, one in FastAPI's threads."""
    app = FastAPI()

    @app.post("/on-loop")
    async def on_loop(body: dict[str, Any]) -> dict[str, str]:
        return {"id": (await broker.place_order_async(OrderRequest(**body))).id}

    @app.post("/in-thread")
    def in_thread(body: dict[str, Any]) -> dict[str, str]:
        return {"id": broker.place_order(OrderRequest(**body)).id}

    return app


def test_everybody_at_once_and_every_order_exists_once(broker: BaseBroker) -> None:
    bodies = [order() for _ in range(24)]

    def over_http(url: str, body: dict[str, Any]) -> str:
        return str(httpx.post(url, json=body, timeout=30).json()["id"])

    def on_a_loop_of_its_own(body: dict[str, Any]) -> str:
        return asyncio.run(broker.place_order_async(OrderRequest(**body))).id

    with (
        wsgi(get_wsgi_application()) as django_url,
        asgi(fastapi_app(broker)) as fastapi_url,
        ThreadPoolExecutor(60) as pool,
    ):
        ways = [
            lambda body: over_http(f"{django_url}/orders", body),
            lambda body: over_http(f"{fastapi_url}/on-loop", body),
            lambda body: over_http(f"{fastapi_url}/in-thread", body),
            lambda body: broker.place_order(OrderRequest(**body)).id,
            on_a_loop_of_its_own,
        ]
        # Every order is placed in two ways at the same moment, while others only read.
        placed = [
            [pool.submit(ways[(number + shift) % len(ways)], body) for shift in (0, 1)]
            for number, body in enumerate(bodies)
        ]
        reading = [pool.submit(broker.get_positions) for _ in range(10)]
        ids = [{call.result(60) for call in pair} for pair in placed]
        for call in reading:
            call.result(60)
    assert all(len(pair) == 1 for pair in ids), "the same client order id was the same order, whoever asked"
    assert len({next(iter(pair)) for pair in ids}) == len(bodies)
    ours = {body["client_order_id"] for body in bodies}
    working = [o for o in broker.get_orders_history(200) if o.client_order_id in ours]
    assert len(working) == len(bodies)
    broker.cancel_all_orders()
    eventually(
        lambda: all(broker.get_order(o.id).status == "cancelled" for o in working), "all are cancelled"
    )


async def test_an_event_loop_goes_on_while_the_broker_is_asked(broker: BaseBroker) -> None:
    """A running loop, as in a notebook: synchronous calls work on it too, only they hold it up."""
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(beat())
    accounts = await asyncio.gather(*(broker.get_account_async() for _ in range(5)))
    beating.cancel()
    # Calls that held the loop up would all be done within one turn of it, and be told two turns later.
    assert beats > 3
    assert {a.id for a in accounts} == {broker.get_account().id}
