"""Fills in the journal: once each, corrected, with commissions; and which positions they explain."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.errors import DuplicateClientOrderId
from broker.journal import Journal
from broker.models import Fill, Order, OrderReport, Status
from tests.broker.ordering import request

NOON = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)


def placed(journal: Journal, **changes: Any) -> Order:
    return journal.enter("A1", request(**({"client_order_id": "one"} | changes)))[0]


def fill(order: Order | None = None, **changes: Any) -> Fill:
    values: dict[str, Any] = {
        "id": "aa.bb.01.01",
        "order_id": order.id if order else "",
        "client_order_id": order.client_order_id if order else "",
        "symbol": "AAPL",
        "side": "buy",
        "qty": 2.0,
        "price": 200.0,
        "time": NOON.isoformat(),
        "account_id": "A1",
    }
    return Fill(**(values | changes))


def test_a_fill_told_again_is_no_news(journal: Journal) -> None:
    order = placed(journal)
    assert journal.fills.record(fill(order), execution="aa.bb.01", revision=1) is not None
    assert journal.fills.record(fill(order), execution="aa.bb.01", revision=1) is None
    assert len(journal.fills.recent("A1", None, 10)) == 1


def test_a_correction_takes_the_place_of_what_it_corrects_and_stays(journal: Journal) -> None:
    order = placed(journal)
    journal.fills.record(fill(order, commission=1.0), execution="aa.bb.01", revision=1)
    corrected = fill(order, id="aa.bb.01.02", price=199.0)
    journal.fills.record(corrected, execution="aa.bb.01", revision=2)
    assert journal.fills.record(fill(order), execution="aa.bb.01", revision=1) is None
    [kept] = journal.fills.recent("A1", None, 10)
    assert (kept.id, kept.price, kept.commission) == ("aa.bb.01.02", 199.0, 1.0)


def test_commissions_come_later_and_add_up_in_the_order(journal: Journal) -> None:
    order = placed(journal)
    for number in ("01", "02"):
        journal.fills.record(fill(order, id=f"aa.bb.{number}.01"), execution=f"aa.bb.{number}", revision=1)
    assert journal.get("A1", order.id).commission is None, "not known isn't 0"
    first, second = (
        fill(order, id="aa.bb.01.01", commission=1.0),
        fill(order, id="aa.bb.02.01", commission=0.35),
    )
    assert journal.fills.record(first, execution="aa.bb.01", revision=1) is not None
    assert journal.fills.record(first, execution="aa.bb.01", revision=1) is None
    journal.fills.record(second, execution="aa.bb.02", revision=1)
    assert journal.get("A1", order.id).commission == pytest.approx(1.35)


def test_a_fill_finds_its_order_when_that_is_known_later(journal: Journal) -> None:
    journal.fills.record(fill(commission=1.0))
    order = placed(journal)
    journal.fills.record(fill(order))
    assert [f.id for f in journal.fills.of_order(order.id)] == ["aa.bb.01.01"]
    assert journal.get("A1", order.id).commission == 1.0
    journal.fills.record(fill())
    assert journal.fills.of_order(order.id), "what was known isn't forgotten"


def test_fills_are_listed_newest_first_since_a_moment(journal: Journal) -> None:
    for hour in range(3):
        journal.fills.record(fill(id=f"f{hour}", time=(NOON + timedelta(hours=hour)).isoformat()))
    assert [f.id for f in journal.fills.recent("A1", None, 2)] == ["f2", "f1"]
    assert [f.id for f in journal.fills.recent("A1", NOON + timedelta(hours=1), 10)] == ["f2", "f1"]
    assert journal.fills.recent("A2", None, 10) == []


def test_the_first_comparison_explains_everything_and_later_ones_what_was_filled(journal: Journal) -> None:
    journal.fills.record(fill())
    assert journal.fills.compare("A1", {"AAPL": 10.0, "MSFT": 3.0}) == []
    journal.fills.record(fill(id="later", side="sell", qty=4.0))
    assert journal.fills.compare("A1", {"AAPL": 6.0, "MSFT": 3.0}) == []
    assert journal.fills.compare("A1", {"AAPL": 6.0, "MSFT": 3.0}) == []


def test_what_fills_do_not_explain_is_reported_until_it_is_accepted(journal: Journal) -> None:
    journal.fills.compare("A1", {"AAPL": 10.0})
    journal.fills.record(fill(qty=2.0))
    for _ in range(2):
        [change] = journal.fills.compare("A1", {"AAPL": 15.0}, accept=False)
        assert (change.qty_before, change.qty_expected, change.qty_now) == (10.0, 12.0, 15.0)
    assert journal.fills.compare("A1", {"AAPL": 15.0})
    assert journal.fills.compare("A1", {"AAPL": 15.0}) == []
    [sold] = journal.fills.compare("A1", {})
    assert sold.qty_now == 0.0
    assert journal.fills.compare("A2", {"AAPL": 1.0}) == [], "another account has its own comparison"


def test_a_corrected_quantity_changes_what_is_expected(journal: Journal) -> None:
    journal.fills.compare("A1", {})
    journal.fills.record(fill(qty=2.0), execution="e", revision=1)
    assert journal.fills.compare("A1", {"AAPL": 2.0}) == []
    journal.fills.record(fill(qty=3.0), execution="e", revision=2)
    [change] = journal.fills.compare("A1", {"AAPL": 2.0}, accept=False)
    assert change.qty_expected == 3.0


def test_a_replaced_order_is_still_the_one_that_was_asked_for(journal: Journal) -> None:
    asked = request(client_order_id="one", order_type="limit", limit_price=100.0)
    order, _ = journal.enter("A1", asked)
    journal.begin_change(order.id, {"qty": 7.0})
    assert journal.change_under_way(order.id) == {"qty": 7.0}, "committed before it is sent"
    changed = journal.update(order.id, OrderReport(Status.SUBMITTED, qty=7.0, limit_price=100.0))
    assert changed.qty == 7.0
    assert journal.change_under_way(order.id) is None
    assert journal.enter("A1", asked) == (changed, False)
    with pytest.raises(DuplicateClientOrderId):
        journal.enter("A1", replace(asked, qty=7.0))


def test_an_order_has_its_links(journal: Journal) -> None:
    first = placed(journal)
    held = OrderReport(Status.ACCEPTED)
    leg = journal.adopt("A1", request(client_order_id="leg"), held, parent_id=first.id)
    second, _ = journal.enter("A1", request(client_order_id="two"), replaces=first.id)
    assert journal.attach(first.id, [leg.id]).legs == [leg.id]
    assert (leg.parent_id, second.replaces) == (first.id, first.id)


def test_a_journal_file_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "orders.sqlite"
    order = placed(Journal.in_file(str(path)))
    added = ("stop_price", "legs", "asked", "change", "extended_hours")
    with sqlite3.connect(path) as db:
        for name in added:
            db.execute(f"ALTER TABLE orders DROP COLUMN {name}")
        db.execute("DROP TABLE fills")
    journal = Journal.in_file(str(path))
    assert journal.get("A1", order.id).legs == []
    assert not journal.get("A1", order.id).extended_hours
    journal.fills.record(fill(order))
    new, _ = journal.enter("A1", request(client_order_id="new", order_type="stop", stop_price=5.0))
    assert journal.get("A1", new.id).stop_price == 5.0
