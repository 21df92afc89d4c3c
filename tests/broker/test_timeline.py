"""An order's whole life in the journal: each change once, with its time, and what isn't known is said."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, func, select

from broker import timeline
from broker.errors import JournalUnavailable
from broker.journal import Journal
from broker.journal_rows import FOREIGN
from broker.models import EntryKind, Fill, Order, OrderReport, Status, Timeline
from broker.placement import legs_of
from broker.tables import order_timeline
from tests.broker.ordering import request
from tests.broker.paper_gateway import ROOT

FILL = Fill("e1.01", "", "one", "AAPL", "buy", 5, 190.0, "2026-11-20T15:00:00+00:00", account_id="A1")


def entered(journal: Journal, **changes: object) -> Order:
    return journal.enter("A1", request(client_order_id="one", **changes))[0]


def read(journal: Journal, order: Order) -> Timeline:
    return journal.timeline(journal.get("A1", order.id))


def told(life: Timeline) -> list[str]:
    """Each entry as its status, or its kind."""
    return [entry.status or entry.kind for entry in life.entries]


def lines(journal: Journal) -> int:
    with journal.engine.begin() as db:
        return int(db.execute(select(func.count()).select_from(order_timeline)).scalar_one())


def test_each_change_is_an_entry_and_what_is_repeated_is_none(journal: Journal) -> None:
    order = entered(journal, order_type="limit", limit_price=190.0, placed_by="ada")
    held = OrderReport(Status.ACCEPTED, "PreSubmitted", broker_order_id="7", warnings=("399: not now",))
    for report in (held, held, OrderReport(Status.SUBMITTED, "Submitted"), replace(held, warnings=())):
        journal.update(order.id, report)
    journal.update(order.id, OrderReport(Status.SUBMITTED, "Submitted"))
    partly = OrderReport(Status.PARTIALLY_FILLED, "Submitted", filled_qty=2, filled_price=189.5)
    journal.update(order.id, partly)
    journal.update(order.id, partly)
    life = read(journal, order)
    statuses = ["accepted", "message", "submitted", "accepted", "submitted", "partially_filled"]
    assert told(life) == ["sent", *statuses, "gap"]
    assert "by ada" in life.entries[0].text
    assert (life.entries[1].broker_status, life.entries[2].code) == ("PreSubmitted", "399")
    assert life.entries[2].text == "not now"
    assert (life.entries[6].filled_qty, life.entries[6].filled_price) == (2, 189.5)
    assert "executions of 2" in life.entries[7].text
    assert [entry.at for entry in life.entries[:7]] == sorted(entry.at for entry in life.entries[:7])
    before = lines(journal)
    journal.update(order.id, OrderReport(Status.REJECTED, reason="no", reason_code="201"))
    journal.update(order.id, OrderReport(Status.SUBMITTED))
    assert lines(journal) == before + 1, "a final order isn't reopened, and nothing says that it was"
    last = read(journal, order).entries[-2]
    assert (last.status, last.text, last.code) == ("rejected", "no", "201")


def test_placing_an_order_writes_no_line_before_it_leaves(journal: Journal) -> None:
    bracket = request(client_order_id="b", take_profit_price=220.0, stop_loss_price=180.0)
    journal.enter("A1", bracket, legs=legs_of(bracket))
    assert lines(journal) == 0
    [*orders] = journal.recent("A1", 10)
    assert [told(read(journal, order)) for order in orders] == [["sent"]] * 3


def test_several_reports_are_one_transaction_with_an_entry_and_a_time_each(journal: Journal) -> None:
    order = entered(journal)
    commits: list[object] = []
    event.listen(journal.engine, "commit", commits.append)
    began = datetime.now(UTC) - timedelta(seconds=5)
    done = journal.update(
        order.id,
        OrderReport(Status.SUBMITTED, at=began),
        OrderReport(Status.FILLED, filled_qty=5, filled_price=190.0, at=began + timedelta(seconds=1)),
        OrderReport(Status.SUBMITTED),
    )
    assert done.status == Status.FILLED
    assert len(commits) == 1
    entries = read(journal, order).entries[1:3]
    assert [entry.status for entry in entries] == ["submitted", "filled"]
    assert [entry.at for entry in entries] == [began.isoformat(), (began + timedelta(seconds=1)).isoformat()]


def test_executions_their_costs_and_corrections_are_told_as_they_come(journal: Journal) -> None:
    order = entered(journal)
    journal.update(order.id, OrderReport(Status.FILLED, filled_qty=5, filled_price=190.0))
    fill = replace(FILL, order_id=order.id)
    journal.fills.record(fill, execution="e1", revision=1)
    journal.fills.record(fill, execution="e1", revision=1)
    journal.fills.record(replace(fill, commission=1.0), execution="e1", revision=1)
    journal.fills.record(replace(fill, id="e1.02", price=191.0), execution="e1", revision=2)
    life = read(journal, order)
    assert told(life) == ["sent", "filled", "fill", "commission", "fill"]
    assert life.complete
    first, cost, corrected = life.entries[2:]
    assert first.fill is not None
    assert cost.fill is not None
    assert corrected.fill is not None
    assert (first.fill.price, first.fill.commission, first.fill.time) == (190.0, None, FILL.time)
    assert (cost.fill.commission, corrected.fill.price, corrected.text) == (1.0, 191.0, "corrected")


def test_a_change_is_told_when_it_is_asked_for_and_when_it_is_done_or_refused(journal: Journal) -> None:
    order = entered(journal, order_type="limit", limit_price=190.0)
    journal.update(order.id, OrderReport(Status.SUBMITTED))
    journal.begin_change(order.id, {"limit_price": 191.0})
    journal.update(order.id, OrderReport(Status.SUBMITTED, limit_price=191.0, qty=5))
    journal.end_change(order.id)
    journal.begin_change(order.id, {"limit_price": 1.0})
    journal.end_change(order.id, "a change was refused: too far away (201)")
    life = read(journal, order)
    assert told(life)[2:] == ["change_requested", "changed", "change_requested", "message"]
    [change] = life.entries[3].changes
    assert (change.field, change.before, change.after) == ("limit_price", 190.0, 191.0)
    assert "too far away" in life.entries[5].text
    assert life.complete


def test_an_order_in_anothers_place_says_so_and_the_other_too(journal: Journal) -> None:
    old = entered(journal, order_type="limit", limit_price=190.0)
    asked = request(client_order_id="two", order_type="limit", limit_price=191.0)
    new, _ = journal.enter("A1", asked, replaces=old.id)
    assert new.id in read(journal, old).entries[-1].text
    first = read(journal, new).entries[0]
    assert old.id in first.text
    assert [(change.field, change.before, change.after) for change in first.changes] == [
        ("limit_price", 190.0, 191.0)
    ]


def test_a_cancel_is_told_with_the_moment_at_which_it_was_asked_for(journal: Journal) -> None:
    order = entered(journal)
    journal.update(order.id, OrderReport(Status.PARTIALLY_FILLED, filled_qty=2, filled_price=1.0))
    journal.cancel_asked(order.id)
    journal.cancel_not_sent(order.id)
    journal.update(order.id, OrderReport(Status.PARTIALLY_FILLED, filled_qty=3, filled_price=1.0))
    journal.cancel_asked(order.id)
    # What the broker said before it had the cancel.
    journal.update(order.id, OrderReport(Status.PARTIALLY_FILLED, filled_qty=4, filled_price=1.0))
    journal.update(order.id, OrderReport(Status.SUBMITTED, filled_qty=4, filled_price=1.0))
    journal.update(order.id, OrderReport(Status.CANCELLED))
    entries = read(journal, order).entries
    assert [entry.status for entry in entries[-3:-1]] == ["pending_cancel", "cancelled"]
    assert entries[-3].at <= entries[-2].at
    assert sum(entry.status == "pending_cancel" for entry in entries) == 1


def test_an_unknown_outcome_and_what_became_of_it(journal: Journal) -> None:
    bracket = request(client_order_id="b", take_profit_price=220.0, stop_loss_price=180.0)
    order, _ = journal.enter("A1", bracket, legs=legs_of(bracket))
    journal.mark_unsent(order.id)
    journal.enter("A1", bracket, legs=legs_of(bracket))
    journal.mark_unknown(order.id, "no answer")
    journal.update(order.id, OrderReport(Status.REJECTED, reason="too late"))
    for one in (order.id, *order.legs):
        life = journal.timeline(journal.get("A1", one))
        assert told(life) == ["sent", "recorded", "sent", "unknown", "rejected"]
        assert life.complete
    assert life.entries[-1].text == "its entry was rejected"
    assert life.entries[-2].text == "no answer"


@pytest.mark.parametrize("at_once", [True, False], ids=["adopt_all", "adopt"])
def test_what_others_placed_begins_where_it_was_first_seen(journal: Journal, at_once: bool) -> None:
    asked = request(client_order_id="tws-1", placed_by=FOREIGN)
    seen = OrderReport(Status.SUBMITTED, "Submitted", permanent_id="1", warnings=("399: not now",))
    order = journal.adopt_all("A1", [(asked, seen)])[0] if at_once else journal.adopt("A1", asked, seen)
    if not at_once:
        assert journal.adopt("A1", asked, seen).id == order.id
    journal.update(order.id, OrderReport(Status.CANCELLED))
    life = read(journal, order)
    assert told(life) == ["gap", "submitted", "message", "cancelled"]
    assert "wasn't placed from here" in life.entries[0].text
    assert not life.complete


def test_lines_of_one_order_are_bounded_and_the_newest_stay(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "KEPT", 20)
    monkeypatch.setattr(timeline, "_STEP", 10)
    order = entered(journal, order_type="limit", limit_price=1.0)
    for price in range(2, 60):
        journal.update(order.id, OrderReport(Status.SUBMITTED, limit_price=float(price)))
    assert lines(journal) <= 30
    life = read(journal, order)
    assert life.entries[-1].changes[0].after == 59.0
    assert "earlier entries weren't kept" in life.entries[1].text
    assert sum(entry.kind == EntryKind.GAP for entry in life.entries) == 1


def test_an_older_journal_file_is_brought_up_to_date_and_says_what_it_never_kept(tmp_path: Path) -> None:
    path = tmp_path / "orders.sqlite"
    journal = Journal.in_file(str(path))
    order = entered(journal)
    journal.update(order.id, OrderReport(Status.SUBMITTED))
    when = datetime.now(UTC).isoformat()
    journal.fills.record(replace(FILL, order_id=order.id, qty=2, time=when), execution="e1")
    ended, _ = journal.enter("A1", request(client_order_id="ended"))
    journal.update(ended.id, OrderReport(Status.CANCELLED, reason="by its owner"))
    journal.engine.dispose()
    with sqlite3.connect(path) as db:
        db.execute("drop table order_timeline")
    journal = Journal.in_file(str(path))
    done = OrderReport(Status.FILLED, filled_qty=5, filled_price=190.0)
    journal.update(order.id, done)
    journal.fills.record(replace(FILL, id="e2", order_id=order.id, qty=3), execution="e2")
    life = read(journal, order)
    assert told(life) == ["sent", "fill", "gap", "filled", "fill"]
    assert "It was submitted at last" in life.entries[2].text
    assert not life.complete
    old = read(journal, ended)
    assert told(old) == ["sent", "gap", "cancelled"]
    assert old.entries[-1].text == "by its owner"


CRASH = """
import os, signal, sys
from sqlalchemy import event
from broker.journal import Journal
from broker.models import OrderReport
path, order, when = sys.argv[1:]
journal = Journal.in_file(path)
if when == "before the commit":
    event.listen(journal.engine, "commit", lambda _: os.kill(os.getpid(), signal.SIGKILL))
journal.update(order, OrderReport("submitted"))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("when", "left"), [("before the commit", ["sent"]), ("after it", ["sent", "submitted"])]
)
def test_a_killed_process_leaves_a_status_with_its_line_or_neither(
    tmp_path: Path, when: str, left: list[str]
) -> None:
    path = tmp_path / "orders.sqlite"
    journal = Journal.in_file(str(path))
    order = entered(journal)
    journal.engine.dispose()
    process = subprocess.run(
        [sys.executable, "-c", CRASH, str(path), order.id, when],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    life = read(Journal.in_file(str(path)), order)
    assert (life.order.status, told(life)) == (left[-1], left)
    assert life.complete


def test_a_line_that_cannot_be_written_takes_its_change_back(journal: Journal) -> None:
    order = entered(journal)
    with journal.engine.begin() as db:
        order_timeline.drop(db)
    with pytest.raises(JournalUnavailable):
        journal.update(order.id, OrderReport(Status.SUBMITTED))
    assert journal.get("A1", order.id).status == Status.SENT
