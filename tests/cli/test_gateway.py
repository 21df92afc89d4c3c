"""The commands over IB Gateway: the real TWS protocol to a paper gateway, judged by the exchange's book."""

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
from tests.broker.paper_gateway import Paper, eventually
from tests.cli.conftest import Done, Run

ROOT = Path(__file__).parents[2]


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


def book(paper: Paper, reference: str) -> dict[str, Any]:
    """The one order of that client order id in the exchange's own book."""
    [found] = [order for order in paper.book() if order["order_ref"] == reference]
    return found


def test_account_and_health_name_the_paper_account(run: Run, over_gateway: Paper) -> None:
    found = run("account", "--json").document
    assert (found["account"]["id"], found["mode"]) == (over_gateway.account, "paper")
    assert run("accounts", "--json").document["accounts"] == [over_gateway.account]
    health = run("health", "--json")
    assert (health.code, health.document["health"]["ok"]) == (0, True)
    assert health.document["health"]["proved_at"], "the link was proved, not assumed"
    assert health.document["health"]["details"]["client_id"] == 2


def test_verify_places_an_order_below_the_market_and_cancels_it(run: Run, over_gateway: Paper) -> None:
    done = run("verify", "--symbol", "AAPL", "--json")
    found = done.document["verification"]
    assert (done.code, found["mode"], found["account"]) == (Exit.OK, "paper", over_gateway.account), done.out
    [tried] = [order for order in over_gateway.book() if order["order_ref"].startswith("verify-")]
    assert (tried["status"], tried["filled"]) == ("Cancelled", 0)


def test_an_order_goes_out_once_is_listed_and_cancelled(run: Run, over_gateway: Paper) -> None:
    command = ("buy", "AAPL", "5", "--limit", "100", "--tif", "gtc", "--client-order-id", "rests", "--json")
    placed = run(*command).document["order"]
    assert run(*command).document["order"]["id"] == placed["id"], "repeating the command places nothing"
    assert book(over_gateway, "rests")["order_type"] == "LMT"
    working = run("orders", "--working", "--json").document["orders"]
    assert [order["id"] for order in working] == [placed["id"]]
    cancelled = run("cancel", placed["id"], "--json")
    assert cancelled.code == 0
    assert cancelled.document["order"]["status"] in ("cancelled", "pending_cancel")
    assert run("cancel", placed["id"], "--json").code == Exit.REJECTED, "what is final isn't cancelled again"


def test_a_position_is_bought_priced_and_closed(run: Run, over_gateway: Paper) -> None:
    assert run("buy", "AAPL", "7", "--client-order-id", "in", "--json").code == 0

    def held() -> float:
        rows = run("positions", "--json").document["positions"]
        return float(sum(row["qty"] for row in rows))

    eventually(lambda: held() == 7, "the position is there")
    assert run("close", "AAPL", "--client-order-id", "out", "--json").code == 0
    eventually(lambda: held() == 0, "the position is closed")
    assert (book(over_gateway, "out")["side"], book(over_gateway, "out")["quantity"]) == ("SELL", 7)


def test_cancel_all_leaves_nothing_working(run: Run, over_gateway: Paper) -> None:
    for price in ("90", "91"):
        assert run("buy", "AAPL", "1", "--limit", price, "--json").code == 0
    assert len(run("cancel-all", "--json").document["orders"]) == 2
    eventually(lambda: not run("orders", "--working", "--json").document["orders"], "all are cancelled")


def test_the_brokers_no_has_its_reason_and_code(run: Run, over_gateway: Paper) -> None:
    over_gateway.fault("reject_orders", "Margin is not what it was")
    try:
        done = run("buy", "AAPL", "1", "--json")
    finally:
        over_gateway.fault("reject_orders", "")
    assert (done.code, done.error["kind"]) == (Exit.REJECTED, "order-rejected")
    assert "Margin is not what it was" in done.error["message"]
    assert str(done.error["code"]) == "201"


