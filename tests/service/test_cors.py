"""Pages of other origins: what an allowed one may do, and that no session cookie is among it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker.errors import ConfigurationError
from broker.service.app import create_app
from broker.service.origins import check_origin
from broker.service.settings import Settings, read_service_settings
from tests.service.conftest import Issuer
from tests.service.test_bad_requests import assert_problem

APP = "https://app.example.com"
ORDERS = "/api/v1/connections/default/orders"
ORDER = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "market", "client_order_id": "x"}
NEEDED = {"DATABASE_URL": "postgresql+psycopg://a:b@h/d", "OIDC_ISSUER": "http://i", "OIDC_AUDIENCE": "a"}
PREFLIGHT = {
    "origin": APP,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,idempotency-key",
}


@pytest.fixture
async def app(environment: dict[str, str]) -> AsyncIterator[FastAPI]:
    """The app, which pages of two origins may call."""
    given = environment | {"CORS_ORIGINS": f"{APP}, http://localhost:5173"}
    made = create_app(Settings.from_environment(given))
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def anybody(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client that keeps cookies and has no token."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://service") as client:
        yield client


@pytest.mark.parametrize("origin", [APP, "http://localhost:5173"])
async def test_an_allowed_page_places_an_order_with_its_own_token(
    anybody: httpx.AsyncClient, issuer: Issuer, origin: str
) -> None:
    asked = await anybody.options(ORDERS, headers=PREFLIGHT | {"origin": origin})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == origin
    assert "idempotency-key" in asked.headers["access-control-allow-headers"].lower()
    assert int(asked.headers["access-control-max-age"]) == 7200
    headers = {"origin": origin, "sec-fetch-site": "cross-site", "authorization": "Bearer x"}
    refused = await anybody.post(ORDERS, json=ORDER, headers=headers)
    assert_problem(refused, 401)
    assert refused.headers["access-control-allow-origin"] == origin, "the page can read why"
    placed = await anybody.post(
        ORDERS, json=ORDER, headers=headers | {"authorization": f"Bearer {issuer.token('trader')}"}
    )
    assert placed.status_code == 201
    assert placed.headers["access-control-allow-origin"] == origin
    assert "location" in placed.headers["access-control-expose-headers"].lower()
    assert "access-control-allow-credentials" not in {*asked.headers, *placed.headers}


async def test_a_refused_body_is_told_to_the_page_as_well(anybody: httpx.AsyncClient) -> None:
    headers = {"origin": APP, "content-type": "application/json"}
    answer = await anybody.post("/api/v1/enrolments", content=b" " * 70_000, headers=headers)
    assert answer.status_code == 413
    assert answer.headers["access-control-allow-origin"] == APP


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_an_allowed_page_cant_use_the_dashboards_session(
    anybody: httpx.AsyncClient, issuer: Issuer, site: str
) -> None:
    own = {"sec-fetch-site": "same-origin"}
    await anybody.post("/session", json={"token": issuer.token("trader", "operator")}, headers=own)
    assert (await anybody.get(ORDERS, headers=own)).status_code == 200
    for said in ({"origin": APP, "sec-fetch-site": site}, {"origin": APP}):
        for method, path in (("POST", ORDERS), ("GET", "/api/v1/connections/default/account")):
            if method == "GET" and "sec-fetch-site" not in said:
                said = said | {"sec-fetch-site": site}  # every browser that asks across sites says so
            answer = await anybody.request(method, path, json=ORDER, headers=said)
            assert_problem(answer, 403)
            assert "access-control-allow-credentials" not in answer.headers
        for method in ("POST", "DELETE"):
            answer = await anybody.request(method, "/session", json={"token": "x"}, headers=said)
            assert answer.status_code == 403
    assert (await anybody.get(ORDERS, headers=own)).json() == []


@pytest.mark.parametrize("path", ["/", "/session", "/static/dashboard.css", "/healthz", "/metrics"])
async def test_only_the_api_answers_to_other_origins(anybody: httpx.AsyncClient, path: str) -> None:
    asked = await anybody.options(path, headers=PREFLIGHT)
    got = await anybody.get(path, headers={"origin": APP})
    assert not [n for n in (*asked.headers, *got.headers) if n.startswith("access-control-")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"origin": "https://evil.example"},
        {"origin": APP + ".evil.example"},
        {"origin": "null"},
        {"access-control-request-method": "TRACE"},
        {"access-control-request-headers": "x-forwarded-for"},
    ],
)
async def test_another_preflight_is_refused_as_a_problem(
    anybody: httpx.AsyncClient, wrong: dict[str, str]
) -> None:
    answer = await anybody.options(ORDERS, headers=PREFLIGHT | wrong)
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:ibkr-api:problem:cors"
    allowed = answer.headers.get("access-control-allow-origin")
    assert allowed is None if "origin" in wrong else allowed == APP


async def test_without_the_setting_no_page_elsewhere_may(environment: dict[str, str], issuer: Issuer) -> None:
    made = create_app(Settings.from_environment(environment))
    async with made.router.lifespan_context(made):
        transport = httpx.ASGITransport(app=made)
        async with httpx.AsyncClient(transport=transport, base_url="https://service") as client:
            assert (await client.options(ORDERS, headers=PREFLIGHT)).status_code == 405
            headers = {"origin": APP, "authorization": f"Bearer {issuer.token('trader')}"}
            answer = await client.get(ORDERS, headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


WRONG = {
    "*": r"write every origin out, not \*: .* bearer tokens and session cookies",
    "https://*.example.com": "write every origin out",
    "null": "sandboxed pages",
    "https://app.example.com/": "write https://app.example.com$",
    "https://app.example.com/api?x#y": "write https://app.example.com$",
    "HTTPS://App.Example.com": "write https://app.example.com$",
    "https://app.example.com:443": "leave out a scheme's own port: write https://app.example.com$",
    "http://localhost:80": "write http://localhost$",
    "http://app.example.com": "isn't encrypted",
    "http://localhost.example.com": "isn't encrypted",
    "http://10.0.0.1:3000": "isn't encrypted",
    "app.example.com": "write scheme and host",
    "wss://app.example.com": "write scheme and host",
    "https://": "write scheme and host",
    "https://app.example.com:port": "write scheme and host",
    "https://-app.example.com": "write scheme and host",
    "https://ann:secret@app.example.com": "no user name or password",
}


@pytest.mark.parametrize("origin", WRONG)
def test_what_no_browser_sends_or_nobody_should_allow_is_refused_with_the_remedy(origin: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_service_settings(NEEDED | {"CORS_ORIGINS": f"https://good.example.com,{origin}"})
    assert re.search(WRONG[origin], refused.value.message)
    assert refused.value.message.startswith("CORS_ORIGINS (2): ")
    assert "secret" not in refused.value.message


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "broker.service", "serve"]
    given = NEEDED | {
        "CORS_ORIGINS": "*,http://x,https://a.b",
        "OIDC_ISSUER": "x",
        "BROKER_TYPE": "simulated",
    }
    done = subprocess.run(
        command, env=given, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()[1:]] == [
        "OIDC_ISSUER", "CORS_ORIGINS (1)", "CORS_ORIGINS (2)"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "origin",
    [APP, "https://app.example.com:8443", "http://127.0.0.1:3000", "http://[::1]:5173", "http://localhost"],
)
def test_an_origin_as_browsers_write_it_is_taken(origin: str) -> None:
    assert check_origin(origin) == origin
    assert read_service_settings(NEEDED | {"CORS_ORIGINS": f" {origin} "}).cors_origins == (origin,)


async def test_events_reach_an_allowed_page(app: FastAPI, issuer: Issuer) -> None:
    """Over ASGI itself: httpx's transport waits for the end of a stream."""
    sent: list[MutableMapping[str, Any]] = []
    enough = asyncio.Event()
    asked = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        if asked:
            return asked.pop()
        await enough.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)
        if message.get("body"):
            enough.set()

    headers = {"origin": APP, "authorization": f"Bearer {issuer.token('user')}"}
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "https", "query_string": b"",
        "path": "/api/v1/connections/default/events", "server": ("service", 443),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    await asyncio.wait_for(app(scope, receive, send), 60)
    assert dict(sent[0]["headers"])[b"access-control-allow-origin"] == APP.encode()
    assert b"retry: " in sent[1]["body"]
