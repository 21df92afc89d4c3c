"""Account, contracts, quotes and orders, through the real ibind client where it has a call for it."""

from __future__ import annotations

import asyncio

import pytest
from ibind import QuestionType
from ibind.client.ibkr_utils import OrderRequest

ACCOUNT, AAPL, MSFT = "DU1234567", 265598, 272093
YES = dict.fromkeys(QuestionType, True)


def order(**changes):
    return OrderRequest(**{"conid": AAPL, "side": "BUY", "quantity": 10, "order_type": "MKT",
                           "acct_id": ACCOUNT, "tif": "DAY", **changes})  # fmt: skip


@pytest.fixture
async def trading(portal, exchange):
    """A gateway whose client has asked for its accounts, and prices that stand still."""
    await portal.get("/iserver/accounts")
    await portal.get("/portfolio/accounts")
    exchange.exchange.market.set_price(AAPL, 230.00)
    return portal


async def settled(portal, order_id, status="Filled"):
    """The order once it has that status: the exchange matches on the loop's next turns."""
    for _ in range(100):
        shown = (await portal.get(f"/iserver/account/order/status/{order_id}")).json()
        if shown["order_status"] == status:
            return shown
        await asyncio.sleep(0)
    raise AssertionError(f"order {order_id} is {shown['order_status']}, not {status}")


async def test_accounts_summary_and_ledger(trading):
    accounts = await trading.ibind(lambda client: client.portfolio_accounts().data)
    assert accounts[0]["accountId"] == ACCOUNT
    summary = await trading.ibind(lambda client: client.portfolio_summary().data)
    assert summary["netliquidation"]["amount"] == 1_000_000.0
    assert summary["accountcode"]["value"] == ACCOUNT
    ledger = await trading.ibind(lambda client: client.get_ledger().data)
    assert ledger["BASE"]["cashbalance"] == 1_000_000.0
    brokerage = await trading.ibind(lambda client: client.receive_brokerage_accounts().data)
    assert (brokerage["selectedAccount"], brokerage["isPaper"]) == (ACCOUNT, True)


async def test_a_symbol_leads_to_its_contract(trading):
    conids = await trading.ibind(lambda client: client.stock_conid_by_symbol("AAPL").data)
    assert conids == {"AAPL": AAPL}
    found = await trading.ibind(lambda client: client.search_contract_by_symbol("AAPL").data)
    assert found[0]["conid"] == str(AAPL)
    info = await trading.ibind(lambda client: client.contract_information_by_conid(str(AAPL)).data)
    assert (info["symbol"], info["currency"]) == ("AAPL", "USD")
    assert (await trading.get("/trsrv/stocks", symbols="NOSUCH")).json() == {"NOSUCH": []}
    assert (await trading.get("/iserver/secdef/search", symbol="NOSUCH")).json() == {
        "error": "No symbol found"
    }


async def test_the_first_snapshot_holds_only_the_contract_and_later_ones_text(trading):
    first = (await trading.get("/iserver/marketdata/snapshot", conids=AAPL, fields="31,84,86,88")).json()
    assert first == [{"conidEx": str(AAPL), "conid": AAPL}]
    second = (await trading.get("/iserver/marketdata/snapshot", conids=AAPL, fields="31,84,86,88")).json()[0]
    assert float(second["84"]) < 230.0 < float(second["86"])
    assert isinstance(second["88"], str)
    assert second["6509"] == "RpB"
    by_symbol = await trading.ibind(
        lambda client: client.live_marketdata_snapshot_by_symbol("MSFT", fields=["31", "84", "86"])
    )
    assert "MSFT" in by_symbol


async def test_without_a_subscription_there_are_no_prices(trading, exchange):
    exchange.exchange.faults.market_data = "none"
    for _ in range(2):
        row = (await trading.get("/iserver/marketdata/snapshot", conids=AAPL)).json()[0]
    assert row["6509"] == "N"
    assert "31" not in row


async def test_history_has_daily_bars(trading):
    history = await trading.ibind(
        lambda client: client.marketdata_history_by_conid(str(AAPL), bar="1d", period="2w").data
    )
    assert len(history["data"]) == 10
    assert {"o", "h", "l", "c", "v", "t"} <= set(history["data"][0])