def test_an_answer_that_got_lost_is_outcome_unknown_and_names_the_order(
    run: Run, over_gateway: Paper
) -> None:
    over_gateway.fault("lose_answers", 1)
    done = run("buy", "AAPL", "1", "--limit", "100", "--client-order-id", "lost", "--json")
    assert done.code in (Exit.OUTCOME_UNKNOWN, 0), done.out
    if done.code == Exit.OUTCOME_UNKNOWN:
        assert done.error["order"]["client_order_id"] == "lost"
        assert "Don't send it again under another id" in done.error["advice"]

    def settled() -> Done | None:
        again = run("buy", "AAPL", "1", "--limit", "100", "--client-order-id", "lost", "--json")
        return again if again.code == 0 else None

    again = eventually(settled, "the order is found at the broker")
    assert again.document["order"]["status"] in ("submitted", "accepted")
    assert book(over_gateway, "lost")["quantity"] == 1, "one order, however often the command ran"


@pytest.mark.parametrize(("data", "kind"), [("live", "live"), ("delayed", "delayed")])
def test_a_quote_says_whether_it_is_delayed(run: Run, over_gateway: Paper, data: str, kind: str) -> None:
    over_gateway.fault("market_data", data)
    try:
        [quote] = run("quote", "AAPL", "--json").document["quotes"]
    finally:
        over_gateway.fault("market_data", "live")
    assert (quote["kind"], quote["source"]) == (kind, "ibkr")
    assert quote["last"] == pytest.approx(200, rel=0.02)


@pytest.mark.parametrize(("data", "code"), [("none", 354), ("competing", 10197)])
def test_no_quote_says_why_with_tws_code(run: Run, over_gateway: Paper, data: str, code: int) -> None:
    over_gateway.fault("market_data", data)
    try:
        done = run("quote", "AAPL", "--json")
    finally:
        over_gateway.fault("market_data", "live")
    assert (done.code, done.error["kind"]) == (Exit.COME_BACK_LATER, "market-data-unavailable")
    assert done.error["code"] == code


def test_the_wrong_account_is_refused_before_anything_is_shown(run: Run, over_gateway: Paper) -> None:
    done = run("positions", "--account", "DU0000001", "--json")
    assert done.code in (Exit.NOT_CONNECTED, Exit.USAGE)
    assert "DU0000001" in done.error["message"]


def test_two_programs_with_one_client_id_are_told_apart(run: Run, over_gateway: Paper) -> None:
    with watching() as events:
        assert next(events)["kind"] == "watching"
        same = run("account", "--json")
        other = run("account", "--client-id", "3", "--json")
    assert (same.code, "326" in same.error["message"]) == (Exit.NOT_CONNECTED, True)
    assert other.code == 0


def test_watch_gives_each_event_as_a_line(
    run: Run, over_gateway: Paper, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("IBKR_CLIENT_ID", "5")  # TWS shows a client id its own orders
    assert run("buy", "MSFT", "3", "--limit", "1", "--client-order-id", "watched", "--json").code == 0
    with watching() as events:
        assert "watched" in [order["client_order_id"] for order in next(events)["orders"]]
        over_gateway.admin("set_price", symbol="MSFT", price=0.5)
        fill = next(event["fill"] for event in events if event["kind"] == "fill")
    assert (fill["client_order_id"], fill["qty"], fill["symbol"]) == ("watched", 3, "MSFT")


def test_fills_have_their_commission(run: Run, over_gateway: Paper) -> None:
    assert run("buy", "AAPL", "2", "--client-order-id", "filled", "--json").code == 0

    def charged() -> list[dict[str, Any]]:
        fills = run("fills", "--json").document["fills"]
        return [f for f in fills if f["client_order_id"] == "filled" and f["commission"] is not None]

    assert eventually(charged, "the fill and its commission arrive")[0]["commission"] > 0


def test_a_preview_places_nothing(run: Run, over_gateway: Paper) -> None:
    before = len(over_gateway.book())
    found = run("preview", "buy", "AAPL", "10", "--json").document["preview"]
    assert (found["symbol"], found["qty"]) == ("AAPL", 10)
    assert found["commission"] is not None or found["commission_range"] is not None
    assert len(over_gateway.book()) == before
    assert "Preview: buy 10 AAPL market" in run("preview", "buy", "AAPL", "10").out


def test_a_working_order_is_changed(run: Run, over_gateway: Paper) -> None:
    command = ("buy", "AAPL", "5", "--limit", "100", "--client-order-id", "changed", "--json")
    placed = run(*command).document["order"]
    done = run("replace", placed["id"], "--limit", "101", "--json")
    assert (done.code, done.document["order"]["limit_price"]) == (0, 101)
    eventually(lambda: book(over_gateway, "changed")["limit_price"] == 101, "the exchange has the change")
