"""Account, positions, activities, clock, assets and market data through alpaca-py's clients."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime

import pytest
from alpaca.data.requests import (
    StockBarsRequest,
    StockLatestBarRequest,
    StockLatestQuoteRequest,
    StockLatestTradeRequest,
    StockSnapshotRequest,
)
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.models import TradeActivity
from alpaca.trading.requests import ClosePositionRequest, GetCalendarRequest, GetPortfolioHistoryRequest

from tests.alpaca.conftest import ACCOUNT, Alpaca, refused


async def test_a_new_account_has_its_cash_and_strings_for_amounts(alpaca: Alpaca) -> None:
    account = await alpaca.trade(lambda client: client.get_account())
    assert (account.account_number, account.status) == (ACCOUNT, "ACTIVE")
    assert (account.cash, account.equity, account.last_equity) == ("100000", "100000", "100000")
    assert (account.buying_power, account.multiplier) == ("400000", "4")
    assert account.pattern_day_trader is None, "gone from the API since July 2026"
    raw = await alpaca.trade(lambda client: client.get("/account"))
    assert "daytrade_count" not in raw


async def test_open_orders_reduce_the_buying_power(alpaca: Alpaca) -> None:
    await alpaca.rest(90, 100)
    account = await alpaca.trade(lambda client: client.get_account())
    assert account.buying_power == "391000"
    assert account.cash == "100000"


async def test_a_position_shows_its_value_and_what_is_available(alpaca: Alpaca) -> None:
    await alpaca.until(await alpaca.buy(10), "filled")
    await alpaca.admin.set_price("AAPL", 110.0)
    [position] = await alpaca.trade(lambda client: client.get_all_positions())
    assert (position.symbol, position.qty, position.side, position.qty_available) == (
        "AAPL",
        "10",
        "long",
        "10",
    )
    assert position.avg_entry_price == "100.01"
    assert (position.market_value, position.cost_basis) == ("1100", "1000.1")
    assert position.unrealized_pl == "99.9"
    same = await alpaca.trade(lambda client: client.get_open_position(position.asset_id))
    assert same.symbol == "AAPL"


async def test_positions_are_closed_in_part_and_whole(alpaca: Alpaca) -> None:
    await alpaca.until(await alpaca.buy(10), "filled")
    half = ClosePositionRequest(percentage="50")
    order = await alpaca.trade(lambda client: client.close_position("AAPL", half))
    assert (order.side, order.qty) == ("sell", "5")
    await alpaca.until(order, "filled")
    rest = await alpaca.trade(lambda client: client.close_position("AAPL"))
    await alpaca.until(rest, "filled")
    error = await refused(lambda: alpaca.client().close_position("AAPL"))
    assert (error.status_code, error.code) == (404, 40410000)


async def test_close_all_cancels_and_answers_for_each_position(alpaca: Alpaca) -> None:
    for symbol in ("AAPL", "MSFT"):
        await alpaca.until(await alpaca.buy(3, symbol=symbol), "filled")
    resting = await alpaca.rest()
    answers = await alpaca.trade(lambda client: client.close_all_positions(cancel_orders=True))
    assert {(answer.symbol, answer.status) for answer in answers} == {("AAPL", 200), ("MSFT", 200)}
    await alpaca.until(resting, "canceled")
    for answer in answers:
        await alpaca.until(answer.body, "filled")
    assert await alpaca.trade(lambda client: client.get_all_positions()) == []


async def test_fills_are_activities_page_by_page(alpaca: Alpaca) -> None:
    await alpaca.admin.set_fault("largest_fill", 4.0)
    order = await alpaca.buy(6)
    await alpaca.until(order, "filled")
    rows = await alpaca.trade(lambda client: client.get("/account/activities/FILL", {"direction": "asc"}))
    fills = [TradeActivity(**row) for row in rows]
    assert [(fill.qty, fill.cum_qty, fill.leaves_qty) for fill in fills] == [(4, 4, 2), (2, 6, 0)]
    assert [fill.type for fill in fills] == ["partial_fill", "fill"]
    assert {fill.order_id for fill in fills} == {order.id}
    page = {"direction": "asc", "page_size": 1, "page_token": rows[0]["id"]}
    assert await alpaca.trade(lambda client: client.get("/account/activities", page)) == rows[1:]
    assert await alpaca.trade(lambda client: client.get("/account/activities/DIV")) == []


async def test_clock_calendar_and_portfolio_history(alpaca: Alpaca) -> None:
    clock = await alpaca.trade(lambda client: client.get_clock())
    assert clock.is_open
    assert clock.next_close > clock.timestamp
    await alpaca.admin.set_market("calendar")
    week = GetCalendarRequest(start=date(2026, 11, 23), end=date(2026, 11, 29))
    days = await alpaca.trade(lambda client: client.get_calendar(week))
    assert [day.date.day for day in days] == [23, 24, 25, 27], "Thanksgiving is the 26th"
    assert [day.close.hour for day in days] == [16, 16, 16, 13], "and the day after it is a half one"
    history = await alpaca.trade(lambda client: client.get_portfolio_history(GetPortfolioHistoryRequest()))
    assert history.equity[-1] == 100_000.0


async def test_assets_and_configurations(alpaca: Alpaca) -> None:
    assets = await alpaca.trade(lambda client: client.get_all_assets())
    assert {"AAPL", "BRK.B", "SPY"} <= {asset.symbol for asset in assets}
    asset = await alpaca.trade(lambda client: client.get_asset("AAPL"))
    assert (asset.exchange, asset.fractionable, asset.tradable) == ("NASDAQ", True, True)
    assert (await alpaca.trade(lambda client: client.get_account_configurations())).fractional_trading


async def test_latest_quotes_trades_bars_and_snapshots(alpaca: Alpaca) -> None:
    data, wanted = alpaca.data(), ["AAPL", "MSFT", "NOSUCH"]
    quotes = await asyncio.to_thread(
        data.get_stock_latest_quote, StockLatestQuoteRequest(symbol_or_symbols=wanted)
    )
    assert set(quotes) == {"AAPL", "MSFT"}, "what isn't known is left out"
    assert (quotes["AAPL"].bid_price, quotes["AAPL"].ask_price) == (100.0, 100.01)
    trades = await asyncio.to_thread(
        data.get_stock_latest_trade, StockLatestTradeRequest(symbol_or_symbols="AAPL")
    )
    assert trades["AAPL"].price in (100.0, 100.01)
    bars = await asyncio.to_thread(data.get_stock_latest_bar, StockLatestBarRequest(symbol_or_symbols="AAPL"))
    assert bars["AAPL"].timestamp.second == 0
    snapshots = await asyncio.to_thread(
        data.get_stock_snapshot, StockSnapshotRequest(symbol_or_symbols="AAPL")
    )
    assert snapshots["AAPL"].latest_quote.ask_price == 100.01
    assert snapshots["AAPL"].previous_daily_bar.timestamp < snapshots["AAPL"].daily_bar.timestamp


async def test_daily_bars_of_a_week(alpaca: Alpaca) -> None:
    request = StockBarsRequest(
        symbol_or_symbols="AAPL",
        timeframe=TimeFrame.Day,
        start=datetime(2026, 11, 9, tzinfo=UTC),
        end=datetime(2026, 11, 13, tzinfo=UTC),
    )
    bars = (await asyncio.to_thread(alpaca.data().get_stock_bars, request))["AAPL"]
    assert [bar.timestamp.day for bar in bars] == [9, 10, 11, 12, 13]
    assert all(bar.low <= bar.close <= bar.high for bar in bars)


async def test_intraday_bars_are_refused_rather_than_invented(alpaca: Alpaca) -> None:
    request = StockBarsRequest(symbol_or_symbols="AAPL", timeframe=TimeFrame.Minute)
    error = await refused(lambda: alpaca.data().get_stock_bars(request))
    assert error.status_code == 400


@pytest.mark.parametrize("entitlement", ["none"])
async def test_without_a_subscription_market_data_is_forbidden(alpaca: Alpaca, entitlement: str) -> None:
    await alpaca.admin.set_fault("market_data", entitlement)
    request = StockLatestQuoteRequest(symbol_or_symbols="AAPL")
    error = await refused(lambda: alpaca.data().get_stock_latest_quote(request))
    assert error.status_code == 403
