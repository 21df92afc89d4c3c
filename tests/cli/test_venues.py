"""The commands over Alpaca and over IBeam: the real protocols to paper front ends.

Judged by the exchange's book. What is the same for every broker, once per broker; over IB Gateway
it is in `test_gateway`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.cli.exits import Exit
from soak.certificate import certificate_file
from soak.venue import USER, Venue
from tests.broker.paper_gateway import eventually
from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["alpaca", "client_portal"], scope="module")
def front_end(request: pytest.FixtureRequest) -> Iterator[tuple[str, Venue]]:
    """An exchange where AAPL stands at 200 dollars, and one front end of it, for all tests of a broker."""
    with Venue(request.param) as opened:
        yield request.param, opened


@pytest.fixture
def venue(front_end: tuple[str, Venue], environment: pytest.MonkeyPatch) -> Venue:
    """The settings lead to the front end."""
    kind, opened = front_end
    settings = {
        "alpaca": {
            "BROKER_TYPE": "alpaca",
            "ALPACA_API_KEY": USER,
            "ALPACA_SECRET_KEY": opened.password,
            "ALPACA_ENDPOINT": f"http://127.0.0.1:{opened.port}/trading",
            "ALPACA_DATA_ENDPOINT": f"http://127.0.0.1:{opened.port}/data",
            "ALPACA_STREAM_ENDPOINT": f"ws://127.0.0.1:{opened.port}/stream",
        },
        "client_portal": {
            "BROKER_TYPE": "ibeam",
            "IBEAM_URL": f"https://127.0.0.1:{opened.port}",
            "IBEAM_CA_FILE": str(certificate_file(opened.folder)),
            "IBKR_TRADING_MODE": "paper",
        },
    }
    for name, value in settings[kind].items():
        environment.setenv(name, value)
    return opened


def order_of(venue: Venue, reference: str) -> dict[str, Any]:
    """The one order of that client order id in the exchange's own book."""
    [found] = [order for order in venue.orders() if order["order_ref"] == reference]
    return found


def test_account_and_health(run: Run, venue: Venue) -> None:
    found = run("account", "--json").document
    assert (found["account"]["id"], found["mode"]) == (venue.account, "paper")
    assert run("accounts", "--json").document["accounts"] == [venue.account]
    health = run("health", "--json")
    assert (health.code, health.document["health"]["ok"]) == (0, True)
    assert health.document["health"]["proved_at"], "the link was proved, not assumed"
    assert venue.account in run("account").out


def test_an_order_goes_out_once_is_changed_and_cancelled(run: Run, venue: Venue) -> None:
    command = ("buy", "AAPL", "5", "--limit", "150", "--tif", "gtc", "--client-order-id", "rests", "--json")
    placed = run(*command).document["order"]
    assert run(*command).document["order"]["id"] == placed["id"], "repeating the command places nothing"
    assert order_of(venue, "rests")["limit_price"] == 150
    other = run("buy", "AAPL", "6", "--limit", "150", "--tif", "gtc", "--client-order-id", "rests", "--json")
    assert (other.code, other.error["kind"]) == (Exit.USAGE, "duplicate-client-order-id")
    eventually(
        lambda: run("order", placed["id"], "--json").document["order"]["status"] == "submitted", "it works"
    )
    changed = run("replace", placed["id"], "--limit", "151", "--json").document["order"]
    assert changed["limit_price"] == 151
    working = run("orders", "--working", "--json").document["orders"]
    assert changed["id"] in [order["id"] for order in working]
    cancelled = run("cancel", changed["id"], "--json")
    assert cancelled.document["order"]["status"] in ("cancelled", "pending_cancel")
    eventually(
        lambda: run("cancel", changed["id"], "--json").code == Exit.REJECTED, "what is final isn't cancelled"
    )


def test_a_position_is_bought_priced_filled_and_closed(run: Run, venue: Venue) -> None:
    assert run("buy", "AAPL", "7", "--client-order-id", "in", "--json").code == 0

    def held() -> float:
        rows = run("positions", "--json").document["positions"]
        return float(sum(row["qty"] for row in rows))

    eventually(lambda: held() == 7, "the position is there")
    assert run("close", "AAPL", "--client-order-id", "out", "--json").code == 0
    eventually(lambda: held() == 0, "the position is closed")

    def traded() -> float:
        fills = run("fills", "--json").document["fills"]
        return float(sum(fill["qty"] for fill in fills if fill["client_order_id"] in ("in", "out")))

    eventually(lambda: traded() == 14, "both fills are told with their orders")
    rows = run("export").out.splitlines()
    assert len([row for row in rows if ",in" in row or ",out" in row]) >= 2
    assert sum(row["quantity"] for row in venue.executions()) == 14


