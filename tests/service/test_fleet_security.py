"""Tenants and strangers: nobody sees, guesses or touches what is another's, on any route there is.

Routes are those of the running app, so a new one is asked too; one with a body must be given a good one here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI

from tests.fleet.certificates import make_certificate
from tests.fleet.local_digitalocean import LocalDigitalOcean
from tests.service.conftest import Issuer
from tests.service.fleet_agents import Agents
from tests.service.fleet_fixtures import (
    BASE,
    Clients,
    ada,
    agents,
    cloud,
    fleet_app,
    fleet_changes,
    fleet_environment,
    login,
    until,
    user_for,
)
from tests.service.test_bad_requests import assert_problem

__all__ = ["ada", "agents", "cloud", "fleet_app", "fleet_changes", "fleet_environment", "user_for"]

ACCOUNT, CONNECTION = f"{BASE}/accounts/{{account_id}}", "/api/v1/connections/{connection_id}"
ORDER = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "market", "client_order_id": "one"}
BODIES: dict[str, Any] = {
    f"PUT {ACCOUNT}/credentials": {"username": "ib-user", "password": "another"},
    f"PUT {ACCOUNT}/policy": {"policy": "idle:30"},
    f"PUT {ACCOUNT}/ib-account": {"ib_account": "DU1234567"},
    f"PUT {ACCOUNT}/alerts": {"url": "tgram://123456789:AbcdefghijklmnopqrstuvwxyzAbcdefghi/12345678"},
    f"POST {CONNECTION}/orders": ORDER,
    f"POST {CONNECTION}/preview": ORDER,
    f"POST {CONNECTION}/verification": {"symbol": "AAPL"},
    f"PATCH {CONNECTION}/orders/{{order_id}}": {"qty": 2},
}
PARTS = {"order_id": "a" * 32, "symbol": "AAPL", "client_order_id": "one", "action": "stop"}
#: what everybody may read: where one logs in, and the API's description
OPEN_PAGES = {"/login", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
QUERIES = {f"DELETE {CONNECTION}/positions/{{symbol}}": {"client_order_id": "one"}}


def all_routes(app: Any) -> set[tuple[str, str]]:
    """Method and path of every route, with the dashboard's pages, which the OpenAPI document leaves out."""
    found = set()
    for route in app.routes:
        router = getattr(route, "original_router", None)
        if router is not None:
            found |= all_routes(router)
        found |= {(method, route.path) for method in getattr(route, "methods", None) or ()}
    return found


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route of the API about one account or connection."""
    return [
        (method.upper(), path)
        for path, operations in app.openapi()["paths"].items()
        for method in operations
        if "{account_id}" in path or "{connection_id}" in path
    ]


def pages(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every other route about one account or connection: the dashboard's."""
    known = set(routes(app))
    about_one = [(m, p) for m, p in all_routes(app) if "{account_id}" in p or "{connection_id}" in p]
    return sorted(found for found in about_one if found not in known and found[0] != "HEAD")


async def ask(client: httpx.AsyncClient, method: str, path: str, account: str) -> httpx.Response:
    given = {"account_id": account, "connection_id": account} | PARTS
    url = "http://service" + path.format_map(given)
    name = f"{method} {path}"
    return await client.request(method, url, json=BODIES.get(name), params=QUERIES.get(name))


def plain(answer: httpx.Response, account: str) -> tuple[int, str, dict[str, Any]]:
    """All that an answer tells but the request's own words."""
    document = {k: v for k, v in answer.json().items() if k != "request_id"}
    told = {k: str(v).replace(account, "<id>") for k, v in document.items()}
    return answer.status_code, answer.headers["content-type"], told


async def test_anothers_account_is_as_one_that_isnt_there_on_every_route(
    fleet_app: FastAPI, ada: httpx.AsyncClient, user_for: Clients, agents: Agents
) -> None:
    account = (await ada.post("/connect", json=login())).json()["account_id"]
    await until(lambda: ada.get(f"/accounts/{account}/status"), "running")
    before = (await ada.get(f"/accounts/{account}/history")).json()
    pushed = dict(agents.of(account).pushed)
    guessed = ("ib-demo-00000000", "ib-live-" + account[-8:], account.upper(), "none")
    asked = routes(fleet_app)
    assert len(asked) > 25
    async with user_for("eve", "user", "trader") as eve:
        for method, path in asked:
            answer = await ask(eve, method, path, account)
            found = plain(answer, account)
            # 403: for another role, before any account is looked for.
            document = assert_problem(answer, answer.status_code)
            assert answer.status_code == 404 or "needs the role" in document["detail"], (method, path)
            for unknown in guessed:
                other = plain(await ask(eve, method, path, unknown), unknown)
                assert other == found, f"{method} {path} tells {account} from {unknown}"
    async with user_for("eve", "monitor") as watcher:
        for method, path in asked:
            assert (await ask(watcher, method, path, account)).status_code in (403, 404), (method, path)
    assert (await ada.get(f"/accounts/{account}/history")).json() == before, "nothing was touched"
    assert agents.of(account).pushed == pushed
    assert account not in (await ada.get("/accounts", headers=await _of(user_for, "eve"))).text


