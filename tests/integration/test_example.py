"""The example strategy through restarts, lost answers and halts: orders are counted, not believed.

A restart is a new broker on the same journal. In process the simulated book is empty after one, which
is the harder case: what is held no longer tells that the order was sent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from broker.brokers.ibkr import IBKRBroker
from broker.brokers.simulated import SimulatedBroker
from broker.errors import OrderOutcomeUnknown
from broker.journal import Journal
from broker.models import OrderRequest, Status
from broker.risk.switch import KillSwitch
from examples.moving_averages import SLOW, SYMBOLS, Signal, run, sample_history, signal
from tests.broker.ordering import unsent
from tests.broker.paper_gateway import eventually, paper_gateway

ROOT = Path(__file__).parents[2]
DAY, NEXT = date(2026, 11, 23), date(2026, 11, 24)


def rising(_symbol: str, _day: date) -> Sequence[float]:
    return [100.0 + n for n in range(SLOW)]


def falling(_symbol: str, _day: date) -> Sequence[float]:
    return [200.0 - n for n in range(SLOW)]


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "orders.sqlite")


def started(file: str, **options: object) -> SimulatedBroker:
    """A process that has just started."""
    broker = SimulatedBroker(Journal.in_file(file), **options)  # type: ignore[arg-type]
    broker.connect()
    return broker


def test_the_averages_decide_and_the_id_names_symbol_and_day() -> None:
    assert signal("AAPL", DAY, rising("AAPL", DAY), 5) == Signal("AAPL", DAY, 5)
    assert signal("AAPL", DAY, falling("AAPL", DAY), 5).shares == 0
    assert Signal("AAPL", DAY, 5).client_order_id == "ma-AAPL-20261123"
    with pytest.raises(ValueError, match="30 are needed"):
        signal("AAPL", DAY, [1.0], 5)
    assert sample_history("AAPL", DAY) == sample_history("AAPL", DAY)


def test_without_trade_nothing_is_sent(file: str) -> None:
    broker = started(file)
    said: list[str] = []
    assert run(broker, rising, DAY, say=said.append) == 0
    assert broker.get_orders_history() == []
    assert [line.split()[:4] for line in said] == [["would", "buy", "5", symbol] for symbol in SYMBOLS]


def test_ten_restarts_a_day_send_one_order_a_symbol(file: str) -> None:
    for _ in range(10):
        assert run(started(file), rising, DAY, trade=True) == 0
    orders = started(file).get_orders_history()
    assert sorted(o.client_order_id for o in orders) == ["ma-AAPL-20261123", "ma-MSFT-20261123"]


def test_the_next_day_sells_what_the_first_bought(file: str) -> None:
    broker = started(file)
    run(broker, rising, DAY, trade=True)
    assert [p.qty for p in broker.get_positions()] == [5, 5]
    run(broker, rising, NEXT, trade=True)
    assert len(broker.get_orders_history()) == 2, "what is wanted is held"
    run(broker, falling, date(2026, 11, 25), trade=True)
    assert broker.get_positions() == []


def test_an_order_that_never_left_is_sent_by_the_next_run_as_it_was_decided(file: str) -> None:
    wanted = Signal("AAPL", DAY, 5)
    decided = OrderRequest(
        "AAPL", "buy", 5.0, "limit", limit_price=190.4, client_order_id=wanted.client_order_id
    )
    unsent(Journal.in_file(file), "SIM-1", decided)
    broker = started(file)
    assert run(broker, rising, DAY, trade=True) == 0
    [order] = [o for o in broker.get_orders_history() if o.symbol == "AAPL"]
    assert (order.status, order.limit_price) == (Status.FILLED, 190.4)


def test_an_order_of_unknown_outcome_ends_the_run_before_the_next_symbol(file: str) -> None:
    class Silent(SimulatedBroker):
        def place_order(self, request: OrderRequest) -> object:  # type: ignore[override]
            order, _ = self._journal.enter("SIM-1", request)
            raise OrderOutcomeUnknown("no answer", order)

    broker = Silent(Journal.in_file(file))
    broker.connect()
    said: list[str] = []
    assert run(broker, rising, DAY, trade=True, say=said.append) == 5
    assert len(broker.get_orders_history()) == 1
    assert "ma-AAPL-20261123" in said[-1]


def test_a_halt_a_closed_market_and_a_limit_send_nothing(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from broker.factory import get_broker

    monkeypatch.setenv("BROKER_TYPE", "simulated")
    monkeypatch.setenv("BROKER_JOURNAL", file)
    switch = KillSwitch(Journal.in_file(file).engine, environment={})
    switch.halt("ada", "odd fills")
    assert run(get_broker(), rising, DAY, trade=True) == 6
    switch.resume("ada", "it was nothing")
    assert run(started(file), rising, DAY, trade=True, most=100.0) == 6
    sunday = datetime(2026, 11, 22, 15, tzinfo=UTC)
    assert run(started(file, clock=lambda: sunday, exchange="XNYS"), rising, DAY, trade=True) == 3
    assert [o for o in started(file).get_orders_history() if o.status != Status.RECORDED] == []


def test_a_lost_answer_and_a_restart_make_one_order_at_the_exchange(file: str) -> None:
    with paper_gateway() as paper:

        def process() -> int:
            broker = IBKRBroker(
                Journal.in_file(file), port=paper.port, trading_mode="paper", timeout=2.0, heartbeat=0.5
            )
            try:
                broker.start()
                eventually(lambda: broker.health().ok, "connected")
                return run(broker, rising, DAY, trade=True)
            finally:
                broker.disconnect()

        paper.fault("lose_answers", 1)
        codes = [process()]
        while codes[-1] != 0 and len(codes) < 10:
            codes.append(process())
        codes.append(process())
        assert codes[-2:] == [0, 0], codes
        sent = sorted(order["order_ref"] for order in paper.book())
        assert sent == ["ma-AAPL-20261123", "ma-MSFT-20261123"], f"each once, after {codes}"


def test_it_runs_as_a_program_and_says_what_it_would_do(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("BROKER_", "IBKR_", "ALPACA_"))}
    environment |= {"BROKER_TYPE": "simulated", "BROKER_JOURNAL": str(tmp_path / "j.sqlite")}
    environment |= {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "examples/moving_averages.py", "--history", "sample"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(SYMBOLS)


def test_the_program_trades_through_a_gateway_and_a_second_run_of_the_day_adds_nothing(
    tmp_path: Path,
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("BROKER_", "IBKR_", "ALPACA_"))}
    with paper_gateway() as paper:
        environment |= {"BROKER_TYPE": "ibkr", "IBKR_GATEWAY_PORT": str(paper.port), "PYTHONPATH": str(ROOT)}
        environment |= {"BROKER_JOURNAL": str(tmp_path / "j.sqlite"), "IBKR_TRADING_MODE": "paper"}
        command = [sys.executable, "examples/moving_averages.py", "--trade"]
        runs = [
            subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            for _ in range(2)
        ]
        sent = [order["order_ref"] for order in paper.book()]
    assert [done.returncode for done in runs] == [0, 0], [done.stdout + done.stderr for done in runs]
    bought = [line for line in runs[0].stdout.splitlines() if line.startswith("buy")]
    assert len(sent) == len(set(sent)) == len(bought), "what the first run sent, and nothing more"
