"""How many streams there may be, so that open pages never keep an order waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from tests.service.test_bad_requests import assert_problem

BASE = "/api/v1/connections/default"


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"STREAM_LIMIT": "3", "STREAMS_PER_USER": "2", "STREAM_SECONDS": "1"}


async def test_a_stream_counts_while_it_is_open_and_ends_before_the_platform_ends_it(
    app: FastAPI, trader: httpx.AsyncClient
) -> None:
    listening = asyncio.create_task(trader.get(f"{BASE}/events"))
    looking = asyncio.create_task(trader.get("/live/default?parts=tiles"))
    async with asyncio.timeout(30):
        while app.state.streams.open < 2:  # noqa: ASYNC110 - no event is set for it
            await asyncio.sleep(0.01)
        assert (await listening).text.startswith("retry")
        assert 'id="tiles"' in (await looking).text
    assert app.state.streams.open == 0


async def test_beyond_the_limits_nobody_gets_a_stream_and_orders_go_through(
    app: FastAPI, trader: httpx.AsyncClient, client_for: Callable[..., httpx.AsyncClient]
) -> None:
    with contextlib.ExitStack() as others:
        for _ in range(2):
            others.enter_context(app.state.streams.held("ada"))
        refused = await trader.get(f"{BASE}/events")
        assert_problem(refused, 429)
        assert "close some" in refused.json()["detail"]
        others.enter_context(app.state.streams.held("bo"))
        others.enter_context(app.state.streams.held("cy"))
        others.pop_all().close()
        for user in ("bo", "cy", "di"):
            others.enter_context(app.state.streams.held(user))
        full = await trader.get(f"{BASE}/events")
        assert_problem(full, 503)
        assert full.headers["retry-after"] == "10"
        order = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "market", "client_order_id": "one"}
        assert (await trader.post(f"{BASE}/orders", json=order)).status_code == 201
    async with client_for("monitor") as monitor:
        text = (await monitor.get("/metrics")).text
    assert 'api_refused_streams_total{status="429"} 1.0' in text
    assert 'api_refused_streams_total{status="503"} 1.0' in text


async def test_a_page_without_a_stream_gets_everything_once_and_comes_again(
    app: FastAPI, trader: httpx.AsyncClient
) -> None:
    with contextlib.ExitStack() as others:
        for user in ("bo", "cy", "di"):
            others.enter_context(app.state.streams.held(user))
        async with asyncio.timeout(20):
            text = (await trader.get("/live/default?parts=pulse,tiles")).text
    assert text.startswith("retry: 5000\n"), "milliseconds; the page's own notice of a lost link waits 14 s"
    assert 'id="tiles"' in text
    assert 'id="pulse"' in text
    assert "every 5 seconds only: 3 pages and streams are open" in text