async def test_a_market_order_asks_first_and_then_fills(trading):
    placed = await trading.ibind(lambda client: client.place_order(order(coid="mine-1"), YES).data)
    shown = await settled(trading, placed["order_id"])
    assert (shown["side"], shown["cum_fill"], shown["order_type"]) == ("B", "10.0", "MARKET")
    assert float(shown["average_price"]) == pytest.approx(230.0, abs=0.05)
    positions = await trading.ibind(lambda client: client.positions().data)
    assert (positions[0]["conid"], positions[0]["position"]) == (AAPL, 10)
    one = await trading.ibind(lambda client: client.positions_by_conid(ACCOUNT, str(AAPL)).data)
    assert one[0]["ticker"] == "AAPL"
    trades = await trading.ibind(lambda client: client.trades(days="7").data)
    assert (trades[0]["order_ref"], trades[0]["side"], trades[0]["size"]) == ("mine-1", "B", 10)
    assert (await trading.get(f"/portfolio2/{ACCOUNT}/positions")).json()[0]["description"] == "AAPL"


async def test_positions_are_cached_until_they_are_invalidated(start):
    portal = await start(positions_cache=60.0)
    await portal.get("/iserver/accounts")
    await portal.get("/portfolio/accounts")
    path = f"/portfolio/{ACCOUNT}/positions"
    assert (await portal.get(f"{path}/0")).json() == []
    placed = await portal.ibind(lambda client: client.place_order(order(), YES).data)
    await settled(portal, placed["order_id"])
    assert (await portal.get(f"{path}/0")).json() == [], "IBKR's cache answers"
    await portal.post(f"{path}/invalidate")
    assert (await portal.get(f"{path}/0")).json()[0]["position"] == 10


async def test_a_resting_limit_order_can_be_seen_changed_and_cancelled(trading):
    limit = order(order_type="LMT", price=229.0, coid="rest-1")
    placed = await trading.ibind(lambda client: client.place_order(limit, YES).data)
    number = placed["order_id"]
    await settled(trading, number, "Submitted")
    first = await trading.ibind(lambda client: client.live_orders().data)
    assert first == {"orders": [], "snapshot": False}, "the first list of a session is empty"
    listed = await trading.ibind(lambda client: client.live_orders().data)
    row = listed["orders"][0]
    assert (row["orderId"], row["status"], row["order_ref"]) == (int(number), "Submitted", "rest-1")
    forced = await trading.ibind(lambda client: client.live_orders(force=True).data)
    assert forced["orders"] == []

    changed = order(order_type="LMT", price=228.0, quantity=5)
    await trading.ibind(lambda client: client.modify_order(number, changed, YES).data)
    shown = await settled(trading, number, "Submitted")
    assert (shown["total_size"], shown["limit_price"]) == ("5.0", "228.00")

    cancelled = await trading.ibind(lambda client: client.cancel_order(number).data)
    assert cancelled["msg"] == "Request was submitted"
    await settled(trading, number, "Cancelled")
    again = await trading.ibind(lambda client: client.cancel_order(number).data)
    assert "can't be cancelled" in again["error"]


async def test_what_is_unusual_is_asked_one_question_after_another(trading):
    body = {"orders": [{"conid": AAPL, "side": "BUY", "orderType": "LMT", "price": 100, "quantity": 2000,
                        "tif": "DAY"}]}  # fmt: skip
    answer = (await trading.post(f"/iserver/account/{ACCOUNT}/orders", body)).json()
    asked = []
    while "message" in answer[0]:
        asked += answer[0]["messageIds"]
        answer = (await trading.post(f"/iserver/reply/{answer[0]['id']}", {"confirmed": True})).json()
    assert asked == ["o163", "o383", "o451"]
    assert answer[0]["order_id"]


async def test_a_question_answered_with_no_or_after_another_order_leads_to_nothing(trading):
    path = f"/iserver/account/{ACCOUNT}/orders"
    body = {"orders": [{"conid": AAPL, "side": "BUY", "orderType": "MKT", "quantity": 1, "tif": "DAY"}]}
    first = (await trading.post(path, body)).json()[0]["id"]
    second = (await trading.post(path, body)).json()[0]["id"]
    lost = await trading.post(f"/iserver/reply/{first}", {"confirmed": True})
    assert (lost.status_code, lost.json()["error"]) == (400, f"reply id not found: '{first}'")
    declined = (await trading.post(f"/iserver/reply/{second}", {"confirmed": False})).json()
    assert declined == {"error": "Order not confirmed "}
    await trading.get("/iserver/account/orders")
    assert (await trading.get("/iserver/account/orders")).json()["orders"] == []