def test_cancel_all_leaves_nothing_working(run: Run, venue: Venue) -> None:
    for price in ("150", "151"):
        assert run("buy", "AAPL", "1", "--limit", price, "--json").code == 0
    assert len(run("cancel-all", "--json").document["orders"]) == 2
    eventually(lambda: not run("orders", "--working", "--json").document["orders"], "all are cancelled")


def test_the_brokers_no_has_its_reason(run: Run, venue: Venue, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("RISK_MAX_ORDER_VALUE", "none")
    environment.setenv("RISK_MAX_LONG_VALUE", "none")
    done = run("buy", "AAPL", "900000", "--limit", "199", "--json")
    assert (done.code, done.error["kind"]) == (Exit.REJECTED, "insufficient-funds"), done.out
    assert done.error["message"]


def test_an_unknown_symbol_is_refused_before_anything_is_sent(run: Run, venue: Venue) -> None:
    before = len(venue.orders())
    done = run("buy", "NOSUCHX", "1", "--json")
    assert (done.code, "NOSUCHX" in done.error["message"]) == (Exit.USAGE, True)
    assert len(venue.orders()) == before


def test_an_answer_that_got_lost_leaves_one_order_however_often_the_command_runs(
    run: Run, venue: Venue
) -> None:
    command = ("buy", "AAPL", "1", "--limit", "150", "--client-order-id", "lost", "--json")
    venue.fault("lose_answers", 1)
    done = run(*command)
    assert done.code in (Exit.OUTCOME_UNKNOWN, 0), done.out
    eventually(lambda: run(*command).code == 0, "the order is found at the broker")
    assert order_of(venue, "lost")["quantity"] == 1


def test_a_front_end_that_is_away_is_no_empty_answer(
    run: Run, venue: Venue, environment: pytest.MonkeyPatch
) -> None:
    for name in ("ALPACA_ENDPOINT", "IBEAM_URL"):
        if name in os.environ:
            environment.setenv(name, os.environ[name].replace(f":{venue.port}", ":9"))
    for command in ("positions", "orders", "fills", "account"):
        done = run(command, "--json")
        assert (done.code, done.error["kind"]) == (Exit.NOT_CONNECTED, "not-connected"), command
    assert run("health", "--json").code == Exit.NOT_CONNECTED


def test_a_quote_has_its_source(run: Run, venue: Venue) -> None:
    [quote] = run("quote", "AAPL", "--json").document["quotes"]
    price = quote["last"] or quote["bid"]
    assert price == pytest.approx(200, rel=0.05)
    assert quote["source"].startswith(("alpaca", "ibkr"))


def test_a_preview_places_nothing_where_the_broker_has_one(
    run: Run, venue: Venue, front_end: tuple[str, Venue]
) -> None:
    before = len(venue.orders())
    done = run("preview", "buy", "AAPL", "10", "--json")
    if front_end[0] == "alpaca":
        assert done.code == Exit.UNSUPPORTED
    else:
        assert done.document["preview"]["estimated_cost"] == pytest.approx(2000, rel=0.05)
    assert len(venue.orders()) == before


def test_fees_are_told_where_the_broker_books_them_apart(
    run: Run, venue: Venue, front_end: tuple[str, Venue]
) -> None:
    done = run("export", "--fees", "--json")
    if front_end[0] != "alpaca":
        assert done.code == Exit.UNSUPPORTED, "IBKR's commissions hold them"
        return
    venue.gateway("book_fee", date="2026-11-20", amount=0.03, shares=7)
    rows = run("export", "--fees", "--json").document
    assert rows["rows"] == 1
    assert "2026-11-20,PA3SOAKSOAK1,FEE,,0.03,USD" in rows["csv"]
    assert "export --fees" in run("export").err


def test_watch_gives_each_event_as_a_line(run: Run, venue: Venue) -> None:
    placed = run(
        "buy", "MSFT", "3", "--limit", "150", "--tif", "gtc", "--client-order-id", "watched", "--json"
    )
    assert placed.code == 0, placed.out
    with watching() as events:
        assert "watched" in [order["client_order_id"] for order in next(events)["orders"]]
        venue.set_price("MSFT", 140.0)
        told = (event["fill"] for event in events if event["kind"] == "fill")
        # The journal is a new one, so what other tests traded is told of as well.
        fill = next(fill for fill in told if fill["symbol"] == "MSFT")
    assert fill["client_order_id"] == "watched"


@contextlib.contextmanager
def watching() -> Iterator[Iterator[dict[str, Any]]]:
    """The events of `watch --json`, the first of which says that it watches."""
    command = [sys.executable, "-m", "broker", "watch", "--json", "--for", "60"]
    process = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield (json.loads(line) for line in process.stdout)
    finally:
        process.kill()
        process.stdout.close()
        process.wait(20)
