"""Paper or live, the live lock, and the kill switch of a journal in a file. PostgreSQL: tests/service."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from broker.brokers.simulated import SimulatedBroker
from broker.errors import (
    BrokerError,
    Halted,
    InvalidRequest,
    JournalUnavailable,
    LiveLocked,
    PaperLiveMismatch,
)
from broker.factory import BrokerSettings
from broker.journal import Journal
from broker.models import OrderReport, Status
from broker.risk.guard import Guard
from broker.risk.limits import PAPER
from broker.risk.live import Gateway, record_verification, verification_days
from broker.risk.modes import Declared, account_mode, agreed_mode
from broker.risk.switch import KillSwitch
from broker.risk.wiring import gateway
from tests.broker.ordering import request


@pytest.mark.parametrize(
    ("declared", "account", "mode"),
    [
        (Declared("ibkr", "paper", 4002), "DU1234567", "paper"),
        (Declared("ibkr", "paper", 7497), "DF1234567", "paper"),
        (Declared("ibkr", "live", 4001), "U1234567", "live"),
        (Declared("ibkr", "live", 7496), "F1234567", "live"),
        (Declared("ibkr", "paper", 14002), "DU1234567", "paper"),  # a forwarded port tells nothing
        (Declared("ibkr", "", 4002), "DU1234567", "paper"),
        (Declared("ibkr", "", 12345), "U1234567", "live"),
        (Declared("client_portal", "live"), "U1234567A", "live"),
        (Declared("alpaca", "paper"), "PA3ABCDEFGHI", "paper"),
        (Declared("alpaca", "live", endpoint="https://api.alpaca.markets"), "123456789", "live"),
        (Declared("simulated"), "SIM-1", "paper"),
    ],
    ids=str,
)
def test_what_agrees_is_one_mode(declared: Declared, account: str, mode: str) -> None:
    assert agreed_mode(declared, account) == mode


@pytest.mark.parametrize(
    ("declared", "account", "said"),
    [
        (Declared("ibkr", "paper", 4002), "U1234567", "account disagrees with declared mode and port"),
        (Declared("ibkr", "paper", 4001), "DU1234567", "port disagrees with declared mode and account"),
        (Declared("ibkr", "live", 4002), "DU1234567", "declared mode disagrees with port and account"),
        (Declared("ibkr", "live", 4001), "DU1234567", "account disagrees with declared mode and port"),
        (Declared("ibkr", "", 4001), "DU1234567", "port disagrees with account"),
        (Declared("ibkr", "paper", 14002), "F1234567", "declared mode disagrees with account"),
        (Declared("ibkr", "paper", 4002), "X1234567", "doesn't tell whether it is paper or live"),
        (Declared("ibkr", "paper", 4002), "DUX", "doesn't tell"),
        (Declared("alpaca", "paper"), "123456789", "declared mode disagrees with account"),
        (
            Declared("alpaca", "paper", endpoint="https://api.alpaca.markets"),
            "PA3ABCDEFGHI",
            "endpoint disagrees with declared mode and account",
        ),
        (Declared("alpaca", "live"), "PA3ABCDEFGHI", "declared mode disagrees with account"),
        (Declared("alpaca", "paper"), "e6fe16f3-64a4-4921-8928-cadf02f92f98", "doesn't tell"),
    ],
    ids=str,
)
def test_a_disagreement_names_what_disagrees(declared: Declared, account: str, said: str) -> None:
    with pytest.raises(PaperLiveMismatch, match=said):
        agreed_mode(declared, account)


def test_another_brokers_account_name_says_nothing() -> None:
    assert account_mode("alpaca", "DU1234567") is None
    assert account_mode("ibkr", "PA3ABCDEFGHI") is None


GATEWAY = Gateway("ibkr", "10.0.0.5:4001")
RESULTS = {"account is read": True, "an order far away is placed and cancelled": True}


@pytest.fixture
def switch(journal: Journal) -> KillSwitch:
    return KillSwitch(journal.engine, environment={})


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def traded(journal: Journal, declared: Declared, account: str, clock: Clock) -> Callable[[], object]:
    """Places an order through a guarded broker whose account has this name, a new one at each call."""
    guard = Guard(journal, declared, GATEWAY, PAPER, clock=clock)
    broker = SimulatedBroker(journal, account=account, guard=guard, clock=clock)
    guard.attach(broker)
    broker.connect()
    return lambda: broker.place_order(request(qty=1, client_order_id=uuid.uuid4().hex))


@pytest.fixture
def live(journal: Journal, clock: Clock) -> Callable[[], object]:
    return traded(journal, Declared("ibkr", "live", 4001), "U1", clock)


def test_live_trading_is_locked_until_that_very_gateway_was_verified(
    live: Callable[[], object], journal: Journal, clock: Clock
) -> None:
    with pytest.raises(LiveLocked, match=r"never verified; run `make verify STACK="):
        live()
    for other in (
        Gateway("ibkr", "10.0.0.6:4001"),
        Gateway("ibkr", "10.0.0.5:4002"),
        Gateway("alpaca", "10.0.0.5:4001"),
    ):
        assert record_verification(journal, "U1", other, "ada", RESULTS, clock)
    assert record_verification(journal, "U2", GATEWAY, "ada", RESULTS, clock)
    with pytest.raises(LiveLocked, match="never verified"):
        live()
    assert record_verification(journal, "U1", GATEWAY, "ada", RESULTS, clock)
    live()


def test_a_verification_expires(live: Callable[[], object], journal: Journal, clock: Clock) -> None:
    record_verification(journal, "U1", GATEWAY, "ada", RESULTS, clock)
    clock.now += timedelta(days=30)
    live()
    clock.now += timedelta(seconds=1)
    with pytest.raises(LiveLocked, match="holds for 30 days"):
        live()


def test_a_failed_or_empty_verification_locks_again(
    live: Callable[[], object], journal: Journal, clock: Clock
) -> None:
    record_verification(journal, "U1", GATEWAY, "ada", RESULTS, clock)
    assert not record_verification(journal, "U1", GATEWAY, "ada", RESULTS | {"fills are read": False}, clock)
    with pytest.raises(LiveLocked, match=r"failed \(fills are read\)"):
        live()
    assert not record_verification(journal, "U1", GATEWAY, "ada", {}, clock)
    with pytest.raises(LiveLocked, match="no checks"):
        live()


def test_paper_needs_no_verification(journal: Journal, clock: Clock) -> None:
    paper = Declared("ibkr", "paper", 4002)
    traded(journal, paper, "DU1", clock)()
    with pytest.raises(PaperLiveMismatch):
        traded(journal, paper, "U1", clock)()


def test_days_of_a_verification_are_checked() -> None:
    assert verification_days({"LIVE_VERIFICATION_DAYS": "7"}) == 7
    with pytest.raises(BrokerError, match="LIVE_VERIFICATION_DAYS must be a whole number"):
        verification_days({"LIVE_VERIFICATION_DAYS": "0"})


def test_a_halt_is_kept_with_who_when_and_why(tmp_path: Path) -> None:
    path = str(tmp_path / "orders.sqlite")
    switch = KillSwitch(Journal.in_file(path).engine, environment={})
    assert not switch.state().halted
    switch.halt("ada", "odd\nfills")
    again = KillSwitch(Journal.in_file(path).engine, environment={})
    assert (again.state().halted, again.state().by, again.state().reason) == (True, "ada", "odd fills")
    again.halt("bob", "me too")
    assert again.state().by == "ada", "the first halt is the one to be lifted"
    again.resume("bob", "looked at it")
    assert not switch.state().halted, "all processes that share the journal see it"
    said = [(c["action"], c["by"], c["reason"]) for c in switch.changes()]
    assert said == [
        ("resume", "bob", "looked at it"),
        ("halt", "bob", "me too"),
        ("halt", "ada", "odd fills"),
    ]


@pytest.mark.parametrize(("by", "reason"), [("", "why"), ("ada", " \n")])
def test_a_halt_without_a_person_or_a_reason_is_refused(switch: KillSwitch, by: str, reason: str) -> None:
    with pytest.raises(InvalidRequest):
        switch.halt(by, reason)
    assert not switch.state().halted


def test_the_journal_itself_stops_orders_even_of_a_broker_without_a_guard(
    journal: Journal, switch: KillSwitch
) -> None:
    broker = SimulatedBroker(journal)
    broker.connect()
    working = broker.place_limit_order("AAPL", 1, "buy", 1.0)
    switch.halt("ada", "odd fills")
    with pytest.raises(Halted) as refused:
        broker.place_order(request(client_order_id="one"))
    assert (refused.value.by, refused.value.reason) == ("ada", "odd fills")
    assert refused.value.since is not None
    with pytest.raises(Halted):
        journal.begin_change(working.id, {"qty": 2})
    assert broker.cancel_order(working.id), "cancels still work"
    assert journal.find("SIM-1", "one") is None, "an order that may not leave isn't entered"
    switch.resume("ada", "looked at it")
    assert broker.place_order(request(client_order_id="one")).status == "filled"


def test_what_is_under_way_at_the_halt_is_named(journal: Journal, switch: KillSwitch) -> None:
    order, _ = journal.enter("A1", request(client_order_id="one"))
    assert switch.halt("ada", "odd fills").under_way == [order.id]


def test_orders_that_the_broker_shows_are_taken_over_while_halted(
    journal: Journal, switch: KillSwitch
) -> None:
    switch.halt("ada", "odd fills")
    adopted = journal.adopt("A1", request(client_order_id="theirs"), OrderReport(Status.SUBMITTED))
    assert adopted.status == Status.SUBMITTED


def test_the_environment_and_a_file_halt_as_well(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broker = SimulatedBroker(journal)
    broker.connect()
    file = tmp_path / "halt"
    monkeypatch.setenv("BROKER_HALT_FILE", str(file))
    monkeypatch.setenv("BROKER_HALT", "0")
    assert broker.place_order(request()).status == "filled"
    file.write_text("odd fills\nand more")
    with pytest.raises(Halted, match=r"odd fills$"):
        broker.place_order(request())
    file.write_text("")
    with pytest.raises(Halted):
        broker.place_order(request())
    state = KillSwitch(journal.engine).resume("ada", "looked at it")
    assert (state.halted, state.source) == (True, "file"), "it is lifted where it was set"
    file.unlink()
    monkeypatch.setenv("BROKER_HALT", "maintenance")
    with pytest.raises(Halted, match="BROKER_HALT: maintenance"):
        broker.place_order(request())
    monkeypatch.delenv("BROKER_HALT")
    assert broker.place_order(request()).status == "filled"


def test_a_switch_that_cannot_be_read_stops_orders(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broker = SimulatedBroker(journal)
    broker.connect()
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("BROKER_HALT_FILE", os.fspath(tmp_path / "folder"))
    with pytest.raises(Halted, match="can't be read"):
        broker.place_order(request())
    monkeypatch.delenv("BROKER_HALT_FILE")
    with journal.engine.begin() as db:
        db.execute(text("drop table trading_switches"))
    with pytest.raises(JournalUnavailable):
        broker.place_order(request())
    assert broker.get_positions() == []
    with pytest.raises(JournalUnavailable):
        KillSwitch(journal.engine).halt("ada", "odd fills")


def test_a_gateway_is_its_broker_and_address_as_the_settings_name_them() -> None:
    settings = [
        BrokerSettings("ibkr", gateway_host="10.0.0.5", gateway_port=4001),
        BrokerSettings("ibkr", gateway_host="10.0.0.5", gateway_port=4002),
        BrokerSettings("ibeam", ibeam_url="https://10.0.0.7:5000"),
        BrokerSettings("ibeam", ibeam_url="https://10.0.0.8:5000"),
        BrokerSettings("alpaca"),
        BrokerSettings("alpaca", alpaca_paper=False),
        BrokerSettings("alpaca", alpaca_endpoint="https://proxy.example"),
        BrokerSettings("simulated"),
    ]
    assert len({gateway(s).fingerprint for s in settings}) == len(settings)
    other_client = BrokerSettings("ibkr", gateway_host="10.0.0.5", gateway_port=4001, client_id=9)
    assert gateway(other_client).fingerprint == gateway(settings[0]).fingerprint, (
        "whoever verifies uses a client id of its own"
    )
