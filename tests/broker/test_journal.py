"""The journal: what is committed before an order leaves, and what a crash leaves behind.

Here over SQLite, as in use as a library; tests/service runs the same journal over PostgreSQL.
A crash is a process that is really killed between two steps.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker import placement
from broker.brokers.simulated import SimulatedBroker
from broker.errors import DuplicateClientOrderId, NotConnected, OrderNotFound, OrderOutcomeUnknown
from broker.journal import Journal
from broker.models import Order, OrderReport, OrderRequest, Status
from broker.placement import NothingKnown, place
from tests.broker.ordering import request
from tests.broker.paper_gateway import ROOT


def entered(journal: Journal, **changes: object) -> Order:
    return journal.enter("A1", request(client_order_id="one", **changes))[0]


def test_the_same_id_and_body_is_the_same_order(journal: Journal) -> None:
    first = entered(journal)
    assert first.status == Status.SENT
    assert journal.enter("A1", request(client_order_id="one")) == (first, False)


@pytest.mark.parametrize(
    "changes", [{"qty": 6}, {"side": "sell"}, {"symbol": "MSFT"}, {"time_in_force": "gtc"}], ids=str
)
def test_the_same_id_with_another_body_is_refused(journal: Journal, changes: dict[str, object]) -> None:
    entered(journal)
    with pytest.raises(DuplicateClientOrderId):
        entered(journal, **changes)


def test_another_account_has_client_order_ids_of_its_own(journal: Journal) -> None:
    first = entered(journal)
    other, _ = journal.enter("A2", request(client_order_id="one", qty=9))
    assert other.id != first.id
    with pytest.raises(OrderNotFound):
        journal.get("A2", first.id)


def test_of_many_threads_one_may_send(journal: Journal) -> None:
    asked = request(client_order_id="one")

    def may_send(_: int) -> bool:
        return journal.enter("A1", asked)[1]

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(may_send, range(16))) == 1
        journal.mark_unsent(entered(journal).id)
        assert sum(threads.map(may_send, range(16))) == 1, "what didn't leave may be sent once more"


def test_a_late_status_does_not_reopen_a_final_order_but_a_fill_is_a_fact(journal: Journal) -> None:
    order = entered(journal)
    journal.update(order.id, OrderReport(Status.CANCELLED))
    assert journal.update(order.id, OrderReport(Status.SUBMITTED)).status == Status.CANCELLED
    filled = journal.update(order.id, OrderReport(Status.FILLED, filled_qty=5, filled_price=10.0))
    assert filled.status == Status.FILLED, "an order can fill while its cancel is on the way"
    assert journal.update(order.id, OrderReport(Status.CANCELLED)).status == Status.FILLED


def test_a_filled_quantity_never_falls(journal: Journal) -> None:
    order = entered(journal)
    journal.update(order.id, OrderReport(Status.PARTIALLY_FILLED, filled_qty=3, filled_price=10.0))
    stale = journal.update(order.id, OrderReport(Status.SUBMITTED, filled_qty=0))
    assert (stale.status, stale.filled_qty, stale.filled_price) == (Status.PARTIALLY_FILLED, 3, 10.0)


def test_an_unknown_outcome_does_not_hide_what_is_known_by_now(journal: Journal) -> None:
    order = entered(journal)
    journal.update(order.id, OrderReport(Status.SUBMITTED))
    journal.mark_unknown(order.id, "no answer")
    assert journal.get("A1", order.id).status == Status.SUBMITTED


def test_reconciliation_is_given_what_left_us_and_is_open(journal: Journal) -> None:
    states = (Status.RECORDED, Status.SENT, Status.SUBMITTED, Status.UNKNOWN, Status.FILLED)
    for number, status in enumerate(states):
        order, _ = journal.enter("A1", request(client_order_id=f"n{number}"))
        if status == Status.RECORDED:
            journal.mark_unsent(order.id)
        else:
            journal.update(order.id, OrderReport(status))
    assert [o.status for o in journal.unsettled("A1")] == [Status.SENT, Status.SUBMITTED, Status.UNKNOWN]


def test_a_journal_file_is_durable_before_the_order_leaves(tmp_path: Path) -> None:
    path = str(tmp_path / "orders.sqlite")
    order = entered(Journal.in_file(path))
    assert Journal.in_file(path).get("A1", order.id) == order


class Wire:
    """What would be the broker's side: counts what is sent, and answers as told."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.sent: list[Order] = []
        self.failure: Exception | None = None

    def place(self, asked: OrderRequest) -> Order:
        return place(
            asked,
            capabilities=SimulatedBroker.capabilities,
            journal=self.journal,
            account=lambda: "A1",
            prepare=lambda order: order.symbol,
            send=self._send,
            settle=lambda order: order,
            note=lambda order, report: self.journal.update(order.id, report),
        )

    def _send(self, order: Order, _instrument: str) -> OrderReport:
        self.sent.append(order)
        assert self.journal.get("A1", order.id).status == Status.SENT, "committed before it leaves"
        if self.failure is not None:
            raise self.failure
        return OrderReport(Status.SUBMITTED, broker_order_id="7")


