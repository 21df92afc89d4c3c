"""The agent keeps IBKR's limits and the gateway's one conversation for all who share a gateway.

The paper gateway behind it keeps IBKR's limits, and answers 429 to whoever breaks one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.machines.droplet import Droplet
from tests.machines.test_agent import droplet, enrolled, running

__all__ = ["droplet", "enrolled", "running"]


@pytest.fixture
async def account(running: Droplet) -> str:
    """The IBKR account that the gateway trades, asked for as it wants before orders."""
    [found] = (await running.ask("GET", "/v1/api/iserver/accounts")).json()["accounts"]
    return str(found)


def market_order(reference: str) -> dict[str, Any]:
    """One about which IBKR asks."""
    body = {"conid": 265598, "side": "BUY", "orderType": "MKT", "quantity": 1, "tif": "DAY"}
    return {"orders": [body | {"cOID": reference}]}


async def placed(gateway: Droplet, account: str, reference: str) -> httpx.Response:
    """An order with all that is asked about it, as an instance of the service places it."""
    path = f"/v1/api/iserver/account/{account}/orders"
    answer = await gateway.ask("POST", path, json=market_order(reference))
    while answer.status_code == 200 and "message" in answer.json()[0]:
        await asyncio.sleep(0.2)  # the others come meanwhile
        question = answer.json()[0]["id"]
        answer = await gateway.ask("POST", f"/v1/api/iserver/reply/{question}", json={"confirmed": True})
    return answer


async def test_many_requests_at_once_break_no_limit(running: Droplet) -> None:
    paths = ["/v1/api/trsrv/stocks?symbols=AAPL"] * 24 + ["/v1/api/tickle"] * 3
    answers = await asyncio.gather(*(running.ask("GET", path) for path in paths))
    assert {answer.status_code for answer in answers} == {200}


async def test_lists_are_asked_for_once_in_five_seconds_for_all_who_wait(
    running: Droplet, account: str
) -> None:
    orders, trades = "/v1/api/iserver/account/orders", "/v1/api/iserver/account/trades?days=7"
    first = await asyncio.gather(*(running.ask("GET", orders) for _ in range(4)), running.ask("GET", trades))
    later = await asyncio.gather(*(running.ask("GET", orders + "/") for _ in range(4)))
    assert {answer.status_code for answer in (*first, *later)} == {200}
    assert first[0].json()["snapshot"] is False, "the first list of a session isn't whole"
    assert [answer.json()["snapshot"] for answer in later] == [True] * 4, "nobody gets an answer from before"


async def test_of_orders_at_the_same_moment_none_loses_its_question(running: Droplet, account: str) -> None:
    answers = await asyncio.gather(*(placed(running, account, f"o-{n}") for n in range(3)))
    assert [bool(answer.json()[0].get("order_id")) for answer in answers] == [True] * 3
    assert len({answer.json()[0]["order_id"] for answer in answers}) == 3


async def test_a_question_that_nobody_answers_holds_others_up_for_a_while_only(
    running: Droplet, account: str
) -> None:
    path = f"/v1/api/iserver/account/{account}/orders"
    asked = await running.ask("POST", path, json=market_order("left"))
    assert "message" in asked.json()[0]
    assert (await placed(running, account, "next")).json()[0]["order_id"]
    late = await running.ask(
        "POST", f"/v1/api/iserver/reply/{asked.json()[0]['id']}", json={"confirmed": True}
    )
    assert (late.status_code, "reply id not found" in late.text) == (400, True), "and nothing was placed"


async def test_cancels_dont_wait_for_a_conversation(running: Droplet, account: str) -> None:
    asked = await running.ask("POST", f"/v1/api/iserver/account/{account}/orders", json=market_order("open"))
    assert "message" in asked.json()[0]
    gone = await asyncio.wait_for(running.ask("DELETE", f"/v1/api/iserver/account/{account}/order/1"), 8)
    assert gone.json()["error"]
