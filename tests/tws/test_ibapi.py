"""IBKR's own client, ibapi 9.81.1 from PyPI, unmodified, in threads of its own as it wants to be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from .conftest import World, eventually

client_module = pytest.importorskip("ibapi.client", reason="ibapi is only in the environment of ib_insync")
Contract = pytest.importorskip("ibapi.contract").Contract
Order = pytest.importorskip("ibapi.order").Order
ExecutionFilter = pytest.importorskip("ibapi.execution").ExecutionFilter
EWrapper = pytest.importorskip("ibapi.wrapper").EWrapper


class Official(EWrapper, client_module.EClient):  # type: ignore[misc, name-defined]
    """Keeps every callback's name and arguments in `heard`."""

    def __init__(self) -> None:
        client_module.EClient.__init__(self, self)
        self.heard: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in CALLBACKS:
            return lambda *arguments: self.heard.append((name, arguments))
        return super().__getattribute__(name)

    def first(self, name: str) -> tuple[Any, ...] | None:
        """Arguments of the first callback of that name."""
        return next((arguments for heard, arguments in list(self.heard) if heard == name), None)

    def all(self, name: str) -> list[tuple[Any, ...]]:
        """Arguments of all callbacks of that name."""
        return [arguments for heard, arguments in list(self.heard) if heard == name]


CALLBACKS = frozenset(
    {
        "nextValidId", "managedAccounts", "error", "currentTime", "accountSummary", "accountSummaryEnd",
        "updateAccountValue", "updatePortfolio", "accountDownloadEnd", "position", "positionEnd",
        "contractDetails", "contractDetailsEnd", "symbolSamples", "tickPrice", "tickSize", "tickSnapshotEnd",
        "openOrder", "orderStatus", "execDetails", "execDetailsEnd", "commissionReport", "completedOrder",
        "completedOrdersEnd", "openOrderEnd", "historicalData", "historicalDataEnd", "pnl", "positionMulti",
        "positionMultiEnd",
    }
)  # fmt: skip


@pytest.fixture
async def official(world: World) -> AsyncIterator[Official]:
    client = Official()
    await asyncio.to_thread(client.connect, "127.0.0.1", world.port, 9)
    thread = threading.Thread(target=client.run, daemon=True)
    thread.start()
    await eventually(lambda: client.first("nextValidId"))
    yield client
    await asyncio.to_thread(client.disconnect)
    await asyncio.to_thread(thread.join, 5)


def stock(symbol: str) -> Any:
    contract = Contract()
    contract.symbol, contract.secType, contract.exchange, contract.currency = symbol, "STK", "SMART", "USD"
    return contract


def market_order(quantity: int, **changes: Any) -> Any:
    order = Order()
    order.action, order.totalQuantity, order.orderType = "BUY", quantity, "MKT"
    order.eTradeOnly = order.firmQuoteOnly = False
    for name, value in changes.items():
        setattr(order, name, value)
    return order


async def test_it_connects_at_its_own_version(world: World, official: Official) -> None:
    assert official.serverVersion() == 157
    assert official.first("managedAccounts") == (world.account,)
    await eventually(lambda: {2104, 2106, 2158} <= {code for _, code, _ in official.all("error")})


async def test_it_reads_account_positions_and_contracts(world: World, official: Official) -> None:
    await world.admin.set_position(world.account, "AAPL", 10, 95.0)
    official.reqCurrentTime()
    official.reqAccountSummary(1, "All", "NetLiquidation,BuyingPower")
    official.reqAccountUpdates(True, world.account)
    official.reqPositions()
    official.reqPositionsMulti(2, world.account, "")
    official.reqContractDetails(3, stock("AAPL"))
    official.reqMatchingSymbols(4, "micros")
    official.reqPnL(5, world.account, "")
    for name in ("accountSummaryEnd", "accountDownloadEnd", "positionEnd", "positionMultiEnd",
                 "contractDetailsEnd", "symbolSamples", "currentTime", "pnl"):  # fmt: skip
        await eventually(lambda name=name: official.all(name))
    account, contract, quantity, cost = official.first("position") or ()
    assert (account, contract.conId, quantity, cost) == (world.account, 265598, 10, 95.0)
    portfolio = official.first("updatePortfolio") or ()
    assert (portfolio[0].symbol, portfolio[1], portfolio[7]) == ("AAPL", 10, world.account)
    _, details = official.first("contractDetails") or ()
    assert (details.contract.conId, details.longName, details.stockType) == (265598, "APPLE INC", "COMMON")
    assert official.first("pnl")[2] == pytest.approx(50, abs=1)  # type: ignore[index]