def test_an_order_is_committed_as_sent_before_it_leaves_and_leaves_once(journal: Journal) -> None:
    wire = Wire(journal)
    asked = request(client_order_id="one")
    assert wire.place(asked).status == Status.SUBMITTED
    assert wire.place(asked).status == Status.SUBMITTED
    assert len(wire.sent) == 1


def test_what_did_not_leave_may_be_sent_by_repeating_the_call(journal: Journal) -> None:
    wire = Wire(journal)
    asked = request(client_order_id="one")
    wire.failure = NotConnected("the socket was closed before the order was written")
    with pytest.raises(NotConnected):
        wire.place(asked)
    wire.failure = None
    assert wire.place(asked).status == Status.SUBMITTED
    assert len(wire.sent) == 2


def test_what_may_have_left_is_never_sent_again(journal: Journal) -> None:
    wire = Wire(journal)
    asked = request(client_order_id="one")
    wire.failure = NothingKnown("no answer")
    for _ in range(3):
        with pytest.raises(OrderOutcomeUnknown):
            wire.place(asked)
    assert len(wire.sent) == 1


CRASH = """
import os, signal, sys
from sqlalchemy import event
from broker.journal import Journal
from broker.placement import place
from broker.brokers.simulated import SimulatedBroker
from tests.broker.ordering import request

path, wire, where = sys.argv[1:]
journal = Journal.in_file(path)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

if where == "before the commit":
    event.listen(journal.engine, "commit", lambda _: die())

def send(order, instrument):
    if where == "between sent and the wire":
        die()
    with open(wire, "a") as line:
        line.write(order.client_order_id + chr(10))
    die()

place(request(client_order_id="one"), capabilities=SimulatedBroker.capabilities, journal=journal,
      account=lambda: "A1", prepare=lambda order: order.symbol, send=send, settle=lambda order: order,
      note=lambda order, report: journal.update(order.id, report))
"""


@pytest.mark.parametrize(
    ("where", "status", "sent"),
    [
        ("before the commit", None, 0),
        ("between sent and the wire", Status.SENT, 0),
        ("after the wire", Status.SENT, 1),
    ],
)
def test_a_killed_process_leaves_no_order_for_certain_or_one_that_is_looked_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str, status: str | None, sent: int
) -> None:
    monkeypatch.setattr(placement, "SAME_ORDER_WAIT", 0.1)  # nobody is sending it any more
    path, wire = tmp_path / "orders.sqlite", tmp_path / "wire"
    wire.touch()
    process = subprocess.run(
        [sys.executable, "-c", CRASH, str(path), str(wire), where],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    journal = Journal.in_file(str(path))
    left = journal.recent("A1", 10)
    assert [order.status for order in left] == ([status] if status else [])
    assert len(wire.read_text().splitlines()) == sent
    after = Wire(journal)
    if status is None:
        assert after.place(request(client_order_id="one")).status == Status.SUBMITTED
        return
    assert journal.unsettled("A1") == left, "reconciliation looks it up"
    after.place(request(client_order_id="one"))
    assert after.sent == [], "it may have left, so repeating the call sends nothing"
