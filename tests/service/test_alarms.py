"""The alerts that were sent, kept for the dashboards of all instances."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from broker.alerts import Alerts, Kind
from broker.service.alarms import KEPT, AlarmStore, alerts
from broker.service.database import make_engine


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url)
    yield made
    made.dispose()


def test_what_is_alerted_in_one_instance_is_seen_in_all_and_holds_no_secret(engine: Engine) -> None:
    sending = Alerts(secrets=["hunter2-hunter2"], kept=AlarmStore(engine).keep)
    for _ in range(2):  # the same news is one alert
        sending.notify(Kind.LIMIT, "max_order_value says hunter2-hunter2", symbol="AAPL", password="x" * 9)
    sending.notify(Kind.KILL_SWITCH, "halted by ada")
    sending.tell("tgram://nobody/here", "ib-demo-1", Kind.LOGIN_FAILED, "a user's own is not the operators'")
    sending.wait()
    found = AlarmStore(engine).recent(10)
    assert [(a.kind, a.text) for a in found] == [
        ("kill_switch", "halted by ada"),
        ("limit", "max_order_value says ***\nsymbol: AAPL\npassword: ***"),
    ]
    assert len(AlarmStore(engine).recent(1)) == 1


def test_old_ones_go(engine: Engine) -> None:
    store = AlarmStore(engine)
    store.keep("limit", "long ago")
    with engine.begin() as db:
        db.execute(update(alerts).values(at=alerts.c.at - KEPT - timedelta(seconds=1)))
    store.keep("limit", "now")
    assert [a.text for a in store.recent(10)] == ["now"]


def test_a_database_that_is_away_keeps_no_alert_from_being_sent() -> None:
    tried = []

    def away(kind: str, text: str) -> None:
        tried.append(text)
        raise OSError

    sending = Alerts(kept=away)
    assert sending.notify(Kind.LIMIT, "one")
    assert sending.notify(Kind.LIMIT, "two")
    sending.wait()
    assert tried == ["one", "two"]
