"""Logins, links and API connections: what happens when they fail."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from localcloud.exchange.link import Link
from localcloud.exchange.users import LoginFailed
from localcloud.gateways.tws.brokerage import SecondFactorTimeout
from localcloud.gateways.tws.gateway import Gateway

from .conftest import PASSWORD, World, apple, codes, eventually, exchange_at, ib, running, settings


async def test_a_client_id_in_use_is_refused_with_326(world: World) -> None:
    await world.connect(1)
    second = ib.IB()
    told: list[int] = []
    second.errorEvent += lambda number, code, text, *_: told.append(code)
    with pytest.raises((ConnectionError, TimeoutError, asyncio.TimeoutError)):
        await second.connectAsync("127.0.0.1", world.port, clientId=1, timeout=2)
    assert 326 in told
    assert await world.connect(2)


async def test_a_freed_client_id_can_be_used_again(world: World) -> None:
    first = await world.connect(1)
    first.disconnect()
    await eventually(lambda: 1 not in world.gateway.clients)
    assert await world.connect(1)


async def test_a_lost_link_is_1100_with_the_socket_open_and_1102_when_restored(world: World) -> None:
    client = await world.connect()
    ticker = client.reqMktData(await apple(client))
    await eventually(lambda: ticker.bid > 99)
    await world.admin.set_fault("link_down", True)
    await eventually(lambda: 1100 in codes(client))
    assert client.isConnected()
    trade = client.placeOrder(ib.Stock("AAPL", "SMART", "USD"), ib.MarketOrder("BUY", 1))
    await eventually(lambda: 504 in codes(client))
    assert trade.orderStatus.status != "Filled"
    await world.admin.set_fault("link_down", False)
    await eventually(lambda: 1102 in codes(client))
    await world.admin.set_price("AAPL", 120.0)
    await eventually(lambda: ticker.bid > 119)  # data is maintained: the subscription goes on


async def test_data_lost_is_1101_and_ends_subscriptions(world: World) -> None:
    client = await world.connect()
    client.reqMktData(await apple(client))
    await eventually(lambda: world.gateway.clients[1].market_data)
    await world.admin.set_fault("data_lost", True)
    await world.admin.cut_links()
    await eventually(lambda: 1101 in codes(client))
    assert world.gateway.clients[1].market_data == {}


async def test_a_fill_during_a_lost_link_is_told_when_it_is_restored(world: World) -> None:
    client = await world.connect()
    trade = client.placeOrder(ib.Stock("AAPL", "SMART", "USD"), ib.LimitOrder("BUY", 5, 90.0))
    await eventually(lambda: trade.orderStatus.status == "Submitted")
    await world.admin.set_fault("link_down", True)
    await eventually(lambda: 1100 in codes(client))
    await world.admin.set_price("AAPL", 80.0)
    await eventually_filled(world)
    assert trade.orderStatus.status == "Submitted"
    await world.admin.set_fault("link_down", False)
    await eventually(trade.isDone)
    assert (trade.orderStatus.status, len(trade.fills)) == ("Filled", 1)


async def eventually_filled(world: World) -> None:
    """Waits until the exchange's own book has the only order filled."""
    async with asyncio.timeout(10):
        while (await world.admin.orders(world.account))[0]["status"] != "Filled":  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_a_lost_answer_is_silence_until_the_link_is_back(world: World) -> None:
    client = await world.connect()
    await world.admin.set_fault("lose_answers", 1)
    trade = client.placeOrder(ib.Stock("AAPL", "SMART", "USD"), ib.MarketOrder("BUY", 1))
    await eventually(trade.isDone)
    assert trade.orderStatus.status == "Filled"
    assert len(await world.admin.orders(world.account)) == 1


async def test_a_session_taken_elsewhere_comes_back_when_the_other_one_ends(world: World) -> None:
    client = await world.connect()
    phone = await Link.connect(world.server)
    await phone.login("demo", PASSWORD)
    await eventually(lambda: 1100 in codes(client))
    await phone.close()
    await eventually(lambda: 1102 in codes(client))


async def test_a_connection_during_an_outage_is_told_2110_and_sees_the_last_values(world: World) -> None:
    await world.connect(1)
    await world.admin.set_fault("link_down", True)
    await eventually(lambda: not world.gateway.brokerage.connected)
    late = await world.connect(2)
    assert 2110 in codes(late)
    assert any(v.tag == "NetLiquidation" for v in late.accountValues())


async def test_a_wrong_password_opens_no_port(tmp_path: Path) -> None:
    async with exchange_at(tmp_path) as (admin, address):
        await admin.add_user("demo", PASSWORD)
        for changes, reason in (({"password": "wrong"}, "credentials"), ({"mode": "live"}, "mode")):
            gateway = Gateway(settings(**changes), address)
            with pytest.raises(LoginFailed) as failure:
                await gateway.serve(refuse_to_listen)
            assert failure.value.reason == reason


async def refuse_to_listen(gateway: Gateway) -> asyncio.Server:
    raise AssertionError("a gateway that isn't logged in must not open its API port")


async def test_a_second_factor_nobody_confirms_ends_the_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localcloud.gateways.tws.brokerage.SECOND_FACTOR_WAIT", 0.05)
    async with exchange_at(tmp_path) as (admin, address):
        await admin.add_user("demo", PASSWORD, second_factor=True)
        with pytest.raises(SecondFactorTimeout):
            await Gateway(settings(), address).serve(refuse_to_listen)
        await admin.approve_second_factor("demo")
        async with running(admin, address, "") as world:
            assert await world.connect()


async def test_servers_that_are_not_there_yet_are_waited_for(tmp_path: Path) -> None:
    socket = tmp_path / "later"
    gateway = Gateway(settings(), f"unix:{socket}")
    serving = asyncio.create_task(gateway.serve(refuse_to_listen))
    await asyncio.sleep(0)
    assert not gateway.ready.is_set()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_dropped_clients_can_reconnect_and_a_restart_issues_order_ids_anew(world: World) -> None:
    client = await world.connect()
    trade = client.placeOrder(ib.Stock("AAPL", "SMART", "USD"), ib.MarketOrder("BUY", 1))
    await eventually(trade.isDone)
    used = trade.order.orderId
    await world.admin.gateway("restart", seconds=0.01)
    await eventually(lambda: not client.isConnected())
    await eventually(lambda: world.gateway.next_ids == {} and not world.gateway.clients)
    again = await reconnect(world)
    assert again.client.getReqId() <= used + 20
    assert world.gateway.next_order_id(1) == 1


async def reconnect(world: World) -> object:
    """Connects as soon as the port is open again."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await world.connect(1)
            except OSError:
                await asyncio.sleep(0.005)


async def test_faults_of_the_gateway_itself_are_acted_out(world: World) -> None:
    client = await world.connect()
    await world.admin.gateway("error", code=10349, message="Order TIF was set to DAY based on order preset.")
    await eventually(lambda: 10349 in codes(client))
    await world.admin.gateway("hang")
    answer = asyncio.ensure_future(client.reqCurrentTimeAsync())
    other = await asyncio.open_connection("127.0.0.1", world.port)
    assert not answer.done(), "the port is open, and nobody answers"
    other[1].close()
    await world.admin.gateway("resume")
    assert await answer
    await world.admin.gateway("drop_clients")
    await eventually(lambda: not client.isConnected())


async def test_more_than_fifty_messages_a_second_are_answered_with_error_100(world: World) -> None:
    client = await world.connect()
    client.client.MaxRequests = 0
    for _ in range(60):
        client.client.reqIds(1)
    await eventually(lambda: 100 in codes(client))