async def test_suppressed_questions_are_not_asked(trading):
    await trading.ibind(lambda client: client.suppress_messages(["o10151"]))
    body = {"orders": [{"conid": AAPL, "side": "BUY", "orderType": "MKT", "quantity": 1, "tif": "DAY"}]}
    answer = (await trading.post(f"/iserver/account/{ACCOUNT}/orders", body)).json()
    assert "order_id" in answer[0]
    await trading.ibind(lambda client: client.reset_suppressed_messages())
    answer = (await trading.post(f"/iserver/account/{ACCOUNT}/orders", body)).json()
    assert answer[0]["messageIds"] == ["o10151"]


async def test_the_same_client_order_id_is_refused(trading):
    placed = await trading.ibind(lambda client: client.place_order(order(coid="once"), YES).data)
    assert placed["local_order_id"] == "once"
    with pytest.raises(Exception, match="already registered"):
        await trading.ibind(lambda client: client.place_order(order(coid="once"), YES))


async def test_refusals_have_the_shapes_of_the_real_api(trading):
    path = f"/iserver/account/{ACCOUNT}/orders"

    async def answer(**given):
        body = {"orders": [{"conid": AAPL, "side": "BUY", "orderType": "LMT", "quantity": 1, "price": 230,
                            "tif": "DAY", **given}]}  # fmt: skip
        found = await trading.post(path, body)
        while found.status_code == 200 and isinstance(found.json(), list) and "message" in found.json()[0]:
            found = await trading.post(f"/iserver/reply/{found.json()[0]['id']}", {"confirmed": True})
        return found

    assert (await answer(orderType="TRAIL")).status_code == 400
    assert (await answer(side="HOLD")).status_code == 400
    assert (await answer(quantity="many")).status_code == 400
    assert (await answer(quantity=0)).status_code == 500
    assert (await answer(conid=1)).status_code == 500
    assert "multiple of" in (await answer(price=230.001)).json()["error"]
    assert "EQUITY WITH LOAN" in (await answer(quantity=1_000_000)).json()["error"]
    assert (await trading.post(path, {"orders": []})).status_code == 400
    assert (await trading.post(path)).status_code == 400
    assert (await trading.get("/iserver/account/order/status/1")).status_code == 503
    missing = await trading.http.delete(f"/v1/api/iserver/account/{ACCOUNT}/order/1")
    assert missing.json() == {"error": "OrderID 1 doesn't exist"}


async def test_an_order_whose_answer_is_lost_is_503_and_may_have_been_placed(trading, exchange):
    exchange.exchange.faults.lose_answers = 1
    await trading.post("/iserver/questions/suppress", {"messageIds": ["o10151"]})
    body = {"orders": [{"conid": AAPL, "side": "BUY", "orderType": "MKT", "quantity": 1, "cOID": "lost",
                        "tif": "DAY"}]}  # fmt: skip
    assert (await trading.post(f"/iserver/account/{ACCOUNT}/orders", body)).status_code == 503
    await trading.post("/iserver/auth/ssodh/init", {"compete": True})
    await trading.get("/iserver/accounts")
    await trading.get("/iserver/account/orders")
    found = (await trading.get("/iserver/account/orders")).json()["orders"]
    assert [row["order_ref"] for row in found] == ["lost"]


async def test_a_preview_places_nothing(trading):
    preview = await trading.ibind(lambda client: client.whatif_order(order(quantity=100)).data)
    assert preview["amount"]["commission"].endswith("USD")
    await trading.get("/iserver/account/orders")
    assert (await trading.get("/iserver/account/orders")).json()["orders"] == []


async def test_profit_and_loss_by_account(trading):
    rows = (await trading.get("/iserver/account/pnl/partitioned")).json()["upnl"]
    assert rows[f"{ACCOUNT}.Core"]["nl"] == 1_000_000.0


async def test_of_two_equal_orders_at_once_one_is_placed(trading, exchange):
    body = {"orders": [{"conid": AAPL, "side": "BUY", "orderType": "LMT", "price": 229, "quantity": 1,
                        "tif": "DAY", "cOID": "twice"}]}  # fmt: skip
    path = f"/iserver/account/{ACCOUNT}/orders"
    answers = [one.json() for one in await asyncio.gather(*(trading.post(path, body) for _ in range(4)))]
    assert sum(isinstance(answer, list) for answer in answers) == 1
    assert len(exchange.exchange.orders) == 1


