"""What clients read: account, portfolio, positions, contracts, quotes, history."""

from __future__ import annotations

import math

import pytest

from .conftest import World, apple, codes, eventually, ib


async def test_a_client_connects_and_is_told_of_the_data_farms(world: World) -> None:
    client = await world.connect(raiseSyncErrors=True) if ib.__name__ == "ib_async" else await world.connect()
    assert client.managedAccounts() == [world.account]
    assert client.client.serverVersion() == 176
    assert set(codes(client)) == {2104, 2106, 2158}


async def test_account_values_and_summary_agree_with_the_exchange(world: World) -> None:
    client = await world.connect()
    values = {v.tag: v.value for v in client.accountValues() if v.currency == "USD"}
    assert values["NetLiquidation"] == values["TotalCashValue"] == "100000.00"
    assert values["BuyingPower"] == "400000.00", "a margin account has four times its available funds"
    summary = {v.tag: v.value for v in await client.accountSummaryAsync()}
    assert summary["NetLiquidation"] == "100000.00"
    assert summary["AccountType"] == "INDIVIDUAL"


async def test_positions_and_portfolio_show_what_is_held(world: World) -> None:
    await world.admin.set_position(world.account, "AAPL", 10, 95.0)
    await world.admin.set_position(world.account, "BRK B", -2, 480.0)
    client = await world.connect()
    positions = {p.contract.symbol: (p.position, p.avgCost) for p in client.positions()}
    assert positions == {"AAPL": (10, 95.0), "BRK B": (-2, 480.0)}
    item = next(i for i in client.portfolio() if i.contract.symbol == "AAPL")
    assert item.marketValue == pytest.approx(1000, abs=1)
    assert item.unrealizedPNL == pytest.approx(50, abs=1)
    assert item.contract.conId == 265598


async def test_two_hundred_positions_arrive_whole(world: World) -> None:
    catalogue = world.gateway.brokerage
    found = [
        item
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        for item in (await catalogue.call("search", pattern=letter))["contracts"]
        if item["currency"] == "USD"
    ]
    symbols = sorted({item["symbol"] for item in found})[:200]
    for symbol in symbols:
        await world.admin.set_position(world.account, symbol, 1, 10.0)
    client = await world.connect()
    assert sorted(p.contract.symbol for p in client.positions()) == symbols


async def test_a_contract_is_qualified_by_symbol_and_by_id(world: World) -> None:
    client = await world.connect()
    (apple,) = await client.qualifyContractsAsync(ib.Stock("AAPL", "SMART", "USD"))
    assert (apple.conId, apple.primaryExchange, apple.tradingClass) == (265598, "NASDAQ", "NMS")
    (spy,) = await client.qualifyContractsAsync(ib.Contract(conId=756733, exchange="SMART"))
    assert (spy.symbol, spy.secType) == ("SPY", "STK")
    (details,) = await client.reqContractDetailsAsync(ib.Stock("BRK B", "SMART", "USD"))
    assert details.longName == "BERKSHIRE HATHAWAY INC-CL B"
    assert details.minTick == 0.01
    assert details.timeZoneId == "US/Eastern"
    assert ":0000-" in details.liquidHours, "the default market is always open, and its hours say so"


async def test_an_unknown_symbol_is_error_200(world: World) -> None:
    client = await world.connect()
    assert await client.reqContractDetailsAsync(ib.Stock("NOSUCH", "SMART", "USD")) == []
    assert 200 in codes(client)


async def test_a_symbol_in_two_currencies_is_ambiguous_without_one(world: World) -> None:
    client = await world.connect()
    assert len(await client.reqContractDetailsAsync(ib.Stock("SHOP", "SMART", ""))) == 2
    client.placeOrder(ib.Stock("SHOP", "SMART", ""), ib.MarketOrder("BUY", 1))
    await eventually(lambda: any(code == 200 and "ambiguous" in text for _, code, text in client.told))


async def test_symbols_are_found_by_name(world: World) -> None:
    client = await world.connect()
    found = await client.reqMatchingSymbolsAsync("apple")
    assert [d.contract.symbol for d in found] == ["AAPL"]


async def test_a_snapshot_has_bid_ask_sizes_and_close(world: World) -> None:
    client = await world.connect()
    (contract,) = await client.qualifyContractsAsync(ib.Stock("AAPL", "SMART", "USD"))
    (ticker,) = await client.reqTickersAsync(contract)
    assert 99 < ticker.bid < ticker.ask < 101
    assert ticker.bidSize > 0
    assert ticker.close > 0
    assert ticker.volume > 0
    assert ticker.marketDataType == 1


async def test_a_stream_follows_the_price_until_it_is_cancelled(world: World) -> None:
    client = await world.connect()
    contract = await apple(client)
    ticker = client.reqMktData(contract)
    await eventually(lambda: ticker.bid > 99)
    await world.admin.set_price("AAPL", 120.0)
    await eventually(lambda: ticker.bid > 119)
    client.cancelMktData(contract)
    await client.reqCurrentTimeAsync()
    await world.admin.set_price("AAPL", 130.0)
    await client.reqPositionsAsync()
    assert ticker.bid < 121


@pytest.mark.parametrize(
    ("entitlement", "kind", "code", "has_data"),
    [
        ("delayed", 3, 10167, True),
        ("delayed", 1, 10089, False),
        ("none", 1, 354, False),
        ("competing", 1, 10197, False),
    ],
)
async def test_data_that_is_not_subscribed_is_delayed_or_refused(
    world: World, entitlement: str, kind: int, code: int, has_data: bool
) -> None:
    await world.admin.set_fault("market_data", entitlement)
    client = await world.connect()
    client.reqMarketDataType(kind)
    ticker = client.reqMktData(await apple(client))
    await eventually(lambda: code in codes(client))
    if has_data:
        await eventually(lambda: ticker.bid > 99)
        assert ticker.marketDataType == 3
    else:
        assert math.isnan(ticker.bid)


async def test_history_has_daily_bars_and_nothing_finer(world: World) -> None:
    client = await world.connect()
    contract = ib.Stock("AAPL", "SMART", "USD")
    bars = await client.reqHistoricalDataAsync(contract, "", "10 D", "1 day", "TRADES", True)
    assert len(bars) == 10
    assert all(bar.low <= bar.close <= bar.high for bar in bars)
    again = await client.reqHistoricalDataAsync(contract, "", "10 D", "1 day", "TRADES", True)
    assert [bar.close for bar in again] == [bar.close for bar in bars]
    assert not await client.reqHistoricalDataAsync(contract, "", "1 D", "1 min", "TRADES", True)
    assert any(code == 162 and "no data" in text for _, code, text in client.told)


async def test_profit_and_loss_is_streamed(world: World) -> None:
    await world.admin.set_position(world.account, "AAPL", 10, 95.0)
    client = await world.connect()
    whole = client.reqPnL(world.account)
    single = client.reqPnLSingle(world.account, "", 265598)
    await eventually(lambda: whole.unrealizedPnL == pytest.approx(50, abs=1))
    await eventually(lambda: single.value == pytest.approx(1000, abs=1))


async def test_what_is_not_served_is_refused_by_name(world: World) -> None:
    client = await world.connect()
    client.client.reqMarketRule(26)
    await eventually(lambda: any("reqMarketRule is not served" in text for _, _, text in client.told))
    client.client.send(999, 1)
    await eventually(lambda: 505 in codes(client))
