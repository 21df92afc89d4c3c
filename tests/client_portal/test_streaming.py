"""The websocket: what is said on it, and that ibind's own client understands it."""

from __future__ import annotations

import asyncio
import json
import ssl

import pytest
from ibind import IbkrClient, IbkrWsClient
from ibind.events import Orders, SubscriptionUpdated
from ibind.ibkr_ws.ibkr_subscriptions import OrdersSubscription
from ibind.ws.ws_subscriptions import BindingStatus
from websockets.asyncio.client import connect

ACCOUNT, AAPL = "DU1234567", 265598
ORDER = {"orders": [{"conid": AAPL, "side": "BUY", "orderType": "MKT", "quantity": 3, "tif": "DAY"}]}


@pytest.fixture
async def socket(portal):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with connect(f"{portal.url.replace('https', 'wss')}/v1/api/ws", ssl=context) as client:
        yield client


async def until(socket, wanted):
    """The next message for which `wanted` holds."""
    async with asyncio.timeout(10):
        while True:
            message = json.loads(await socket.recv())
            if wanted(message):
                return message


async def test_a_client_is_told_who_it_is_and_that_it_is_authenticated(socket):
    assert (await until(socket, lambda m: m["topic"] == "system"))["success"] == "paperuser"
    assert (await until(socket, lambda m: m["topic"] == "act"))["args"]["accounts"] == [ACCOUNT]
    assert (await until(socket, lambda m: m["topic"] == "sts"))["args"]["authenticated"] is True
    await socket.send("tic")
    assert (await until(socket, lambda m: m["topic"] == "tic"))["alive"] is True


async def test_orders_and_trades_come_as_they_happen(portal, socket):
    await socket.send("sor+{}")
    await socket.send("str+{}")
    await socket.send("tic")
    await until(socket, lambda m: m["topic"] == "tic")
    await portal.get("/iserver/accounts")
    question = (await portal.post(f"/iserver/account/{ACCOUNT}/orders", ORDER)).json()[0]["id"]
    await portal.post(f"/iserver/reply/{question}", {"confirmed": True})
    seen = set()

    def both(message):
        if message["topic"] == "sor":
            seen.add(message["args"][0]["status"])
        if message["topic"] == "str":
            seen.add(message["args"][0]["size"])
        return {"Filled", 3} <= seen

    await until(socket, both)


async def test_quotes_are_text_and_stop_when_unsubscribed(portal, socket, exchange):
    await socket.send(f'smd+{AAPL}+{{"fields":["31","84"]}}')
    quote = await until(socket, lambda m: m["topic"] == f"smd+{AAPL}")
    assert isinstance(quote["31"], str)
    await socket.send(f"umd+{AAPL}+{{}}")
    await socket.send("spl+{}")
    profit = await until(socket, lambda m: m["topic"] == "spl")
    assert f"{ACCOUNT}.Core" in profit["args"]


async def test_nonsense_is_answered_with_an_error(socket):
    for text in ("xyz+{}", "smd+abc+{}", "smd+1+{}"):
        await socket.send(text)
        await until(socket, lambda m: m["topic"] == "error")


async def test_a_session_taken_elsewhere_is_announced(portal, socket, exchange):
    exchange.administration.answer({"method": "remove_user", "params": {"name": "paperuser"}})
    status = await until(socket, lambda m: m["topic"] == "sts" and not m["args"]["authenticated"])
    assert status["args"]["competing"] is True


async def test_ibinds_websocket_client_gets_an_order_to_its_end(portal):
    loop = asyncio.get_running_loop()
    subscribed, filled = asyncio.Event(), asyncio.Event()

    class Sink:
        def emit(self, event):
            if isinstance(event, SubscriptionUpdated) and event.status is BindingStatus.ACTIVE:
                loop.call_soon_threadsafe(subscribed.set)
            if isinstance(event, Orders) and any(row["status"] == "Filled" for row in event.data["args"]):
                loop.call_soon_threadsafe(filled.set)

    rest = IbkrClient(url=f"{portal.url}/v1/api/", cacert=False, auto_register_shutdown=False)
    client = IbkrWsClient(account_id=ACCOUNT, url=f"{portal.url.replace('https', 'wss')}/v1/api/ws",
                          ibkr_client=rest, cacert=False, sink=Sink())  # fmt: skip
    try:
        assert await asyncio.to_thread(client.start)
        await asyncio.to_thread(client.subscribe, OrdersSubscription())
        await asyncio.wait_for(subscribed.wait(), 15)
        await portal.get("/iserver/accounts")
        question = (await portal.post(f"/iserver/account/{ACCOUNT}/orders", ORDER)).json()[0]["id"]
        await portal.post(f"/iserver/reply/{question}", {"confirmed": True})
        await asyncio.wait_for(filled.wait(), 15)
    finally:
        await asyncio.to_thread(client.shutdown)
        rest.close()