async def test_anothers_account_is_as_one_that_isnt_there_on_every_page(
    fleet_app: FastAPI, ada: httpx.AsyncClient, user_for: Clients, agents: Agents
) -> None:
    account = (await ada.post("/connect", json=login())).json()["account_id"]
    await until(lambda: ada.get(f"/accounts/{account}/status"), "running")
    before = (await ada.get(f"/accounts/{account}/history")).json()
    pushed = dict(agents.of(account).pushed)
    asked = pages(fleet_app)
    assert ("POST", "/gateways/{account_id}/{action}") in asked
    form = {"username": "ib-user", "password": "another", "confirm": "yes", **ORDER}
    async with user_for("eve", "user", "trader") as eve:
        eve.headers["sec-fetch-site"] = "same-origin"
        for method, path in asked:
            told = []
            for one in (account, "ib-demo-00000000"):
                url = "http://service" + path.format_map({"account_id": one, "connection_id": one} | PARTS)
                answer = await eve.request(method, url, data=form if method == "POST" else None)
                assert answer.status_code < 500, f"{method} {path}"
                where = answer.headers.get("location", "").replace(one, "<id>")
                text = re.sub(r"[0-9a-f]{32}", "<request>", answer.text.replace(one, "<id>"))
                told.append((answer.status_code, where, text))
            assert told[0] == told[1], f"{method} {path} tells them apart"
    assert (await ada.get(f"/accounts/{account}/history")).json() == before, "nothing was touched"
    assert agents.of(account).pushed == pushed


async def _of(user_for: Clients, user: str) -> dict[str, str]:
    async with user_for(user) as client:
        return {"authorization": client.headers["authorization"]}


async def test_no_route_answers_without_a_token_but_the_few_that_need_none(
    fleet_app: FastAPI, ada: httpx.AsyncClient
) -> None:
    account = (await ada.post("/connect", json=login())).json()["account_id"]
    free = {f"GET /{probe}" for probe in ("healthz", "readyz", "health")}
    free |= {"POST /api/v1/enrolments", "POST /session", "DELETE /session"}
    transport = httpx.ASGITransport(app=fleet_app)
    async with httpx.AsyncClient(transport=transport) as nobody:
        documented = {(m.upper(), p) for p, ms in fleet_app.openapi()["paths"].items() for m in ms}
        for method, path in sorted(all_routes(fleet_app)):
            name = f"{method} {path}"
            if name in free or method == "HEAD" or path in OPEN_PAGES:
                continue
            answer = await ask(nobody, method, path, account)
            # Pages send a browser to where it logs in.
            refused = (401, 422) if (method, path) in documented else (303, 401, 403, 422)
            assert answer.status_code in refused, name
            assert answer.headers.get("location", "/login").startswith("/login"), name
            if not documented & {(method, path)}:
                continue
            assert account not in answer.text, name


async def test_users_whose_names_sanitise_alike_stay_apart(
    user_for: Clients, agents: Agents, cloud: LocalDigitalOcean
) -> None:
    users = ("ann.lee", "ann-lee", "Ann Lee", "ann_lee", "аnn.lee")
    found = {}
    for user in users:
        async with user_for(user) as client:
            answer = await client.post("/connect", json=login("the-same-ib-user"))
            assert answer.status_code == 202, answer.text
            found[user] = answer.json()["account_id"]
    assert len(set(found.values())) == len(users)
    for user in users:
        async with user_for(user) as client:
            listed = (await client.get("/accounts")).json()["accounts"]
            assert [account["account_id"] for account in listed] == [found[user]]
    names = [d["name"] for d in cloud.do(lambda: cloud.account.list_droplets())]
    assert len(names) == len(set(names)) == len(users)
    assert all(name.isascii() and name == name.lower() for name in names)


