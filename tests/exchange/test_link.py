"""The exchange over its sockets: logins, sessions, the order of events, faults."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from localcloud.exchange.link import Link
from localcloud.exchange.models import Refused
from localcloud.exchange.users import LoginFailed

from .conftest import AAPL, Running


async def logged_in(exchange: Running) -> tuple[Link, list[dict[str, Any]]]:
    """A link with a session, and the list that its events arrive in."""
    link = await Link.connect(exchange.address)
    events: list[dict[str, Any]] = []
    link.on_event(events.append)
    assert await link.login("demo", "secret") == [exchange.account]
    return link, events


async def until(events: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The first event of that name, as soon as it is there."""
    while True:
        for event in events:
            if event["event"] == name:
                return event
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("name", "password", "mode", "reason"),
    [
        ("demo", "wrong", "paper", "credentials"),
        ("nobody", "secret", "paper", "credentials"),
        ("demo", "secret", "live", "mode"),
    ],
)
async def test_a_wrong_login_is_refused_with_its_reason(
    exchange: Running, name: str, password: str, mode: str, reason: str
) -> None:
    link = await Link.connect(exchange.address)
    with pytest.raises(LoginFailed) as failure:
        await link.login(name, password, mode=mode)
    assert failure.value.reason == reason
    with pytest.raises(Refused, match="log in first"):
        await link.call("positions", account=exchange.account)


async def test_whatever_a_password_holds_it_arrives(exchange: Running) -> None:
    password = "a\\b\"c'd $e #f !g=h:i\u00e9\u4e2d\t"
    await exchange.admin.add_user("odd", password)
    link = await Link.connect(exchange.address)
    assert len(await link.login("odd", password)) == 1


async def test_a_second_login_takes_the_session_of_the_first(exchange: Running) -> None:
    first, events = await logged_in(exchange)
    second = await Link.connect(exchange.address)
    with pytest.raises(LoginFailed) as failure:
        await second.login("demo", "secret", compete=False)
    assert failure.value.reason == "competing"
    await second.login("demo", "secret")
    await until(events, "session_taken")
    with pytest.raises(Refused, match="log in first"):
        await first.call("positions", account=exchange.account)


async def test_a_second_factor_holds_the_login_until_a_person_approves(exchange: Running) -> None:
    await exchange.admin.add_user("careful", "secret", second_factor=True)
    link = await Link.connect(exchange.address)
    with pytest.raises(LoginFailed) as failure:
        await link.login("careful", "secret", wait=0)
    assert failure.value.reason == "second_factor"
    login = asyncio.create_task(link.login("careful", "secret"))
    await waiting_for_second_factor(exchange, True)
    await exchange.admin.approve_second_factor("careful")
    assert len(await login) == 1


async def test_a_login_whose_link_is_gone_uses_up_no_approval(exchange: Running) -> None:
    await exchange.admin.add_user("careful", "secret", second_factor=True)
    gone = await Link.connect(exchange.address)
    login = asyncio.create_task(gone.login("careful", "secret"))
    await waiting_for_second_factor(exchange, True)
    await gone.close()
    with pytest.raises(ConnectionError):
        await login
    await waiting_for_second_factor(exchange, False)
    await exchange.admin.approve_second_factor("careful")
    link = await Link.connect(exchange.address)
    assert len(await link.login("careful", "secret", wait=0)) == 1


async def waiting_for_second_factor(exchange: Running, wanted: bool) -> None:
    """Until somebody (or nobody) waits for a second factor."""
    while any(user["waiting_for_second_factor"] for user in await exchange.admin.users()) != wanted:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_the_answer_to_an_order_comes_before_its_events(exchange: Running) -> None:
    link, events = await logged_in(exchange)
    answer = await link.call(
        "place_order", account=exchange.account, conid=AAPL, side="BUY", quantity=10, order_type="MKT"
    )
    assert answer["order"]["status"] == "PreSubmitted"
    await until(events, "account_value")
    names = [event["event"] for event in events]
    assert names == [
        "order_status",
        "order_routed",
        "order_status",
        "execution",
        "order_status",
        "commission",
        "position",
        "account_value",
    ]
    assert [e["order"]["status"] for e in events if e["event"] == "order_status"] == [
        "PreSubmitted",
        "Submitted",
        "Filled",
    ]


async def test_another_users_account_is_out_of_reach(exchange: Running) -> None:
    other = await exchange.admin.add_user("other", "secret")
    link, _ = await logged_in(exchange)
    for method in ("positions", "account_summary", "open_orders"):
        with pytest.raises(Refused, match="not an account of this user"):
            await link.call(method, account=other["accounts"][0])


async def test_quotes_are_streamed_once_subscribed(exchange: Running) -> None:
    link, events = await logged_in(exchange)
    answer = await link.call("subscribe", conid=AAPL)
    assert answer["quote"]["bid"] < answer["quote"]["ask"]
    assert (await until(events, "quote"))["quote"]["conid"] == AAPL


async def test_a_link_that_is_down_breaks_and_takes_no_login_until_it_is_up(exchange: Running) -> None:
    link, events = await logged_in(exchange)
    await exchange.admin.set_fault("link_down", True)
    await until(events, "link_lost")
    with pytest.raises(ConnectionError):
        await link.call("positions", account=exchange.account)
    during = await Link.connect(exchange.address)
    with pytest.raises(ConnectionError):
        await during.login("demo", "secret")
    await exchange.admin.set_fault("link_down", False)
    after, _ = await logged_in(exchange)
    assert (await after.call("positions", account=exchange.account))["positions"] == []


async def test_a_lost_answer_leaves_the_order_at_the_exchange(exchange: Running) -> None:
    link, _ = await logged_in(exchange)
    await exchange.admin.set_fault("lose_answers", 1)
    with pytest.raises(ConnectionError):
        await link.call(
            "place_order", account=exchange.account, conid=AAPL, side="BUY", quantity=1, order_type="MKT"
        )
    assert len(await exchange.admin.orders(exchange.account)) == 1


async def test_an_unknown_fault_or_value_is_refused(exchange: Running) -> None:
    with pytest.raises(Refused, match="not one of"):
        await exchange.admin.set_fault("gremlins", True)
    with pytest.raises(Refused, match="takes a bool"):
        await exchange.admin.set_fault("link_down", "yes")
