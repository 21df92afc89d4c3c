"""What a user does with an account that is connected: stop, start, hibernate, credentials, policy, delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker.service.fleet import FleetAway
from tests.fleet.local_digitalocean import LocalDigitalOcean
from tests.service.fleet_agents import Agents
from tests.service.fleet_fixtures import (
    Clients,
    ada,
    agents,
    cloud,
    fleet_app,
    fleet_changes,
    fleet_environment,
    happens,
    login,
    until,
    user_for,
)

__all__ = ["ada", "agents", "cloud", "fleet_app", "fleet_changes", "fleet_environment", "user_for"]

Look = Callable[[], Awaitable[httpx.Response]]


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition(":")[2]


async def connected(client: httpx.AsyncClient, **asked: Any) -> tuple[str, Look]:
    """The path of a running account, and its status."""
    made = (await client.post("/connect", json=login(**asked))).json()
    there = f"/accounts/{made['account_id']}"
    await until(lambda: client.get(f"{there}/status"), "running")
    return there, lambda: client.get(f"{there}/status")


async def test_a_life(ada: httpx.AsyncClient, agents: Agents, cloud: LocalDigitalOcean) -> None:
    there, status = await connected(ada)
    account = there.rpartition("/")[2]

    answer = await ada.post(f"{there}/stop")
    assert (answer.status_code, answer.json()["wanted"]) == (202, "stopped")
    assert answer.json()["message"] == "The server is being stopped."
    stopped = await until(status, "powered_off", key="reason")
    assert (stopped["status"], stopped["billing"]["billed"]) == ("stopped", True)
    assert "switched off too" in stopped["billing"]["message"]
    assert (await ada.post(f"{there}/stop")).status_code == 200
    no_log = await ada.get(f"{there}/logs")
    assert (no_log.status_code, kind(no_log), no_log.json()["account_status"]) == (
        409,
        "no-gateway",
        "stopped",
    )

    assert (await ada.post(f"{there}/start")).status_code == 202
    await until(status, "running")
    assert (await ada.post(f"{there}/start")).status_code == 200
    assert cloud.count() == 1

    agents.of(account).lines = [f"line {n}" for n in range(90)]
    assert (await ada.get(f"{there}/logs?lines=2")).json() == {"lines": ["line 88", "line 89"]}

    assert (await ada.post(f"{there}/restart")).status_code == 202
    await happens(lambda: agents.of(account).restarts == 1)
    await until(status, "running")

    assert (await ada.post(f"{there}/hibernate")).status_code == 202
    resting = await until(status, "hibernated", key="reason", seconds=200)
    assert (resting["service_id"], resting["billing"]["billed"]) == (None, False)
    assert cloud.count() == 0

    assert (await ada.delete(there)).status_code == 202
    gone = await until(status, "deleted")
    again = await ada.delete(there)
    assert (again.status_code, again.json()["status"]) == (200, "deleted")
    assert (await ada.get("/accounts")).json()["accounts"] == []
    for path in ("start", "stop", "hibernate", "restart"):
        refused = await ada.post(f"{there}/{path}")
        assert (refused.status_code, kind(refused)) == (409, "account-deleted")
    assert (await ada.put(f"{there}/credentials", json=login()["credentials"])).status_code == 409
    assert gone["billing"]["message"] == "There is no server and nothing is billed."


async def test_credentials_are_changed_on_the_same_server(
    ada: httpx.AsyncClient, agents: Agents, cloud: LocalDigitalOcean
) -> None:
    there, status = await connected(ada)
    account = there.rpartition("/")[2]
    number = (await status()).json()["service_id"]
    changed = await ada.put(f"{there}/credentials", json={"username": "ib-user", "password": "another/&'"})
    assert changed.status_code == 202, changed.text
    await happens(lambda: agents.of(account).pushed["password"] == "another/&'")
    assert (await until(status, "running"))["service_id"] == number
    wrong = await ada.put(f"{there}/credentials", json={"username": "ib-user", "password": "hunter2\x00"})
    assert wrong.status_code == 422
    assert "hunter2" not in wrong.text
    await ada.post("/connect", json=login("second"))
    taken = await ada.put(f"{there}/credentials", json={"username": "Second", "password": "x"})
    assert (taken.status_code, kind(taken)) == (409, "already-connected")


async def test_a_history_tells_who_did_what_in_pages(ada: httpx.AsyncClient, agents: Agents) -> None:
    there, _status = await connected(ada)
    await ada.put(f"{there}/policy", json={"policy": "idle:30"})
    whole = (await ada.get(f"{there}/history?limit=200")).json()
    kinds = [e["kind"] for e in whole["events"]]
    assert kinds[0] == "policy"
    assert kinds[-1] == "connect"
    assert {"adopt", "enrolled", "status"} <= set(kinds)
    assert (whole["events"][0]["by"], whole["next"]) == ("ada", None)
    pages, before = [], ""
    while True:
        page = (await ada.get(f"{there}/history?limit=2{before}")).json()
        pages += page["events"]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert [e["id"] for e in pages] == [e["id"] for e in whole["events"]]


async def test_which_ib_account_is_traded_is_chosen_by_its_user(
    ada: httpx.AsyncClient, agents: Agents
) -> None:
    there, _status = await connected(ada)
    chosen = await ada.put(f"{there}/ib-account", json={"ib_account": "DU1234567"})
    assert (chosen.status_code, chosen.json()["ib_account"]) == (200, "DU1234567")
    assert (await ada.get(f"{there}/history")).json()["events"][0]["kind"] == "ib_account"
    assert (await ada.put(f"{there}/ib-account", json={"ib_account": ""})).json()["ib_account"] == ""
    for wrong in ("du1234567", "DU1234567 ", "U", "x" * 400):
        refused = await ada.put(f"{there}/ib-account", json={"ib_account": wrong})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "ib_account")


async def test_a_live_account_rests_only_for_who_knows_what_that_means(ada: httpx.AsyncClient) -> None:
    made = (await ada.post("/connect", json=login(environment="live"))).json()["account_id"]
    path = f"/accounts/{made}/policy"
    refused = await ada.put(path, json={"policy": "hours:XNYS"})
    assert refused.status_code == 422
    assert "unattended_live" in refused.json()["errors"][0]["message"]
    assert refused.json()["errors"][0]["field"] == "policy"
    knowing = await ada.put(path, json={"policy": "hours:XNYS", "unattended_live": True})
    assert knowing.status_code == 200
    assert (knowing.json()["policy"], knowing.json()["unattended_live"]) == ("hours:XNYS", True)
    back = await ada.put(path, json={"policy": "always"})
    assert (back.status_code, back.json()["unattended_live"]) == (200, False)


@pytest.mark.parametrize("policy", ["never", "idle:1", "hours:NOWHERE", "idle:99999999", ""])
async def test_a_policy_that_isnt_one_is_refused(ada: httpx.AsyncClient, policy: str) -> None:
    made = (await ada.post("/connect", json=login())).json()["account_id"]
    answer = await ada.put(f"/accounts/{made}/policy", json={"policy": policy})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "policy")


async def test_nobody_touches_anothers_account(
    ada: httpx.AsyncClient, user_for: Clients, fleet_app: FastAPI
) -> None:
    made = (await ada.post("/connect", json=login())).json()["account_id"]
    there = f"/accounts/{made}"
    before = fleet_app.state.fleet.repository.get(made)
    async with user_for("eve", "user", "trader", "operator") as eve:
        answers = [await eve.post(f"{there}/{what}") for what in ("start", "stop", "restart", "hibernate")]
        answers += [
            await eve.delete(there),
            await eve.put(f"{there}/credentials", json=login()["credentials"]),
            await eve.put(f"{there}/policy", json={"policy": "idle:30"}),
            await eve.get(f"{there}/history"),
            await eve.get(f"{there}/logs"),
        ]
    for answer in answers:
        assert (answer.status_code, kind(answer)) == (404, "unknown-account")
    after = fleet_app.state.fleet.repository.get(made)
    assert (after.wanted, after.policy, after.credentials_version, after.restart_wanted_at) == (
        before.wanted, before.policy, before.credentials_version, before.restart_wanted_at,
    )  # fmt: skip


async def test_a_status_from_memory_costs_no_thread_and_no_statement_and_is_its_owners_alone(
    ada: httpx.AsyncClient, user_for: Clients, fleet_app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (await ada.post("/connect", json=login())).json()["account_id"]
    path = f"/accounts/{made}/status"
    fleet = fleet_app.state.fleet
    fleet.runner.stop()  # its passes would make what is known old
    await ada.get(path)
    monkeypatch.setattr(fleet.statuses, "_oldest", 600.0)
    first = await ada.get(path)
    await until(lambda: ada.get(path), first.json()["since"], key="since")

    async def nothing(*_asked: object) -> None:
        raise FleetAway("it isn't in memory", datetime.now(UTC))

    monkeypatch.setattr(fleet, "call", nothing)
    fleet.statuses.keep(made, "ada", first.content, fleet.statuses.changes)
    told = await ada.get(path)
    assert (told.status_code, told.content) == (200, first.content)
    async with user_for("eve") as eve, user_for("ada", "nobody") as nobody:
        assert (await eve.get(path)).status_code == 503, "it has to be looked up, and is nobody's then"
        assert (await nobody.get(path)).status_code == 403
    monkeypatch.undo()
    await ada.put(f"/accounts/{made}/policy", json={"policy": "idle:30"})
    assert (await ada.get(path)).json()["policy"] == "idle:30"
