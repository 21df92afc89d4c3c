"""Several instances of the service over one gateway at once, without a lease."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from broker.brokers.client_portal import stream
from broker.fleet.account import Account
from broker.models import EventKind, OrderEvent, Status
from broker.tables import orders
from tests.broker.portal_gateway import ACCOUNT, Portal
from tests.service.test_user_connections import at, order
from tests.service.user_gateways import (
    Gateway,
    Instance,
    client,
    gateway,
    instance,
    running,
    until,
    users_environment,
)

__all__ = ["client", "gateway", "instance", "users_environment"]


class Pair:
    """One account, and its user's clients at two instances."""

    def __init__(self, portal: Portal, account: Account, apps: list[FastAPI], clients: Any) -> None:
        self.portal, self.account, self.apps, self.clients = portal, account, apps, clients

    async def post(self, which: int, body: dict[str, Any]) -> httpx.Response:
        found = await self.clients[which].post(at(self.account, "orders"), json=body)
        assert isinstance(found, httpx.Response)
        return found

    def via(self, which: int) -> Any:
        return self.apps[which].state.user_connections._open[self.account.id]

    def journal(self) -> list[Any]:
        with self.apps[0].state.engine.connect() as db:
            return list(db.execute(select(orders.c.client_order_id, orders.c.status, orders.c.placed_by)))


@pytest.fixture
async def pair(
    instance: Instance, client: Callable[..., httpx.AsyncClient], gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> Pair:  # fmt: skip
    """Both instances are connected, and look at the lists often."""
    monkeypatch.setattr(stream, "LIVE_POLL", 0.2)
    portal, apps = gateway(), [await instance(RISK_ORDERS_PER_MINUTE="12") for _ in range(2)]
    account = running(apps[0], portal)
    made = Pair(portal, account, apps, [client(app) for app in apps])
    for number, one in enumerate(made.clients):
        assert (await one.get(at(account, "account"))).status_code == 200
        watcher = made.via(number)._broker._parts.watcher
        await until(lambda watcher=watcher: watcher.caught_up.is_set() and watcher.live)
    return made


async def test_each_order_is_placed_once_and_limits_count_both(pair: Pair) -> None:
    """The same ids at both at one moment, and more orders than a minute may have."""
    names = [f"o-{n % 10}" for n in range(20)] + [f"more-{n}" for n in range(6)]
    asked = [order(name, limit_price=198.0) for name in names]  # so near that IBKR asks nothing
    answers = await asyncio.gather(*(pair.post(n // 10 % 2, body) for n, body in enumerate(asked)))
    placed = [one["order_ref"] for one in pair.portal.book()]
    assert Counter(placed) == Counter(set(placed)), "nothing twice"
    assert len(placed) == 12, "one limit for both"
    refused = [answer for answer in answers if answer.status_code != 201]
    assert {answer.json().get("limit") for answer in refused} == {"orders_per_minute"}
    ids = {a.json()["client_order_id"]: a.json()["id"] for a in answers if a.status_code == 201}
    assert set(ids) == set(placed)
    assert len(pair.journal()) == 12


async def test_what_one_places_both_tell_once(pair: Pair) -> None:
    heard: list[list[OrderEvent]] = [[], []]
    logs = [pair.via(number).events() for number in range(2)]

    async def listen(number: int) -> None:
        async for item in logs[number].follow("", 30.0):
            if item is not None:
                heard[number].append(item[1])

    listening = [asyncio.create_task(listen(number)) for number in range(2)]
    await until(lambda: all(pair.via(number).followed for number in range(2)))
    market = order("filled", order_type="market", limit_price=None)
    assert (await pair.post(0, market)).status_code == 201
    assert (await pair.post(1, order("rests"))).status_code == 201

    def news(number: int) -> Counter[tuple[str, str]]:
        found = [(e.order.client_order_id, e.order.status) for e in heard[number] if e.order]
        return Counter(found + [(e.fill.client_order_id, "fill") for e in heard[number] if e.fill])

    wanted = {("filled", Status.FILLED), ("filled", "fill"), ("rests", Status.SUBMITTED)}
    await until(lambda: all(wanted <= set(news(number)) for number in range(2)))
    await asyncio.sleep(1)  # some looks later nothing is told again
    for number in range(2):
        assert [news(number)["filled", what] for what in (Status.FILLED, "fill")] == [1, 1]
        assert not [e for e in heard[number] if e.kind in (EventKind.GAP, EventKind.UNEXPLAINED_POSITION)]
    for task in listening:
        task.cancel()


@pytest.mark.parametrize("bracket", [False, True])
async def test_an_order_under_way_at_one_is_left_alone_by_the_other(pair: Pair, bracket: bool) -> None:
    """Another process's conversation isn't lost because this one doesn't have it."""
    legs = {"take_profit_price": 230.0, "stop_loss_price": 120.0} if bracket else {}
    pair.portal.rule("POST", f"/account/{ACCOUNT}/orders", hold=True)
    placing = asyncio.create_task(pair.post(0, order("under-way", **legs)))
    await until(lambda: pair.portal.tap.count("POST", f"/account/{ACCOUNT}/orders"))
    book = pair.via(1)._broker._parts.book
    for _ in range(3):
        await asyncio.to_thread(book.poll)
        await asyncio.to_thread(book.orders.get)
    assert {row.status for row in pair.journal()} == {Status.SENT}
    pair.portal.release()
    assert (await placing).status_code == 201
    await asyncio.to_thread(book.poll)
    rows = pair.journal()
    assert len(rows) == (3 if bracket else 1), "nothing was taken for somebody else's order"
    assert {row.placed_by for row in rows} == {"ada"}
    await until(lambda: Status.SENT not in {row.status for row in pair.journal()})


async def test_of_two_conversations_the_gateway_keeps_one_and_the_other_is_refused(pair: Pair) -> None:
    """IBKR asks about market orders, and forgets its question when another order comes."""
    names = [f"m-{n}" for n in range(6)]
    bodies = [order(name, order_type="market", limit_price=None) for name in names]
    answers = await asyncio.gather(*(pair.post(n % 2, body) for n, body in enumerate(bodies)))
    placed = {one["order_ref"] for one in pair.portal.book()}
    for name, answer in zip(names, answers, strict=True):
        assert (answer.status_code == 201) == (name in placed), answer.text
        if name not in placed:
            assert (answer.status_code, answer.json()["code"]) == (422, "reply-id-not-found")
