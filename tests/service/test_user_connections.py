"""A running account is a connection: trading over a user's own gateway, by that user only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from broker.brokers.client_portal.tls import fingerprint
from broker.fleet.account import Account, State, Wanted
from broker.fleet.repository import Conflict
from broker.service import user_connections
from broker.tables import orders
from tests.broker.portal_gateway import ACCOUNT, write_certificate
from tests.service.user_gateways import (
    Gateway,
    Instance,
    client,
    gateway,
    instance,
    now,
    repository,
    running,
    service,
    statements,
    until,
    users_environment,
)

__all__ = ["client", "gateway", "instance", "service", "users_environment"]

Clients = Callable[..., httpx.AsyncClient]


def order(name: str, **changes: Any) -> dict[str, Any]:
    body = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "limit", "limit_price": 150.0}
    return body | {"client_order_id": name} | changes


def at(account: Account, path: str) -> str:
    return f"/connections/{account.id}/{path}"


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition(":")[2]


async def test_a_running_account_trades_over_its_own_gateway(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    portal = gateway()
    account, ada = running(service, portal), client(service)
    assert (await ada.get(at(account, "account"))).json()["id"] == ACCOUNT
    assert (await ada.get(at(account, "positions"))).json() == []
    bought = await ada.post(at(account, "orders"), json=order("in", order_type="market", limit_price=None))
    assert bought.status_code == 201, bought.text
    placed = (await ada.post(at(account, "orders"), json=order("rests"))).json()
    assert [held["symbol"] for held in (await ada.get(at(account, "positions"))).json()] == ["AAPL"]
    assert {o["client_order_id"] for o in (await ada.get(at(account, "orders"))).json()} == {"in", "rests"}
    assert (await ada.get(at(account, "quotes/AAPL"))).json()["source"] in ("ibkr", "ibeam")
    assert (await ada.get(at(account, "clock"))).status_code == 200
    assert (await ada.get(at(account, "health"))).json()["ok"]
    assert "AAPL" in (await ada.get(at(account, "trades.csv"))).text
    assert (await ada.post(at(account, "verification"), json={"symbol": "AAPL"})).json()["passed"]
    assert (await ada.delete(at(account, f"orders/{placed['id']}"))).status_code in (200, 202)

    references = {one["order_ref"] for one in portal.book()}
    assert {"in", "rests"} < references
    token = repository(service).endpoint(now(service, account)).token
    assert {h.get("x-gateway-token") for h in portal.tap.headers} == {token}
    with service.state.engine.connect() as db:
        assert set(db.execute(select(orders.c.account)).scalars()) == {ACCOUNT}
    default = (await ada.get("/connections/default/orders")).json()
    assert default == [], "the service's own connection has nothing to do with it"


async def test_order_events_are_streamed(service: FastAPI, client: Clients, gateway: Gateway) -> None:
    account, ada = running(service, gateway()), client(service)
    await ada.get(at(account, "account"))
    via = service.state.user_connections._open[account.id]
    heard = via.events().follow("", 5.0)
    first = asyncio.ensure_future(anext(heard))
    await until(lambda: via.followed)
    assert not via.resting, "a connection that somebody listens to isn't ended"
    await ada.post(at(account, "orders"), json=order("told"))
    found = await asyncio.wait_for(first, 30)
    assert found is not None
    assert found[1].order.client_order_id == "told"
    await heard.aclose()


async def test_accounts_are_apart(instance: Instance, client: Clients, gateway: Gateway) -> None:
    """The same client order id names an order of each; one's limits leave the other's alone."""
    service = await instance(RISK_ORDERS_PER_MINUTE="1")
    portals = [gateway(), gateway(accounts=["DU7654321"])]
    users = ["ada", "bob"]
    accounts = [running(service, p, user) for p, user in zip(portals, users, strict=True)]
    for account, user in zip(accounts, users, strict=True):
        mine = client(service, user)
        assert (await mine.post(at(account, "orders"), json=order("same"))).status_code == 201
        refused = await mine.post(at(account, "orders"), json=order("second"))
        assert (refused.status_code, refused.json()["limit"]) == (422, "orders_per_minute")
        [shown] = (await mine.get(at(account, "orders"))).json()
        assert shown["client_order_id"] == "same"
    assert [len(p.book(a)) for p, a in zip(portals, [ACCOUNT, "DU7654321"], strict=True)] == [1, 1]


# Tenants


def trading_routes(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of each route of a connection."""
    prefix = "/api/v1/connections/{connection_id}"
    paths = {p: methods for p, methods in app.openapi()["paths"].items() if p.startswith(prefix)}
    found = [(m.upper(), path.removeprefix("/api/v1")) for path, methods in paths.items() for m in methods]
    assert len(found) > 15
    return found