async def enrol(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("http://service/api/v1/enrolments", json=body, headers={"authorization": ""})


async def test_a_stolen_reused_or_invented_token_yields_nothing_and_tells_nothing(
    ada: httpx.AsyncClient, agents: Agents, fleet_app: FastAPI
) -> None:
    mine = (await ada.post("/connect", json=login("one"))).json()["account_id"]
    other = (await ada.post("/connect", json=login("two"))).json()["account_id"]
    for account in (mine, other):
        await until(lambda account=account: ada.get(f"/accounts/{account}/status"), "running")  # type: ignore[misc]
    token = agents.of(mine).settings["enrolment_token"]
    thief = make_certificate("127.0.0.1")[1].decode()
    before = dict(agents.of(mine).pushed)
    answers = [
        await enrol(ada, account_id=mine, token=token, certificate=thief),  # used already
        await enrol(ada, account_id=other, token=token, certificate=thief),  # another account's
        await enrol(ada, account_id="ib-demo-00000000", token=token, certificate=thief),
        await enrol(ada, account_id=mine, token="invented", certificate=thief),
        await enrol(ada, account_id=mine, token=token, certificate="none"),
        await enrol(ada, account_id=mine, token=token.swapcase(), certificate=agents.of(mine).certificate),
    ]
    told = [plain(answer, "") for answer in answers]
    assert {status for status, *_ in told} == {403}
    assert all(one == told[0] for one in told), "which of them was wrong isn't told"
    status = (await ada.get(f"/accounts/{mine}/status")).json()
    assert status["status"] == "running"
    assert agents.of(mine).pushed == before
    counted = fleet_app.state.fleet.metrics.registry.get_sample_value
    assert counted("fleet_enrolments_refused_total", {"reason": "used_token"}) == 1


async def test_a_droplet_that_isnt_ours_gets_nothing(
    ada: httpx.AsyncClient, agents: Agents, cloud: LocalDigitalOcean
) -> None:
    """It has our tags, an account's too, but no enrolment of this database."""
    account = (await ada.post("/connect", json=login())).json()["account_id"]
    await until(lambda: ada.get(f"/accounts/{account}/status"), "running")
    strange = make_certificate("127.0.0.9")[1].decode()
    for name in (account, "ib-demo-11111111", ""):
        answer = await enrol(ada, account_id=name, token="t" * 43, certificate=strange)
        assert_problem(answer, 403)
    held = [agent for agent in agents._agents.values() if agent.pushed]
    assert [agent.settings["account_id"] for agent in held] == [account]


@pytest.fixture
async def scheduler(fleet_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=fleet_app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


async def test_a_token_that_anybody_can_sign_runs_no_pass_and_reads_nothing(
    scheduler: httpx.AsyncClient, issuer: Issuer, fleet_environment: dict[str, str]
) -> None:
    claims: dict[str, Any] = {
        "iss": issuer.url, "aud": fleet_environment["SCHEDULER_AUDIENCE"], "sub": "1", "exp": 4_000_000_000,
        "email": fleet_environment["SCHEDULER_EMAIL"], "email_verified": True, "roles": ["operator"],
    }  # fmt: skip
    public = issuer.keys["one"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = {"kid": "one"}
    unsigned = jwt.encode(claims, "", algorithm="none", headers=head)
    # PyJWT refuses to sign with a public key, as an attacker's library wouldn't.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jwt.algorithms.HMACAlgorithm, "prepare_key", lambda _self, key: key)
        hashed = jwt.encode(claims, public, algorithm="HS256", headers=head)
    good = issuer.token(**{k: v for k, v in claims.items() if k != "roles"}, roles=None)
    stripped = good.rpartition(".")[0] + "."
    for token in (unsigned, hashed, stripped, good + "x", "", "a.b.c"):
        headers = {"authorization": f"Bearer {token}"}
        for method, path in (
            ("POST", "/api/v1/fleet/reconcile"),
            ("GET", "/api/v1/fleet"),
            ("GET", "/metrics"),
        ):
            assert_problem(await scheduler.request(method, path, headers=headers), 401)
    headers = {"authorization": f"Bearer {good}"}
    assert (await scheduler.post("/api/v1/fleet/reconcile", headers=headers)).status_code == 200


async def test_a_refused_login_is_not_repeated_and_says_what_to_do(
    ada: httpx.AsyncClient, agents: Agents
) -> None:
    account = (await ada.post("/connect", json=login())).json()["account_id"]
    there = f"/accounts/{account}"
    await until(lambda: ada.get(f"{there}/status"), "running")
    agent = agents.of(account)
    agent.session["authenticated"] = False
    agent.lines = ["login failed: invalid username password combination"]
    assert (await ada.post(f"{there}/restart")).status_code == 202
    found = await until(lambda: ada.get(f"{there}/status"), "login_failed", key="reason")
    assert found["status"] == "error"
    assert "check user name and password" in found["message"]
    sequence, restarts = agent.pushed["sequence"], agent.restarts
    for action in ("start", "restart", "start"):
        assert (await ada.post(f"{there}/{action}")).status_code in (200, 202)
    for _ in range(3):
        await ada.post("/accounts/none")  # something else happens meanwhile
    found = (await ada.get(f"{there}/status")).json()
    assert found["status"] in ("error", "initializing")
    assert (agent.pushed["sequence"], agent.restarts) == (sequence, restarts), "not at once"
