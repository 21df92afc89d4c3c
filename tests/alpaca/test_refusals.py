"""What the paper Alpaca refuses, with the statuses and codes that clients decide by."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import ReplaceOrderRequest

from tests.alpaca.conftest import ACCOUNT, KEY, SECRET, Alpaca, limit, market, refused

BODY = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}
HEADERS = {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET}


async def test_a_client_order_id_serves_one_order_for_ever(alpaca: Alpaca) -> None:
    order = await alpaca.buy(1, client_order_id="once")
    await alpaca.until(order, "filled")
    error = await refused(lambda: alpaca.client().submit_order(market(1, client_order_id="once")))
    assert (error.status_code, error.code, error.message) == (422, 40010001, "client_order_id must be unique")
    assert len(alpaca.book()) == 1


async def test_of_equal_orders_at_once_one_is_accepted(alpaca: Alpaca) -> None:
    async with httpx.AsyncClient(base_url=alpaca.url, headers=HEADERS) as http:
        body = {**BODY, "client_order_id": "twin"}
        answers = await asyncio.gather(*(http.post("/trading/v2/orders", json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [422] * 7
    assert len(alpaca.book()) == 1


async def test_want_of_money_is_403_with_the_amounts_and_leaves_no_order(alpaca: Alpaca) -> None:
    error = await refused(lambda: alpaca.client().submit_order(market(5000, client_order_id="big")))
    assert (error.status_code, error.code) == (403, 40310000)
    body = json.loads(str(error))
    assert body["message"] == "insufficient buying power"
    assert (body["buying_power"], body["cost_basis"]) == ("400000", "500050")
    assert alpaca.book() == []
    await alpaca.buy(1, client_order_id="big")  # the id is still free


async def test_more_shares_than_are_free_cannot_be_sold(alpaca: Alpaca) -> None:
    await alpaca.until(await alpaca.buy(5), "filled")
    await alpaca.rest(120, 3, side=OrderSide.SELL)
    error = await refused(lambda: alpaca.client().submit_order(market(4, OrderSide.SELL)))
    body = json.loads(str(error))
    assert (error.status_code, body["code"]) == (403, 40310000)
    assert body["message"] == "insufficient qty available for order (requested: 4, available: 2)"
    assert (body["available"], body["existing_qty"], body["held_for_orders"]) == ("2", "5", "3")


async def test_without_a_position_whole_shares_can_be_sold_short_and_fractions_not(alpaca: Alpaca) -> None:
    error = await refused(lambda: alpaca.client().submit_order(market(1.5, OrderSide.SELL)))
    assert (error.status_code, error.message) == (422, "fractional orders cannot be sold short")
    order = await alpaca.trade(lambda client: client.submit_order(market(2, OrderSide.SELL)))
    await alpaca.until(order, "filled")
    position = await alpaca.trade(lambda client: client.get_open_position("AAPL"))
    assert (position.qty, position.side) == ("-2", "short")


async def test_what_has_ended_can_be_neither_canceled_nor_replaced(alpaca: Alpaca) -> None:
    order = await alpaca.buy(1)
    await alpaca.until(order, "filled")
    error = await refused(lambda: alpaca.client().cancel_order_by_id(order.id))
    assert (error.status_code, error.code) == (422, 42210000)
    assert error.message == 'order is already in "filled" state'
    change = ReplaceOrderRequest(qty=2)
    error = await refused(lambda: alpaca.client().replace_order_by_id(order.id, change))
    assert (error.status_code, error.message) == (422, "cannot replace order in filled status")


async def test_a_replacement_must_change_something_and_exceed_what_traded(alpaca: Alpaca) -> None:
    order = await alpaca.rest(90, 10)
    await alpaca.until(order, "new")
    change = ReplaceOrderRequest(limit_price=90.0)
    error = await refused(lambda: alpaca.client().replace_order_by_id(order.id, change))
    assert error.message == "order parameters are not changed"
    await alpaca.admin.set_fault("largest_fill", 4.0)
    await alpaca.admin.set_fault("hold_orders", True)
    [working] = alpaca.exchange.exchange.working.values()
    working.filled, working.average_price = 4.0, 90.0
    smaller = ReplaceOrderRequest(qty=4)
    error = await refused(lambda: alpaca.client().replace_order_by_id(order.id, smaller))
    assert (error.status_code, error.message) == (422, "qty must be > filled_qty")
    larger = ReplaceOrderRequest(qty=12)
    new = await alpaca.trade(lambda client: client.replace_order_by_id(order.id, larger))
    assert (new.qty, new.filled_qty) == ("12", "4"), "the replacement's quantity is the whole, as in FIX"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/orders/61e69015-8549-4bfd-b9c3-01e75843f47d", "order not found for 61e69015"),
        ("/orders:by_client_order_id?client_order_id=no", "order not found for no"),
        ("/positions/AAPL", "position does not exist"),
        ("/assets/NOSUCH", "asset not found for NOSUCH"),
    ],
)
async def test_what_is_not_there_is_404(alpaca: Alpaca, path: str, message: str) -> None:
    error = await refused(lambda: alpaca.client().get(path))
    assert (error.status_code, error.code) == (404, 40410000)
    assert error.message.startswith(message)


async def test_unknown_keys_and_wrong_secrets_are_401_and_throw_nobody_out(alpaca: Alpaca) -> None:
    await alpaca.trade(lambda client: client.get_account())
    for key, secret in ((KEY, "wrong"), ("PKNOBODY", SECRET)):
        error = await refused(lambda k=key, s=secret: alpaca.client(k, s).get_account())
        assert (error.status_code, error.code) == (401, 40110000)
    async with httpx.AsyncClient(base_url=alpaca.url) as http:
        assert (await http.get("/trading/v2/account")).status_code == 401
    assert set(alpaca.gateway.sessions) == {KEY}, "who isn't let in isn't remembered"
    await alpaca.trade(lambda client: client.get_account())
    assert alpaca.exchange.exchange.users[KEY].accounts == [ACCOUNT]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"symbol": None}, 40010001, "symbol is required"),
        ({"symbol": "NOSUCH"}, 42210000, 'asset "NOSUCH" not found'),
        ({"symbol": "AAPL MSFT"}, 42210000, "not found"),
        ({"qty": None}, 40010001, "qty or notional is required"),
        ({"notional": "5"}, 40010001, "only one of qty or notional"),
        ({"qty": "0"}, 42210000, "qty must be > 0"),
        ({"qty": "-1"}, 42210000, "qty must be > 0"),
        ({"qty": "NaN"}, 40010001, "qty is not a number"),
        ({"qty": "inf"}, 40010001, "qty is not a number"),
        ({"qty": "99999999999"}, 42210000, "quantity must be"),
        ({"side": "bye"}, 40010001, "invalid side"),
        ({"type": "stopp"}, 40010001, "invalid type"),
        ({"time_in_force": "soon"}, 40010001, "invalid time_in_force"),
        ({"type": "limit"}, 42210000, "limit orders require limit price"),
        ({"limit_price": "5"}, 42210000, "market orders require no stop or limit price"),
        ({"type": "limit", "limit_price": "90.123"}, 42210000, "invalid limit_price 90.123. sub-penny"),
        ({"type": "limit", "limit_price": "-1"}, 42210000, "limit price must be > 0"),
        ({"qty": "0.5", "time_in_force": "gtc"}, 42210000, "fractional orders must be DAY orders"),
        ({"qty": "0.5", "order_class": "bracket"}, 42210000, "fractional orders must be simple orders"),
        ({"extended_hours": True}, 42210000, "extended hours order must be DAY limit orders"),
        ({"type": "trailing_stop"}, 40010001, "trailing stop orders require"),
        ({"order_class": "bracket"}, 40010001, "bracket orders require"),
        ({"client_order_id": "x" * 129}, 40010001, "client_order_id must be"),
    ],
)
async def test_malformed_orders_are_422_and_never_reach_the_book(
    alpaca: Alpaca, change: dict[str, Any], code: int, message: str
) -> None:
    async with httpx.AsyncClient(base_url=alpaca.url, headers=HEADERS) as http:
        answer = await http.post("/trading/v2/orders", json={**BODY, **change})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert message in answer.json()["message"]
    assert alpaca.book() == []


async def test_a_body_that_is_no_json_object_is_400(alpaca: Alpaca) -> None:
    async with httpx.AsyncClient(base_url=alpaca.url, headers=HEADERS) as http:
        for content in ("{", "[1]", '"order"'):
            answer = await http.post("/trading/v2/orders", content=content)
            assert (answer.status_code, answer.json()["code"]) == (400, 40010000)


async def test_less_than_a_dollar_is_not_worth_an_order(alpaca: Alpaca) -> None:
    error = await refused(lambda: alpaca.client().submit_order(market(None, notional=0.5)))  # type: ignore[arg-type]
    assert (error.status_code, error.message) == (403, "cost basis must be >= minimal amount of order 1")


async def test_a_bracket_on_the_wrong_sides_is_refused(alpaca: Alpaca) -> None:
    body = {
        **BODY,
        "order_class": "bracket",
        "take_profit": {"limit_price": 90},
        "stop_loss": {"stop_price": 95},
    }
    error = await refused(lambda: alpaca.client().post("/orders", body))
    assert error.message == "take_profit.limit_price must be > stop_loss.stop_price"
    assert error.status_code == 422


async def test_class_shares_are_written_with_a_dot(alpaca: Alpaca) -> None:
    order = await alpaca.trade(
        lambda client: client.submit_order(limit(10.0, symbol="BRK.B", time_in_force=TimeInForce.GTC))
    )
    assert order.symbol == "BRK.B"
    asset = await alpaca.trade(lambda client: client.get_asset("BRK.B"))
    assert asset.id == order.asset_id
    by_id = await alpaca.trade(lambda client: client.get_asset(asset.id))
    assert by_id.symbol == "BRK.B"


async def test_an_exchange_that_is_down_is_503_and_comes_back(alpaca: Alpaca) -> None:
    client: TradingClient = alpaca.client()
    await alpaca.trade(lambda client: client.get_account())
    await alpaca.admin.set_fault("link_down", True)
    error = await refused(client.get_account)
    assert error.status_code == 503
    await alpaca.admin.set_fault("link_down", False)
    await alpaca.trade(lambda client: client.get_account())
