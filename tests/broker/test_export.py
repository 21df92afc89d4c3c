"""Trades and orders as CSV: what is written reads back, and no cell is a formula."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.brokers.simulated import SimulatedBroker
from broker.errors import InvalidRequest
from broker.export import (
    FEE_COLUMNS,
    ORDER_COLUMNS,
    TRADE_COLUMNS,
    fees_csv,
    orders_csv,
    read_trades,
    trades_csv,
)
from broker.models import Fee, Fill

FILL = Fill(
    id="0000e0d5.6576fd38.01.01",
    order_id="a" * 32,
    client_order_id="mine-1",
    symbol="BRK.B",
    side="buy",
    qty=3.0,
    price=450.25,
    time="2026-03-09T13:30:00.25+00:00",
    commission=1.005,
    account_id="DU1234567",
)


def test_fees_have_their_own_table() -> None:
    fees = [
        Fee("f2", "2026-11-20", 0.03, "FEE", "=TAF fee, 10 shares", account_id="PA3"),
        Fee("f1", "2026-11-19", -0.01, "FEE", account_id="PA3"),
    ]
    text = fees_csv(fees)
    assert text.splitlines()[0] == ",".join(FEE_COLUMNS)
    assert [(row["date"], row["amount"], row["fee_id"]) for row in rows(text)] == [
        ("2026-11-19", "-0.01", "f1"),
        ("2026-11-20", "0.03", "f2"),
    ], "oldest first"
    assert rows(text)[1]["description"] == "'=TAF fee, 10 shares", "no cell is a formula"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_trade_has_its_stable_columns_and_its_time_in_utc_and_in_the_zone() -> None:
    text = trades_csv([FILL], "America/New_York")
    assert text.splitlines()[0] == ",".join(TRADE_COLUMNS)
    (row,) = rows(text)
    assert row["time_utc"] == "2026-03-09T13:30:00.250000+00:00"
    assert row["time_local"] == "2026-03-09T09:30:00.250000-04:00", "daylight saving has begun"
    assert (row["qty"], row["price"], row["value"], row["commission"]) == ("3", "450.25", "1350.75", "1.005")


def test_a_commission_that_is_not_known_is_an_empty_cell_and_a_rebate_a_number() -> None:
    found = rows(trades_csv([replace(FILL, commission=None), replace(FILL, id="2", commission=-0.25)]))
    assert sorted(row["commission"] for row in found) == ["", "-0.25"]


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "'"])
def test_no_text_is_read_as_a_formula(begin: str) -> None:
    wicked = replace(FILL, client_order_id=begin + 'HYPERLINK("http://x")', symbol=begin + "1+1")
    (row,) = rows(trades_csv([wicked]))
    assert row["client_order_id"] == "'" + wicked.client_order_id
    assert row["symbol"].startswith("'")
    assert read_trades(trades_csv([wicked]))[0].client_order_id == wicked.client_order_id


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NUMBER = st.floats(0, 1e9, allow_nan=False)
FILLS = st.builds(
    Fill,
    id=TEXT,
    order_id=TEXT,
    client_order_id=TEXT,
    symbol=TEXT,
    side=st.sampled_from(["buy", "sell"]),
    qty=NUMBER,
    price=NUMBER,
    time=st.integers(631152000, 3786912000).map(lambda s: datetime.fromtimestamp(s, UTC).isoformat()),
    commission=st.none() | st.floats(-1e6, 1e6),
    currency=TEXT,
    account_id=TEXT,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(FILLS, max_size=5), st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata"]))
def test_what_is_written_reads_back(fills: list[Any], zone: str) -> None:
    found = read_trades(trades_csv(fills, zone))
    key = lambda f: (f.time, f.id, f.order_id, repr(f))  # noqa: E731
    assert sorted(found, key=key) == sorted(fills, key=key)


def test_a_file_of_something_else_is_not_read() -> None:
    with pytest.raises(ValueError, match="the columns aren't time_utc"):
        read_trades("a,b\r\n1,2\r\n")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", ""])
def test_a_zone_that_does_not_exist_is_refused(zone: str) -> None:
    with pytest.raises(InvalidRequest, match="zone"):
        trades_csv([FILL], zone)


def test_a_brokers_own_fills_and_orders_are_exported() -> None:
    broker = SimulatedBroker()
    broker.connect()
    bought = broker.place_market_order("AAPL", 2, "buy", client_order_id="first")
    broker.place_limit_order("AAPL", 1, "buy", 1.0)
    (trade,) = rows(trades_csv(broker.get_fills()))
    assert (trade["order_id"], trade["client_order_id"], trade["qty"]) == (bought.id, "first", "2")
    text = orders_csv(broker.get_orders_history(), "Europe/Berlin")
    assert text.splitlines()[0] == ",".join(ORDER_COLUMNS)
    assert [row["status"] for row in rows(text)] == ["filled", "submitted"]
