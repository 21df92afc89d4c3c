"""Alerts: sent by apprise to a real receiver on this machine, and never in the way of trading."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from broker.alert_kinds import FLEET, USERS
from broker.alerts import RESTARTS_WITHIN, Alerts, AlertWatch, Kind, alert_urls
from broker.brokers.simulated import SimulatedBroker
from broker.errors import Halted, LimitExceeded, LiveLocked
from broker.factory import BrokerSettings, build_broker
from broker.fleet.account import message_of
from broker.journal import Journal
from broker.models import EventKind, Health, Order, OrderEvent, OrderReport, PositionChange, Status
from tests.broker.alert_receiver import Receiver, listening
from tests.broker.ordering import request


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as made:
        yield made


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_alert_arrives_with_its_title_text_and_context(receiver: Receiver) -> None:
    alerts = Alerts([receiver.url], source="staging")
    assert alerts.notify(Kind.KILL_SWITCH, "halted by ada: odd fills", account="DU1")
    alerts.wait()
    (found,) = receiver.received
    assert found["title"] == "staging: The kill switch was used"
    assert found["message"] == "halted by ada: odd fills\naccount: DU1"


def test_several_channels_are_all_told_even_if_one_fails(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    alerts = Alerts(["json://127.0.0.1:9/token-of-mine", "nonsense://token-two", receiver.url])
    with caplog.at_level(logging.DEBUG):
        alerts.notify(Kind.LIMIT, "max_order_qty allows 1")
        alerts.wait()
    assert len(receiver.received) == 1
    assert "alert channel 1 (json) failed" in caplog.text
    assert "doesn't understand URL 2 (nonsense)" in caplog.text
    assert "token-of-mine" not in caplog.text, "URLs hold tokens"
    assert "token-two" not in caplog.text


def test_a_receiver_that_refuses_is_logged_and_raises_nothing(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 500
    alerts = Alerts([receiver.url])
    alerts.notify(Kind.LIMIT, "one")
    alerts.wait()
    assert "alert channel 1 (json) failed" in caplog.text
    assert "hook-token-1" not in caplog.text


def test_the_same_news_is_sent_once_until_it_is_time_to_repeat_it(receiver: Receiver) -> None:
    clock = Clock()
    alerts = Alerts([receiver.url], repeat_after=600, clock=clock)
    assert [alerts.notify(Kind.LIMIT, "one", symbol=s) for s in ("AAPL", "AAPL", "MSFT")] == [
        True,
        False,
        True,
    ]
    clock.now = 599.0
    assert not alerts.notify(Kind.LIMIT, "one", symbol="AAPL")
    clock.now = 600.0
    assert alerts.notify(Kind.LIMIT, "one", symbol="AAPL")


def test_a_flood_is_cut_and_what_was_left_out_is_said_afterwards(receiver: Receiver) -> None:
    clock = Clock()
    alerts = Alerts([receiver.url], most_per_hour=3, clock=clock)
    assert sum(alerts.notify(Kind.LIMIT, f"news {n}") for n in range(10)) == 3
    clock.now = 3600.0
    assert alerts.notify(Kind.LIMIT, "later")
    alerts.wait()
    assert [r["message"] for r in receiver.received][-1] == "later\n(7 more alerts were left out)"


def test_a_flood_of_one_kind_hides_no_other(receiver: Receiver) -> None:
    clock = Clock()
    alerts = Alerts([receiver.url], clock=clock)
    told = [alerts.notify(Kind.ENROLMENT_REFUSED, f"account {n}") for n in range(100)]
    assert 0 < sum(told) < 15, "anybody may ask for an enrolment"
    assert alerts.notify(Kind.CERTIFICATE_CHANGED, "account ib-live-1")
    clock.now = 3600.0
    assert alerts.notify(Kind.ENROLMENT_REFUSED, "account 101")
    alerts.wait()


def test_an_alert_says_how_bad_it_is_and_what_to_do(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    alerts = Alerts([receiver.url])
    alerts.notify(Kind.SECOND_FACTOR, "approve the login on your phone")
    alerts.notify(Kind.UNKNOWN_DROPLET, "droplet 7 has our tags")
    alerts.notify("something_new", "look at it")
    alerts.wait()
    assert [r["type"] for r in receiver.received] == ["warning", "failure", "warning"]
    assert "python -m broker.fleet quarantine" in receiver.received[1]["message"]
    logged = [(r.levelname, vars(r)["alert"]) for r in caplog.records if "alert" in vars(r)]
    assert logged == [
        ("WARNING", "second_factor"),
        ("ERROR", "unknown_droplet"),
        ("WARNING", "something_new"),
    ]


def test_the_reasons_that_people_are_told_of_are_reasons() -> None:
    for reason in FLEET:
        assert message_of("error", reason) != message_of("error", ""), reason
    assert USERS <= FLEET


def test_a_slow_receiver_holds_nobody_up_and_a_full_queue_is_counted(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.alerts.QUEUED_AT_MOST", 2)
    receiver.slow.clear()
    alerts = Alerts([receiver.url])
    told = [alerts.notify(Kind.LIMIT, f"news {n}") for n in range(6)]  # returns while nothing is answered
    assert told[:2] == [True, True]
    assert told.count(True) <= 3
    receiver.slow.set()
    alerts.wait()
    assert len(receiver.received) == told.count(True)


def test_secrets_are_blanked_wherever_they_stand(receiver: Receiver) -> None:
    alerts = Alerts([receiver.url], secrets=["hunter2-secret", ""])
    alerts.notify(
        Kind.OUTCOME_UNKNOWN,
        f"failed with hunter2-secret at postgresql://user:pw@host/db and {receiver.url}",
        api_key="abc",
        account="DU1",
    )
    alerts.wait()
    (found,) = receiver.received
    for secret in ("hunter2", ":pw@", "hook-token-1", "abc"):
        assert secret not in found["message"]
    assert "account: DU1" in found["message"]


def test_what_cannot_be_told_raises_nothing(receiver: Receiver) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    alerts = Alerts([receiver.url])
    assert not alerts.notify(Kind.LIMIT, "one", order=Unprintable())


def test_without_urls_alerts_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    alerts = Alerts()
    assert alerts.notify(Kind.LIMIT, "one")
    alerts.wait()
    assert "alert limit: one" in caplog.text


def test_urls_are_read_with_commas_and_white_space_between_them() -> None:
    found = alert_urls(" mailto://u:p@x.org?to=a@x.org,b@x.org, tgram://t/1\n json://h/ ")
    assert found == ("mailto://u:p@x.org?to=a@x.org,b@x.org", "tgram://t/1", "json://h/")
    assert alert_urls("  ") == ()


def test_order_events_refusals_and_a_waiting_login_are_alerts(receiver: Receiver) -> None:
    alerts = Alerts([receiver.url])
    order = Order("a" * 32, "AAPL", "buy", 5, "market", Status.UNKNOWN, account_id="DU1")
    change = PositionChange("AAPL", "DU1", 0.0, 5.0, 7.0)
    alerts.order_event(OrderEvent(EventKind.STATUS, "now", order=order))
    order.status = Status.FILLED
    alerts.order_event(OrderEvent(EventKind.STATUS, "now", order=order))
    alerts.order_event(OrderEvent(EventKind.UNEXPLAINED_POSITION, "now", position=change, message="2 more"))
    alerts.refused(LimitExceeded("max_order_qty", 5, 1), request(), "DU1")
    alerts.refused(LimitExceeded("max_order_qty", 6, 1), request(), "DU1")
    alerts.refused(LiveLocked("locked: run `make verify`"), request(), "DU1")
    alerts.refused(Halted(None, "ada", "odd fills"), request(), "DU1")
    alerts.health(Health(False, "second_factor", "then", "confirm on the phone", second_factor=True))
    alerts.health(Health(False, "second_factor", "then", "confirm on the phone", second_factor=True))
    alerts.health(Health(True, "connected", "then"))
    alerts.wait()
    assert [r["title"] for r in receiver.received] == [
        "An order's outcome is unknown",
        "A position changed without an explanation",
        "A limit refused an order",
        "A limit refused an order",
        "The broker's login waits for the second factor",
    ]


def test_a_live_login_that_is_away_for_longer_than_a_restart_may_wait_for_its_second_factor(
    receiver: Receiver,
) -> None:
    """IB Gateway says nothing of it, and a nightly restart isn't worth waking anybody for."""
    alerts = Alerts([receiver.url])

    def away(seconds: float, second_factor: bool) -> Health:
        since = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
        return Health(False, "no_api", since, "no API answers", second_factor=second_factor)

    alerts.health(away(60, True))
    alerts.health(away(100_000, False))
    alerts.wait()
    assert receiver.received == []
    alerts.health(away(RESTARTS_WITHIN + 1, True))
    alerts.wait()
    [found] = receiver.received
    assert found["title"] == "The broker's login waits for the second factor"
    assert "may wait" in found["message"]
    assert "no API answers" in found["message"]


