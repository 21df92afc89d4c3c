"""The fleet's other callers: the scheduler, operators, and several instances beside each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.fleet.local_digitalocean import LocalDigitalOcean
from tests.service.conftest import Issuer
from tests.service.fleet_agents import Agents
from tests.service.fleet_fixtures import (
    PASSWORD,
    Clients,
    ada,
    agents,
    cloud,
    fleet_app,
    fleet_changes,
    fleet_environment,
    fleet_service,
    happens,
    login,
    until,
    user_for,
)

__all__ = ["ada", "agents", "cloud", "fleet_app", "fleet_changes", "fleet_environment", "user_for"]

Call = Callable[..., Any]
EMAIL = "scheduler@p.iam.gserviceaccount.com"


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition(":")[2]


@pytest.fixture
async def anyone(fleet_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token of its own."""
    transport = httpx.ASGITransport(app=fleet_app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service/api/v1") as client:
        yield client


def bearer(issuer: Issuer, **changes: Any) -> dict[str, str]:
    """A token as Google makes them for Cloud Scheduler, but for the changes."""
    claims = {"aud": "https://service.example", "sub": "1078", "email": EMAIL, "email_verified": True}
    return {"authorization": f"Bearer {issuer.token(**claims | {'roles': None} | changes)}"}


async def test_the_scheduler_has_a_pass_run(
    anyone: httpx.AsyncClient, ada: httpx.AsyncClient, issuer: Issuer
) -> None:
    await ada.post("/connect", json=login())
    answer = await anyone.post("/fleet/reconcile", headers=bearer(issuer))
    assert answer.status_code == 200, answer.text
    done = answer.json()
    assert (done["ran"], done["accounts"], done["droplets"], done["problem"]) == (True, 1, 1, "")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"aud": "https://another.example"}, 401),
        ({"aud": "ibkr-api"}, 401),
        ({"iss": "https://accounts.google.com.evil.example"}, 401),
        ({"exp": 1}, 401),
        ({"key_id": "unpublished"}, 401),
        ({"email": "another@p.iam.gserviceaccount.com"}, 403),
        ({"email": None}, 403),
        ({"email_verified": False}, 403),
        ({"email_verified": "true"}, 403),
        ({"email_verified": None}, 403),
    ],
)
async def test_nobody_elses_token_has_one_run(
    anyone: httpx.AsyncClient, issuer: Issuer, changes: dict[str, Any], status: int
) -> None:
    issuer.keys["unpublished"] = Issuer().keys.setdefault("x", _key())
    headers = bearer(issuer, **changes)
    del issuer.keys["unpublished"]
    assert (await anyone.post("/fleet/reconcile", headers=headers)).status_code == status


def _key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


async def test_users_tokens_arent_the_schedulers_nor_the_other_way_round(
    anyone: httpx.AsyncClient, issuer: Issuer
) -> None:
    assert (await anyone.post("/fleet/reconcile")).status_code == 401
    operator = {"authorization": f"Bearer {issuer.token('operator', 'trader')}"}
    assert (await anyone.post("/fleet/reconcile", headers=operator)).status_code == 401
    for path in ("/fleet", "/fleet/accounts", "/brokers/interactivebrokers/accounts"):
        assert (await anyone.get(path, headers=bearer(issuer))).status_code == 401


@pytest.mark.parametrize("fleet_changes", [{"SCHEDULER_AUDIENCE": "", "SCHEDULER_EMAIL": ""}])
async def test_without_a_scheduler_nobody_is_it(anyone: httpx.AsyncClient, issuer: Issuer) -> None:
    answer = await anyone.post("/fleet/reconcile", headers=bearer(issuer))
    assert (answer.status_code, kind(answer)) == (404, "scheduler-off")


async def test_an_operator_sees_all_accounts_without_secrets_and_nobody_else_does(
    anyone: httpx.AsyncClient, user_for: Clients, issuer: Issuer
) -> None:
    ids = []
    for user in ("ada", "eve"):
        async with user_for(user) as client:
            ids.append((await client.post("/connect", json=login())).json()["account_id"])
    operator = {"authorization": f"Bearer {issuer.token('operator', sub='olga')}"}
    first = (await anyone.get("/fleet/accounts?limit=1", headers=operator)).json()
    rest = await anyone.get(f"/fleet/accounts?after={first['next']}", headers=operator)
    found = first["accounts"] + rest.json()["accounts"]
    assert {a["account_id"]: a["user_id"] for a in found} == dict(zip(ids, ("ada", "eve"), strict=True))
    assert PASSWORD not in rest.text
    assert "ib-user" not in rest.text
    assert (await anyone.get("/fleet/accounts?status=error", headers=operator)).json()["accounts"] == []
    assert (await anyone.get("/fleet/accounts?status=odd", headers=operator)).status_code == 422
    for asked, users in (
        ("search=EV", ["eve"]),
        ("search=a%00da&environment=demo", ["ada"]),
        ("search=%ed%a0%80&environment=live", []),
        ("region=fra1", []),
        ("reason=no_such", []),
    ):
        answer = await anyone.get(f"/fleet/accounts?{asked}", headers=operator)
        assert [a["user_id"] for a in answer.json()["accounts"]] == users, asked
    for roles in (("user",), ("trader",)):
        headers = {"authorization": f"Bearer {issuer.token(*roles)}"}
        for path in ("/fleet", "/fleet/accounts"):
            assert (await anyone.get(path, headers=headers)).status_code == 403