@pytest.mark.parametrize("body", [None, [], 7, "text", {"orders": {}}, {"orders": [7]}, {"messageIds": 7}])
async def test_malformed_bodies_are_400(trading, body):
    for path in (
        f"/iserver/account/{ACCOUNT}/orders",
        "/iserver/questions/suppress",
        "/iserver/secdef/search",
    ):
        assert (await trading.post(path, body)).status_code == 400


def bracket(**changes):
    """A limit order and its two children, which are known by the parent's cOID."""
    child = {"side": "SELL", "tif": "GTC", "parent_id": "b"}
    return [
        order(order_type="LMT", price=225, coid="b", tif="GTC", **changes),
        order(order_type="LMT", price=250, **child),
        order(order_type="STP", price=200, **child),
    ]


async def test_a_bracket_is_one_request_whose_children_name_their_parent(trading, exchange):
    taken = await trading.ibind(lambda client: client.place_order(bracket(), YES, ACCOUNT).data)
    assert [set(row) >= {"order_id", "order_status", "encrypt_message"} for row in taken] == [True] * 3
    entry, profit, stop = (row["order_id"] for row in taken)
    await settled(trading, entry, "Submitted")
    await trading.get("/iserver/account/orders")
    rows = {
        str(row["orderId"]): row for row in (await trading.get("/iserver/account/orders")).json()["orders"]
    }
    assert [rows[number].get("parentId") for number in (entry, profit, stop)] == [
        None,
        int(entry),
        int(entry),
    ]
    assert [rows[number].get("order_ref") for number in (entry, profit, stop)] == ["b", None, None]
    exchange.exchange.market.set_price(AAPL, 224.0)
    exchange.desk.step()
    await settled(trading, entry, "Filled")
    await settled(trading, profit, "Submitted")
    exchange.exchange.market.set_price(AAPL, 199.0)
    exchange.desk.step()
    await settled(trading, stop, "Filled")
    await settled(trading, profit, "Cancelled")


async def test_cancelling_a_child_cancels_its_sibling_and_cancelling_the_parent_both(trading):
    for which, left in ((1, "Submitted"), (0, "Cancelled")):
        orders = bracket()
        orders[0].coid = orders[1].parent_id = orders[2].parent_id = f"b{which}"
        taken = await trading.ibind(lambda client, o=orders: client.place_order(o, YES, ACCOUNT).data)
        numbers = [row["order_id"] for row in taken]
        await settled(trading, numbers[0], "Submitted")
        await trading.ibind(lambda client, n=numbers[which]: client.cancel_order(n, ACCOUNT).data)
        for number in numbers[1:]:
            await settled(trading, number, "Cancelled")
        await settled(trading, numbers[0], left)


async def test_several_orders_that_are_no_bracket_are_refused(trading):
    path = f"/iserver/account/{ACCOUNT}/orders"
    simple = {"conid": AAPL, "side": "BUY", "orderType": "MKT", "quantity": 1, "tif": "DAY"}
    for orders in (
        [simple, simple],
        [{**simple, "cOID": "a"}, {**simple, "parentId": "b"}],
        [{**simple, "parentId": "b"}],
    ):
        assert (await trading.post(path, {"orders": orders})).status_code == 400


async def test_a_trailing_order_needs_its_distance_and_follows_the_price(trading, exchange):
    path = f"/iserver/account/{ACCOUNT}/orders"
    trail = {"conid": AAPL, "side": "BUY", "orderType": "TRAIL", "quantity": 1, "tif": "GTC"}
    assert (await trading.post(path, {"orders": [{**trail, "trailingAmt": 5}]})).status_code == 400
    asked = order(order_type="TRAIL", tif="GTC", trailing_type="%", trailing_amt=10.0, price=260.0)
    taken = await trading.ibind(lambda client: client.place_order(asked, YES, ACCOUNT).data)
    shown = await settled(trading, taken["order_id"], "PreSubmitted")
    assert (shown["order_type"], float(shown["stop_price"])) == (
        "TRAILING_STOP",
        pytest.approx(253.0, abs=0.02),
    )
    exchange.exchange.market.set_price(AAPL, 200.0)
    exchange.desk.step()
    shown = await settled(trading, taken["order_id"], "PreSubmitted")
    assert float(shown["stop_price"]) == pytest.approx(220.0, abs=0.02)
