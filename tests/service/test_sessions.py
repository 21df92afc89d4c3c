"""Browsers' sessions: the token in a cookie, which counts for the dashboard's own requests only."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from tests.service.conftest import Issuer

ACCOUNT = "/api/v1/connections/default/account"
ORDERS = "/api/v1/connections/default/orders"
OWN = {"sec-fetch-site": "same-origin"}


@pytest.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client that keeps cookies and has no token of its own."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://service") as client:
        yield client


async def test_a_login_lets_the_dashboards_own_requests_in_until_the_logout(
    browser: httpx.AsyncClient, issuer: Issuer
) -> None:
    assert (await browser.get(ACCOUNT, headers=OWN)).status_code == 401
    token = issuer.token("trader", exp=int(time.time()) + 120)
    answer = await browser.post("/session", json={"token": token}, headers=OWN)
    assert answer.status_code == 200
    assert answer.json()["roles"] == ["trader"]
    cookie = answer.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "secure", "path=/"))
    assert 100 < int(cookie.partition("max-age=")[2].partition(";")[0]) <= 151
    assert token not in answer.text

    assert (await browser.get(ACCOUNT, headers=OWN)).status_code == 200
    assert (await browser.delete("/session", headers=OWN)).status_code == 204
    assert (await browser.get(ACCOUNT, headers=OWN)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {},
    ],
)
async def test_another_sites_page_can_use_no_session(
    browser: httpx.AsyncClient, issuer: Issuer, headers: dict[str, str]
) -> None:
    await browser.post("/session", json={"token": issuer.token("trader")}, headers=OWN)
    order = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "market", "client_order_id": "x"}
    answer = await browser.post(ORDERS, json=order, headers=headers)
    assert answer.status_code == 403
    assert (await browser.get(ORDERS, headers=OWN)).json() == []
    assert (await browser.delete("/session", headers=headers)).status_code == 403
    assert (await browser.post("/session", json={"token": "x"}, headers=headers)).status_code == 403


async def test_a_browser_that_says_its_origin_only_is_understood(
    browser: httpx.AsyncClient, issuer: Issuer
) -> None:
    own = {"origin": "https://service"}
    assert (
        await browser.post("/session", json={"token": issuer.token("trader")}, headers=own)
    ).status_code == 200
    order = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "market", "client_order_id": "x"}
    assert (await browser.post(ORDERS, json=order, headers=own)).status_code == 201


async def test_a_header_goes_before_the_cookie(browser: httpx.AsyncClient, issuer: Issuer) -> None:
    await browser.post("/session", json={"token": issuer.token("trader")}, headers=OWN)
    answer = await browser.get(ACCOUNT, headers={"authorization": "Bearer nonsense", **OWN})
    assert answer.status_code == 401


async def test_a_wrong_login_is_refused_and_not_repeated(browser: httpx.AsyncClient) -> None:
    answer = await browser.post("/session", json={"token": "my-secret-token"}, headers=OWN)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    long = await browser.post("/session", json={"token": "my-secret-token" * 400}, headers=OWN)
    assert long.status_code == 422
    assert "my-secret" not in answer.text + long.text