async def test_an_operator_sees_passes_counts_and_quarantine(
    anyone: httpx.AsyncClient, ada: httpx.AsyncClient, cloud: LocalDigitalOcean, issuer: Issuer
) -> None:
    await ada.post("/connect", json=login())
    request = {"names": ["odd"], "region": "nyc1", "size": "s-1vcpu-1gb", "image": "ubuntu-24-04-x64"}
    tags = ["stack:test", "manager:service", "account:ib-demo-deadbeef"]
    cloud.run(cloud.account.create_droplet({**request, "tags": tags}))
    assert (await anyone.post("/fleet/reconcile", headers=bearer(issuer))).json()["quarantined"] == 1
    operator = {"authorization": f"Bearer {issuer.token('operator')}"}
    found = (await anyone.get("/fleet", headers=operator)).json()
    assert found["runs_passes"] is True
    assert found["last_pass"]["quarantined"] == 1
    assert [(q["name"], q["account_id"]) for q in found["quarantine"]] == [("odd", "ib-demo-deadbeef")]
    assert sum(c["accounts"] for c in found["accounts"]) == 1
    assert 4000 < found["digitalocean_calls_left"] < 5000
    assert cloud.count() == 2, "what nobody knows isn't touched"


async def test_an_instance_without_the_lease_gets_its_requests_worked_on_at_once(
    fleet_app: FastAPI, fleet_environment: dict[str, str], user_for: Clients, agents: Agents
) -> None:
    holder = fleet_app.state.fleet
    async with fleet_service(fleet_environment) as second, user_for("ada", app=second) as client:
        other = second.state.fleet
        await happens(lambda: holder.last_pass is not None and other.lease.held() is False)
        await happens(other._parts.wakes.listening.is_set)
        made = (await client.post("/connect", json=login())).json()
        assert made["service_id"] is not None, "the holder's next pass by itself is a minute away"
        there = f"/accounts/{made['account_id']}"
        await until(lambda: client.get(f"{there}/status"), "running")
        async with user_for("ada") as at_holder:
            assert (await at_holder.get(f"{there}/status")).json()["status"] == "running"
            await client.post(f"{there}/stop")
            await until(lambda: at_holder.get(f"{there}/status"), "stopped")
        assert other.lease.held() is False
        await holder.stop()
        await happens(other.lease.held)
        assert (await client.post("/connect", json=login("second"))).json()["service_id"] is not None


@pytest.mark.parametrize("fleet_changes", [{"FLEET_ACCOUNTS_PER_USER": "1", "FLEET_CONNECTS_PER_HOUR": "2"}])
async def test_limits_are_said_and_hold_over_a_restart(
    ada: httpx.AsyncClient, fleet_environment: dict[str, str], user_for: Clients
) -> None:
    made = (await ada.post("/connect", json=login("a"))).json()["account_id"]
    assert (await ada.post("/connect", json=login("a"))).status_code == 200, "repeating it is no new one"
    many = await ada.post("/connect", json=login("b"))
    assert (many.status_code, kind(many)) == (409, "too-many-accounts")
    await ada.delete(f"/accounts/{made}")
    made = (await ada.post("/connect", json=login("b"))).json()["account_id"]
    restarts = [await ada.post(f"/accounts/{made}/start"), await ada.delete(f"/accounts/{made}")]
    assert [a.status_code for a in restarts] == [200, 202]
    often = await ada.post("/connect", json=login("c"))
    assert (often.status_code, kind(often)) == (429, "too-often")
    assert 3000 < int(often.headers["retry-after"]) <= 3600
    async with fleet_service(fleet_environment) as again, user_for("ada", app=again) as client:
        assert (await client.post("/connect", json=login("c"))).status_code == 429
    async with user_for("eve") as eve:
        made = (await eve.post("/connect", json=login("d"))).json()["account_id"]
        tried = [
            await eve.put(f"/accounts/{made}/credentials", json=login("d")["credentials"]) for _ in "123"
        ]
        assert [a.status_code for a in tried] == [202, 202, 429]