async def test_anothers_account_is_answered_as_one_that_isnt_there(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    """Over every route, in status, body, headers and work; whether it is open here or not, or deleted."""
    portal = gateway()
    theirs = running(service, portal)
    await client(service).get(at(theirs, "account"))
    gone = running(service, portal, "bob")
    repository(service).change(gone, wanted=Wanted.DELETED)
    stopped = running(service, portal, "carl", status=State.STOPPED)
    bob = client(service, "bob", "user", "trader")
    ids = [theirs.id, gone.id, stopped.id, "ib-paper-00000000", "ib-paper-%00", "é", "DEFAULT"]
    for method, route in trading_routes(service):
        answers = set()
        for one in ids:
            path = route.replace("{connection_id}", one)
            with statements(service.state.engine) as asked:
                answer = await bob.request(method, path, json=order("x") if method == "POST" else None)
            own = [s for s in asked if "broker_accounts" in s and " IN (" not in s]  # not the watch's
            shown = httpx.URL("http://x/" + one).path[1:]
            body = answer.text.replace(ascii(shown), "ID").replace(answer.headers["x-request-id"], "REQUEST")
            body = body.replace(ascii(ascii(shown))[1:-1], "ID")
            kept = {n for n in answer.headers if n != "content-length"}
            answers.add((answer.status_code, body, frozenset(kept), len(own)))
        assert len(answers) == 1, f"{method} {route}: {answers}"
        [(status, _, _, work)] = answers
        assert (status, work) == (404, 1) or (status, work) == (403, 0), route
    assert portal.book() == []


async def test_an_operator_looks_and_does_nothing(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    portal = gateway()
    account = running(service, portal, last_used_at=None)
    boss = client(service, "boss", "operator", "trader")
    assert (await boss.get(at(account, "account"))).json()["id"] == ACCOUNT
    for method, route in trading_routes(service):
        path = route.replace("{connection_id}", account.id).replace("{order_id}", "a" * 32)
        if method == "GET":
            continue
        answer = await boss.request(method, path, json=order("x") if method == "POST" else None)
        assert answer.status_code in (403, 422), f"{method} {route}: {answer.text}"
    refused = await boss.post(at(account, "orders"), json=order("x"))
    assert (refused.status_code, kind(refused)) == (403, "forbidden")
    verified = await boss.post(at(account, "verification"), json={})
    assert (verified.status_code, "would place an order" in verified.text) == (403, True)
    assert portal.book() == []
    assert now(service, account).last_used_at is None, "looking isn't using"
    reader = client(service, "ada", "user")
    assert (await reader.get(at(account, "account"))).status_code == 200
    assert (await reader.post(at(account, "orders"), json=order("x"))).status_code == 403


# Not running


@pytest.mark.parametrize(
    ("changes", "said", "doing"),
    [
        ({"status": State.INITIALIZING, "status_reason": "second_factor"}, "your phone", "goes on by itself"),
        ({"status": State.STOPPED, "status_reason": "idle", "wanted": "hibernated"}, "idle", "/start"),
        ({"status": State.ERROR, "status_reason": "session_taken"}, "another login", "mend"),
        ({"wanted": Wanted.STOPPED}, "stopped", "/start"),
    ],
    ids=lambda value: "",
)
async def test_an_account_that_doesnt_run_says_how_it_is_and_what_to_do(
    service: FastAPI, client: Clients, gateway: Gateway, changes: dict[str, Any], said: str, doing: str
) -> None:
    portal = gateway()
    account = running(service, portal, **changes)
    answer = await client(service).get(at(account, "account"))
    found = answer.json()
    assert (answer.status_code, kind(answer)) == (503, "account-not-running")
    assert said in found["detail"]
    assert doing in found["doing"]
    assert found["account_status"] == account.status
    assert found.get("account_reason", "") == account.status_reason
    assert found["since"] == account.status_since.isoformat()
    assert answer.headers["retry-after"]
    health = await client(service).get(at(account, "health"))
    assert (health.status_code, health.json()["ok"], health.json()["state"]) == (200, False, account.status)
    assert portal.tap.seen == []


# One connection, made when it is needed


async def test_requests_at_once_share_one_connection_and_later_ones_ask_no_database(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    portal = gateway()
    account, ada = running(service, portal), client(service)
    answers = await asyncio.gather(*(ada.get(at(account, "account")) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert portal.tap.count("GET", "/iserver/accounts") == 1, "one session was opened"
    with statements(service.state.engine) as asked:
        assert (await ada.get(at(account, "account"))).status_code == 200
    about = [s for s in asked if "broker_accounts" in s and " IN (" not in s]  # not the watch's
    assert about == []


async def test_a_gateway_that_is_away_is_said_and_come_back_to(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    portal = gateway()
    portal.log_out()
    account, ada = running(service, portal), client(service)
    answer = await ada.get(at(account, "account"))
    assert (answer.status_code, kind(answer)) == (503, "not-authenticated")
    portal.log_in()
    via = service.state.user_connections._open[account.id]
    await until(lambda: via._broker._parts.session.link.ok)
    assert (await ada.get(at(account, "account"))).status_code == 200


async def test_nobody_uses_it_so_it_ends_and_a_later_use_opens_it_again(
    service: FastAPI, client: Clients, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, ada = running(service, gateway()), client(service)
    users = service.state.user_connections
    await ada.get(at(account, "account"))
    before = users._open[account.id]
    monkeypatch.setattr(user_connections, "IDLE_SECONDS", 0.2)
    await until(lambda: not users._open and not users._ending)
    assert before._broker.health().state == "disconnected"
    monkeypatch.setattr(user_connections, "IDLE_SECONDS", 240.0)
    assert (await ada.get(at(account, "account"))).status_code == 200


async def test_what_ends_one_leaves_the_look_at_the_others(
    service: FastAPI, client: Clients, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is stopped and idle at once, and another that is idle."""
    portals = [gateway(), gateway(accounts=["DU7654321"])]
    first, second = (running(service, portal) for portal in portals)
    users = service.state.user_connections
    for account in (first, second):
        await client(service).get(at(account, "account"))
    users._watching.cancel()
    repository(service).change(now(service, first), wanted=Wanted.STOPPED)
    monkeypatch.setattr(user_connections, "IDLE_SECONDS", -1.0)
    await users._look()
    assert users._open == {}


@pytest.mark.parametrize("what", ["stop", "credentials", "certificate", "droplet", "delete"])
async def test_what_ends_a_connection_cuts_no_order_off(
    service: FastAPI, client: Clients, gateway: Gateway, what: str
) -> None:
    portal = gateway()
    account, ada, rows = running(service, portal), client(service), repository(service)
    users = service.state.user_connections
    await ada.get(at(account, "account"))
    portal.rule("POST", f"/account/{ACCOUNT}/orders", hold=True)
    placing = asyncio.create_task(ada.post(at(account, "orders"), json=order("under-way")))
    await until(lambda: portal.tap.count("POST", "/orders"))
    changes: dict[str, dict[str, Any]] = {
        "stop": {"wanted": Wanted.STOPPED},
        "credentials": {"credentials_version": 2},
        "certificate": {"certificate_sha256": "f" * 64},
        "droplet": {"do_droplet_id": 4711, "do_ip_address": "127.0.0.2"},
        "delete": {"wanted": Wanted.DELETED},
    }
    rows.change(now(service, account), **changes[what])
    await until(lambda: not users._open)
    if what in ("stop", "delete"):
        expected = {"stop": 503, "delete": 404}[what]
        assert (await ada.get(at(account, "account"))).status_code == expected
    assert users._ending, "it waits for the order"
    portal.release()
    answer = await placing
    assert (answer.status_code, answer.json()["permanent_id"] is not None) == (201, True), answer.text
    assert [one["order_ref"] for one in portal.book()] == ["under-way"]
    await until(lambda: not users._ending)


async def test_a_client_that_goes_away_leaves_an_order_that_the_end_waits_for(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    portal = gateway()
    account, ada = running(service, portal), client(service)
    await ada.get(at(account, "account"))
    via = service.state.user_connections._open[account.id]
    portal.rule("POST", f"/account/{ACCOUNT}/orders", hold=True)
    placing = asyncio.create_task(ada.post(at(account, "orders"), json=order("left")))
    await until(lambda: portal.tap.count("POST", "/orders"))
    placing.cancel()
    await asyncio.gather(placing, return_exceptions=True)
    assert via._running == 0
    assert not via.resting
    repository(service).change(now(service, account), wanted=Wanted.STOPPED)
    await until(lambda: service.state.user_connections._ending)
    portal.release()
    await until(lambda: not service.state.user_connections._ending)
    with service.state.engine.connect() as db:
        [row] = db.execute(select(orders.c.client_order_id, orders.c.permanent_id)).all()
    assert (row.client_order_id, row.permanent_id is not None) == ("left", True)


async def test_so_many_are_open_at_once(
    service: FastAPI, client: Clients, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that nobody misses makes room; one with an order under way doesn't."""
    monkeypatch.setattr(user_connections, "MOST_OPEN", 1)
    portals = [gateway(), gateway(accounts=["DU7654321"])]
    first, second = (running(service, portal) for portal in portals)
    ada, users = client(service), service.state.user_connections
    for account in (first, second, first):
        assert (await ada.get(at(account, "account"))).status_code == 200
        assert list(users._open) == [account.id]
    portals[0].rule("POST", f"/account/{ACCOUNT}/orders", hold=True)
    placing = asyncio.create_task(ada.post(at(first, "orders"), json=order("under-way")))
    await until(lambda: portals[0].tap.count("POST", "/orders"))
    refused = await ada.get(at(second, "account"))
    assert (refused.status_code, "as many connections" in refused.text) == (503, True)
    portals[0].release()
    assert (await placing).status_code == 201
    assert (await ada.get(at(second, "account"))).status_code == 200


async def test_another_certificate_at_its_address_gets_nothing(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    portal = gateway()
    other, _ = write_certificate(portal.folder, "other")
    account = running(service, portal, certificate_sha256=fingerprint(other.read_bytes()))
    answer = await client(service).get(at(account, "account"))
    assert (answer.status_code, kind(answer)) == (503, "certificate-mismatch")
    looked = await client(service, "boss", "operator").get(at(account, "certificate"))
    assert (looked.status_code, kind(looked)) == (422, "unsupported-operation"), "enrolment alone decides"
    assert portal.tap.seen == []


# Paper and live


async def test_an_accounts_environment_must_agree_with_its_login(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    portal = gateway()
    for environment, status in (("live", 503), ("demo", 200), ("paper", 200)):
        account = running(service, portal, environment=environment)
        answer = await client(service).get(at(account, "account"))
        assert answer.status_code == status, answer.text
    live = running(service, portal, environment="live")
    refused = await client(service).post(at(live, "orders"), json=order("x"))
    assert (refused.status_code, "logged in to a paper account" in refused.text) == (503, True)
    assert portal.book() == []


async def test_a_live_account_is_locked_until_that_very_gateway_is_verified(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    portal = gateway(mode="live", accounts=["U1234567"])
    account = running(service, portal, environment="live")
    ada, boss = client(service), client(service, "boss", "operator")
    locked = await ada.post(at(account, "orders"), json=order("first", limit_price=195.0))
    assert (locked.status_code, kind(locked)) == (423, "live-locked")
    verified = (await boss.post(at(account, "verification"), json={"symbol": "AAPL"})).json()
    assert (verified["passed"], verified["mode"]) == (True, "live"), verified
    assert portal.book("U1234567") == [], "nothing was sent"
    placed = await ada.post(at(account, "orders"), json=order("first", limit_price=195.0))
    assert placed.status_code == 201, placed.text
    large = await ada.post(at(account, "orders"), json=order("large", qty=500, limit_price=195.0))
    assert large.json()["limit"] == "max_order_value", "live's limits hold"
    # The same address and login on a droplet that was made anew is another gateway.
    again = running(service, portal, environment="live")
    assert now(service, again).certificate_sha256 == now(service, account).certificate_sha256
    name = service.state.user_connections._open[account.id]._settings.ibeam_certificate
    assert name[:16] in verified["gateway"]


# Use, and the kill switch


async def test_a_use_is_written_down_and_ends_what_a_pass_was_about_to_do(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    account = running(service, gateway(), last_used_at=None)
    rows = repository(service)
    seen_by_a_pass = now(service, account)
    ada = client(service)
    await ada.get(at(account, "account"))
    used = now(service, account)
    assert used.last_used_at is not None
    with pytest.raises(Conflict):
        rows.change(seen_by_a_pass, status=State.STOPPED, status_reason="idle")
    await ada.get(at(account, "account"))
    assert now(service, account).version == used.version, "one write in a minute"


async def test_the_kill_switch_cancels_over_all_accounts(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    portals = [gateway(), gateway(accounts=["DU7654321"]), gateway(accounts=["DU1111111"])]
    first, second, away = (
        running(service, portal, user) for portal, user in zip(portals, ("ada", "bob", "carl"), strict=True)
    )
    for account, user in ((first, "ada"), (second, "bob")):
        placed = await client(service, user).post(at(account, "orders"), json=order("rests"))
        assert placed.status_code == 201, placed.text
    portals[2].log_out()
    stopped = running(service, portals[2], "dora", status=State.STOPPED, wanted=Wanted.STOPPED)
    body = {"reason": "odd fills", "cancel_orders": True}
    boss = client(service, "boss", "operator")
    found = (await boss.post("/halt", json=body)).json()
    assert {first.id, second.id, "default"} == set(found["cancelled"])
    assert {away.id, stopped.id} == set(found["not_cancelled"])
    assert "go on working" in found["not_cancelled"][stopped.id]
    for portal, name in zip(portals, [ACCOUNT, "DU7654321"], strict=False):
        assert [one["status"] for one in portal.book(name)] == ["Cancelled"]
    halted = await client(service).post(at(first, "orders"), json=order("later"))
    assert (halted.status_code, kind(halted)) == (423, "halted")


async def test_of_a_login_with_several_accounts_its_user_names_the_one_to_trade(
    service: FastAPI, client: Clients, gateway: Gateway
) -> None:
    portal = gateway(accounts=["DU1111111", "DU2222222"])
    account, ada = running(service, portal), client(service)
    ambiguous = await ada.get(at(account, "account"))
    assert ambiguous.status_code == 503
    assert "ib-account must name one of them (DU1111111, DU2222222)" in ambiguous.text
    assert "IBEAM_ACCOUNT_ID" not in ambiguous.text
    chosen = await ada.put(
        f"/brokers/interactivebrokers/accounts/{account.id}/ib-account", json={"ib_account": "DU2222222"}
    )
    assert chosen.status_code == 200
    deadline = asyncio.get_running_loop().time() + 60
    while (answer := await ada.get(at(account, "account"))).status_code != 200:
        assert asyncio.get_running_loop().time() < deadline, answer.text
        await asyncio.sleep(0.1)
    assert answer.json()["id"] == "DU2222222"
