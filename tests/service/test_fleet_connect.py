"""From a connect to a running gateway, over HTTP, DigitalOcean's API and agents; and what is refused."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from fastapi import FastAPI

from broker.service import fleet_routes
from tests.fleet.local_digitalocean import LocalDigitalOcean
from tests.service.conftest import Issuer
from tests.service.fleet_agents import Agents
from tests.service.fleet_fixtures import (
    BASE,
    PASSWORD,
    Clients,
    ada,
    agents,
    cloud,
    fleet_app,
    fleet_changes,
    fleet_environment,
    fleet_service,
    login,
    until,
    user_for,
)

__all__ = ["ada", "agents", "cloud", "fleet_app", "fleet_changes", "fleet_environment", "user_for"]


async def test_the_answer_is_the_documents(ada: httpx.AsyncClient, cloud: LocalDigitalOcean) -> None:
    cloud.delays(create=60)
    answer = await ada.post("/connect", json=login())
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert made["account_id"].startswith("ib-demo-")
    assert isinstance(made["service_id"], int)
    assert (made["status"], made["environment"]) == ("provisioning", "demo")
    assert made["message"] == "Server provisioning initiated. This process may take a few minutes."
    assert made["billing"]["billed"] is True
    assert made["billing"]["monthly_usd"] == 4.0


async def test_from_connect_to_running(ada: httpx.AsyncClient, agents: Agents) -> None:
    made = (await ada.post("/connect", json=login())).json()
    there = f"/accounts/{made['account_id']}"
    seen = []

    async def look() -> httpx.Response:
        found = await ada.get(f"{there}/status")
        seen.append(found.json()["status"])
        return found

    running = await until(look, "running")
    order = list(dict.fromkeys(seen))
    assert order in (["provisioning", "initializing", "running"], ["initializing", "running"])
    assert running == (await ada.get(there)).json() | {"checked_at": running["checked_at"]}
    pushed = agents.of(made["account_id"]).pushed
    assert (pushed["username"], pushed["password"], pushed["paper"]) == ("ib-user", PASSWORD, True)


async def test_connecting_again_is_the_same_account(
    ada: httpx.AsyncClient, user_for: Clients, cloud: LocalDigitalOcean
) -> None:
    first = (await ada.post("/connect", json=login())).json()
    again = await ada.post("/connect", json=login("IB-User"))
    assert (again.status_code, again.json()["account_id"]) == (200, first["account_id"])
    by_key = [
        await ada.post("/connect", json=login("other"), headers={"Idempotency-Key": '"k-1"'})
        for _ in range(2)
    ]
    assert [a.status_code for a in by_key] == [202, 200]
    assert by_key[0].json()["account_id"] == by_key[1].json()["account_id"]
    reused = await ada.post("/connect", json=login("third"), headers={"Idempotency-Key": "k-1"})
    assert reused.status_code == 409
    assert reused.json()["type"].endswith(":idempotency-key-reused")
    async with user_for("eve") as eve:
        hers = await eve.post("/connect", json=login(), headers={"Idempotency-Key": "k-1"})
        assert hers.status_code == 202
        assert hers.json()["account_id"] != first["account_id"]
    assert cloud.count() == 3


async def test_connects_at_the_same_moment_make_one_droplet(
    ada: httpx.AsyncClient, cloud: LocalDigitalOcean
) -> None:
    answers = await asyncio.gather(*(ada.post("/connect", json=login()) for _ in range(6)))
    assert sorted(a.status_code for a in answers) == [200] * 5 + [202]
    assert len({a.json()["account_id"] for a in answers}) == 1
    assert cloud.count() == 1


async def test_nobody_sees_anothers_account(ada: httpx.AsyncClient, user_for: Clients) -> None:
    made = (await ada.post("/connect", json=login())).json()["account_id"]
    assert (await ada.get(f"/accounts/{made}/status")).status_code == 200, "it is in memory now"
    async with user_for("eve", "user", "trader", "operator") as eve:
        for path in (f"/accounts/{made}", f"/accounts/{made}/status"):
            theirs = await eve.get(path)
            unknown = await eve.get(path.replace(made, "ib-demo-00000000"))
            assert theirs.status_code == unknown.status_code == 404
            assert theirs.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
        assert (await eve.get("/accounts")).json() == {"accounts": [], "next": None}
    for odd in ("ib-demo-%00", "%F0%9F%98%80", "'; drop table", "x" * 60):
        assert (await ada.get(f"/accounts/{odd}/status")).status_code == 404


async def test_a_list_has_pages(ada: httpx.AsyncClient) -> None:
    made = sorted(
        [(await ada.post("/connect", json=login(name))).json()["account_id"] for name in ("a", "b", "c")]
    )
    first = (await ada.get("/accounts?limit=2")).json()
    assert [a["account_id"] for a in first["accounts"]] == made[:2]
    rest = (await ada.get(f"/accounts?limit=2&after={first['next']}")).json()
    assert [a["account_id"] for a in rest["accounts"]] == made[2:]
    assert rest["next"] is None


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        (login(password="hunter2\r"), "credentials.password", "carriage return"),
        (login(password=""), "credentials.password", "empty"),
        (login(password="hunter2" * 50), "credentials.password", "256"),
        (login(name="hunter2 "), "credentials.username", "white space"),
        (login(name="\x00hunter2"), "credentials.username", "NUL"),
        (login(environment="hunter2"), "environment", "'demo', 'live' or 'paper'"),
        ({"credentials": "hunter2", "environment": "demo"}, "credentials", "valid dictionary"),
        (
            {"credentials": {"username": "u", "pass": "hunter2"}, "environment": "demo"},
            "credentials",
            "field",
        ),
        ({"credentials": {"hunter2": "u"}, "environment": "demo"}, "credentials", "doesn't belong"),
        (login() | {"hunter2": 1}, "body", "doesn't belong"),
        ({"credentials": {"username": 7, "password": ["hunter2"]}}, "credentials.password", "string"),
    ],
)
async def test_what_is_wrong_is_named_and_never_repeated(
    ada: httpx.AsyncClient, cloud: LocalDigitalOcean, body: object, field: str, says: str
) -> None:
    answer = await ada.post("/connect", json=body)
    assert answer.status_code == 422
    assert "hunter2" not in answer.text
    [said] = [e["message"] for e in answer.json()["errors"] if e["field"] == field][:1]
    assert says in said
    assert cloud.count() == 0


async def test_a_body_that_is_no_json_is_not_repeated(ada: httpx.AsyncClient) -> None:
    for raw in (b"password=hunter2", b'["hunter2"]', b'"hunter2"'):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
            answer = await ada.post("/connect", content=raw, headers={"content-type": kind})
            assert answer.status_code in (400, 422), (raw, kind)
            assert "hunter2" not in answer.text
    for raw in (b'{"credentials": {"password": "hunter2"', b'"\\ud800hunter2"', b"\xffhunter2", b"[" * 9000):
        answer = await ada.post("/connect", content=raw, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422), raw
        assert "hunter2" not in answer.text


async def test_half_a_character_is_refused(ada: httpx.AsyncClient) -> None:
    raw = json.dumps(login()).replace("ib-user", "\\ud800")
    answer = await ada.post("/connect", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"DIGITAL_OCEAN_REGION": "xyz1"}, "region-unavailable", "'xyz1'"),
        ({"DIGITAL_OCEAN_DEMO_SIZE": "s-9"}, "size-unavailable", "'s-9'"),
        ({"DIGITAL_OCEAN_IMAGE_ID": "ubuntu-99"}, "image-unavailable", "'ubuntu-99'"),
    ],
)
async def test_what_is_missing_is_named_before_a_create(
    fleet_environment: dict[str, str],
    issuer: Issuer,
    cloud: LocalDigitalOcean,
    change: dict[str, str],
    kind: str,
    says: str,
) -> None:
    answer, after = await _connect_with(fleet_environment | change, issuer)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (503, kind)
    assert says in answer.json()["detail"]
    assert after.json()["accounts"] == []
    assert "POST /v2/droplets" not in cloud.requests


async def test_a_droplet_quota_that_is_reached_is_said_before_a_create(
    ada: httpx.AsyncClient, cloud: LocalDigitalOcean
) -> None:
    cloud.note("droplet_limit", 0)
    answer = await ada.post("/connect", json=login())
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (503, "quota-reached")
    assert "retry-after" in answer.headers
    assert (await ada.get("/accounts")).json()["accounts"] == []


async def test_a_connect_is_kept_while_digitalocean_is_away(
    ada: httpx.AsyncClient, cloud: LocalDigitalOcean
) -> None:
    cloud.faults({"on": "* /v2/*", "status": 503, "times": 200})
    answer = await ada.post("/connect", json=login())
    assert (answer.status_code, answer.json()["service_id"]) == (202, None)
    cloud.faults()
    there = f"/accounts/{answer.json()['account_id']}/status"
    await until(lambda: ada.get(there), "digitalocean_away", key="reason")


async def test_a_slow_digitalocean_holds_no_connect_up(
    ada: httpx.AsyncClient, cloud: LocalDigitalOcean, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_routes, "ROOM_WAIT", 0.2)
    monkeypatch.setattr(fleet_routes, "NUMBER_SECONDS", 0.2)
    cloud.faults({"on": "GET /v2/*", "seconds": 6, "times": 50})
    answer = await asyncio.wait_for(ada.post("/connect", json=login()), 12)
    cloud.faults()
    assert (answer.status_code, answer.json()["service_id"]) == (202, None)
    there = f"/accounts/{answer.json()['account_id']}/status"
    await until(lambda: ada.get(there), "enrolling", key="reason")


async def _connect_with(environment: dict[str, str], issuer: Issuer) -> tuple[httpx.Response, httpx.Response]:
    async with fleet_service(environment) as made, _client(made, issuer) as client:
        return await client.post("/connect", json=login()), await client.get("/accounts")


def _client(app: FastAPI, issuer: Issuer) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {issuer.token('user')}"}
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://service" + BASE, headers=headers)