async def test_it_gets_quotes_and_history(world: World, official: Official) -> None:
    official.reqMktData(1, stock("AAPL"), "", True, False, [])
    await eventually(lambda: official.first("tickSnapshotEnd"))
    prices = {kind: price for _, kind, price, _ in official.all("tickPrice")}
    assert 99 < prices[1] < prices[2] < 101
    official.reqHistoricalData(2, stock("AAPL"), "", "5 D", "1 day", "TRADES", 1, 1, False, [])
    await eventually(lambda: official.first("historicalDataEnd"))
    assert len(official.all("historicalData")) == 5


async def test_it_places_changes_cancels_and_fills_orders(world: World, official: Official) -> None:
    (number,) = official.first("nextValidId") or (0,)
    official.placeOrder(number, stock("AAPL"), market_order(10, orderRef="mine"))
    await eventually(lambda: official.first("commissionReport"))
    states = [arguments[1] for arguments in official.all("orderStatus")]
    assert states == ["PreSubmitted", "Submitted", "Filled"]
    _, _, execution = official.first("execDetails") or ()
    assert (execution.shares, execution.side, execution.orderRef) == (10, "BOT", "mine")

    limit = market_order(10, orderType="LMT", lmtPrice=90.0)
    official.placeOrder(number + 1, stock("AAPL"), limit)
    await eventually(lambda: any(a[0] == number + 1 for a in official.all("orderStatus")))
    limit.lmtPrice = 91.0
    official.placeOrder(number + 1, stock("AAPL"), limit)
    await eventually(lambda: any(a[2].lmtPrice == 91.0 for a in official.all("openOrder")))
    official.reqOpenOrders()
    await eventually(lambda: official.all("openOrderEnd"))
    official.cancelOrder(number + 1)
    await eventually(lambda: any(code == 202 for _, code, _ in official.all("error")))

    official.reqCompletedOrders(False)
    await eventually(lambda: official.all("completedOrdersEnd"))
    completed = {order.permId: state.status for _, order, state in official.all("completedOrder")}
    assert sorted(completed.values()) == ["Cancelled", "Filled"]
    official.reqExecutions(7, ExecutionFilter())
    await eventually(lambda: official.all("execDetailsEnd"))
    assert [e.orderRef for number, _, e in official.all("execDetails") if number == 7] == ["mine"]


async def test_it_places_a_bracket_and_sees_a_trail_move(world: World, official: Official) -> None:
    (number,) = official.first("nextValidId") or (0,)
    entry = market_order(10, transmit=False, orderRef="entry")
    profit = market_order(10, action="SELL", orderType="LMT", lmtPrice=130.0, parentId=number, transmit=False)
    trail = market_order(10, action="SELL", orderType="TRAIL", auxPrice=5.0, parentId=number, transmit=True)
    for ahead, order in enumerate((entry, profit, trail)):
        official.placeOrder(number + ahead, stock("AAPL"), order)

    def states(order_id: int) -> list[Any]:
        return [arguments[1] for arguments in official.all("orderStatus") if arguments[0] == order_id]

    await eventually(lambda: "Filled" in states(number) and "Submitted" in states(number + 1))
    await world.admin.set_price("AAPL", 120.0)

    def moved() -> bool:
        shown = [a[2].trailStopPrice for a in official.all("openOrder") if a[0] == number + 2]
        return bool(shown) and abs(shown[-1] - 115.0) < 0.02

    await eventually(moved)
    await world.admin.set_price("AAPL", 114.0)
    await eventually(lambda: states(number + 2)[-1] == "Filled" and states(number + 1)[-1] == "Cancelled")
    assert (await world.admin.account(world.account))["positions"] == []


async def test_its_default_order_attributes_are_refused_as_by_a_current_gateway(
    world: World, official: Official
) -> None:
    (number,) = official.first("nextValidId") or (0,)
    official.placeOrder(number, stock("AAPL"), market_order(10, eTradeOnly=True, firmQuoteOnly=True))
    await eventually(lambda: any(code == 10268 for _, code, _ in official.all("error")))
    assert await world.admin.orders(world.account) == []


async def test_it_previews_an_order(world: World, official: Official) -> None:
    (number,) = official.first("nextValidId") or (0,)
    official.placeOrder(number, stock("AAPL"), market_order(100, whatIf=True))
    await eventually(lambda: official.first("openOrder"))
    _, _, order, state = official.first("openOrder") or ()
    assert order.whatIf
    assert (state.commission, state.commissionCurrency) == (1.0, "USD")
    assert float(state.initMarginChange) == pytest.approx(2_500, rel=0.01)