def test_an_order_that_is_never_answered_is_told_of_once_by_the_journal(receiver: Receiver) -> None:
    alerts = Alerts([receiver.url])
    journal = Journal.in_file(":memory:")
    build_broker(BrokerSettings("simulated"), journal, alerts)
    order, _ = journal.enter("DU1", request(client_order_id="one"))
    journal.mark_unknown(order.id, "no answer")
    journal.mark_unknown(order.id, "no answer")
    journal.update(order.id, OrderReport(Status.UNKNOWN))
    alerts.wait()
    (found,) = receiver.received
    assert found["title"] == "An order's outcome is unknown"
    assert order.id in found["message"]


def test_an_alert_that_fails_leaves_the_journal_as_it_is() -> None:
    def broken(_order: Order) -> None:
        raise RuntimeError("the alert channel is broken")

    journal = Journal.in_file(":memory:")
    journal.outcome_unknown = broken
    order, _ = journal.enter("DU1", request(client_order_id="one"))
    journal.mark_unknown(order.id, "no answer")
    assert journal.get("DU1", order.id).status == Status.UNKNOWN


def test_a_watch_sees_a_login_that_waits_and_survives_a_broker_that_fails(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = SimulatedBroker()
    broker.connect()
    waits = Health(False, "second_factor", "then", "phone", second_factor=True)
    answers: list[Health | Exception] = [RuntimeError("odd"), waits]
    asked = threading.Event()

    def health() -> Health:
        answer = answers.pop(0) if answers else Health(True, "connected", "then")
        if not answers:
            asked.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(broker, "health", health)
    alerts = Alerts([receiver.url])
    watch = AlertWatch(broker, alerts, every=0.01)
    watch.start()
    assert asked.wait(10)
    while not receiver.received:
        alerts.wait()
    watch.stop()
    assert receiver.received[0]["title"] == "The broker's login waits for the second factor"
