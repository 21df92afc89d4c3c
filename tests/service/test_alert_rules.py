"""Alert rules against the log lines that the service really writes, so that neither can change alone."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import structlog
from sqlalchemy import Engine

from broker.alerts import Alerts, AlertWatch
from broker.brokers.simulated import SimulatedBroker
from broker.fleet.decide import LogSays, Patience, Probe, Readiness
from broker.fleet.digitalocean import Unavailable
from broker.fleet.enrolment import EnrolmentRefused
from broker.fleet.vault import Vault
from broker.models import EventKind, Order, OrderEvent, PositionChange, Status
from broker.service import logs
from broker.service.metrics import ServiceMetrics
from broker.service.streams import Streams
from broker.service.told_metrics import ToldMetrics
from components.alert_rules import GATEWAY, SERVICE, CountRule, MatchRule, Rule, SilenceRule, fleet
from components.log_metrics import ORDERS, REQUESTS, TOLD, LogMetric
from components.observability import service_lines
from localcloud.providers.gcp.logfilter import compiled
from tests.broker.paper_gateway import eventually
from tests.fleet.conftest import engine, fleet_engine, vault
from tests.fleet.model import Fleet, pem_of, token_of

__all__ = ["engine", "fleet_engine", "vault"]

RULES: dict[str, Rule] = {rule.name: rule for rule in (*SERVICE, *GATEWAY, *fleet(5))}


class Lines:
    """What the service has written, as Cloud Logging makes entries of it."""

    def __init__(self, stream: io.StringIO) -> None:
        self.stream = stream

    def entries(self) -> list[dict[str, Any]]:
        found = []
        for line in self.stream.getvalue().splitlines():
            payload = json.loads(line)
            resource = {"type": "cloud_run_revision", "labels": {"service_name": "ibkr-api"}}
            severity = payload.pop("severity")
            found.append({"resource": resource, "severity": severity, "jsonPayload": payload})
        return found

    def matched(self, name: str) -> list[dict[str, Any]]:
        rule = RULES[name]
        assert isinstance(rule, (CountRule, MatchRule, SilenceRule))
        matches = compiled(service_lines("ibkr-api", rule.filter))
        return [entry["jsonPayload"] for entry in self.entries() if matches(entry)]

    def firing(self) -> set[str]:
        return {n for n, rule in RULES.items() if isinstance(rule, MatchRule) and self.matched(n)}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """The service's logs, configured as it does."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        logs.configure("INFO")
    structlog.configure(cache_logger_on_first_use=False)
    yield Lines(stream)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def world(engine: Engine, vault: Vault) -> Fleet:
    return Fleet(engine, vault)


def tell(world: Fleet) -> None:
    """What the service makes of alarms."""
    alerts = Alerts()
    for kind, said in world.alarms:
        alerts.notify(kind, said)


def test_a_healthy_fleet_keeps_every_rule_quiet(lines: Lines, world: Fleet) -> None:
    account = world.connect()
    world.until(account, "running")
    tell(world)
    assert lines.firing() == set()
    assert len(lines.matched("reconcile-stalled")) >= 3, "passes are heard of"
    moves = [e["jsonPayload"] for e in lines.entries() if e["jsonPayload"]["event"] == "account moved"]
    assert [m["status"] for m in moves][-1] == "running"
    assert {m["account_id"] for m in moves} == {account}


@pytest.mark.parametrize(
    ("probe", "environment", "fires"),
    [
        (Probe(Readiness.NOT_LOGGED_IN, LogSays.REFUSED), "demo", {"droplet-error", "failed-logins"}),
        (Probe(Readiness.NOT_LOGGED_IN, LogSays.SECOND_FACTOR), "live", {"second-factor"}),
        (Probe(Readiness.CERTIFICATE_CHANGED), "demo", {"droplet-error", "certificate-changed"}),
        (Probe(Readiness.SESSION_TAKEN), "paper", {"droplet-error"}),
    ],
)
def test_what_goes_wrong_on_a_droplet_fires_its_rules(
    lines: Lines, world: Fleet, probe: Probe, environment: str, fires: set[str]
) -> None:
    account = world.connect(environment=environment)
    world.until(account, "running")
    world.world.readiness[account] = probe
    world.passes(3)
    tell(world)
    assert lines.firing() == fires
    for name in fires - {"second-factor"}:
        rule = RULES[name]
        assert isinstance(rule, MatchRule)
        assert all(entry[label] for entry in lines.matched(name) for label in rule.labels), "labels exist"


def test_logins_that_come_to_nothing_are_counted_and_page_nobody_one_by_one(
    lines: Lines, world: Fleet
) -> None:
    """IBKR's reset takes every user's login at once."""
    account = world.connect()
    world.until(account, "running")
    world.settings = replace(world.settings, patience=Patience(login=0))
    world.start()
    world.world.readiness[account] = Probe(Readiness.NOT_LOGGED_IN)
    world.until(account, "error", "login_timeout")
    tell(world)
    assert lines.firing() == set()
    assert {line["reason"] for line in lines.matched("login-timeout")} == {"login_timeout"}


def test_a_second_use_of_a_token_fires_and_an_invented_one_does_not(lines: Lines, world: Fleet) -> None:
    account = world.connect()
    world.reconciler.run_pass()
    world.world.proceed(None)
    world.reconciler.run_pass()
    token = token_of(world.world.machines[101].user_data)
    with pytest.raises(EnrolmentRefused):
        world.enroller.enrol(account, "invented", pem_of(101))
    assert lines.firing() == set()
    world.enroller.enrol(account, token, pem_of(101))
    with pytest.raises(EnrolmentRefused):
        world.enroller.enrol(account, token, pem_of(666))
    assert lines.firing() == {"enrolment-token"}
    assert [m["reason"] for m in lines.matched("enrolment-token")] == ["used_token"]
    assert token not in lines.stream.getvalue()


def test_an_unknown_droplet_fires(lines: Lines, world: Fleet) -> None:
    world.world.add_foreign("stack:test", "manager:service")
    world.passes(1)
    tell(world)
    assert lines.firing() == {"unknown-droplet"}


def test_a_pass_that_digitalocean_keeps_from_its_work_is_silence(lines: Lines, world: Fleet) -> None:
    world.world.fail["list"] = [Unavailable(""), Unavailable("")]
    world.passes(2)
    assert lines.matched("reconcile-stalled") == []
    world.passes(1)
    assert len(lines.matched("reconcile-stalled")) == 1


async def test_the_kill_switch_fires(
    lines: Lines, app: object, client_for: Callable[..., httpx.AsyncClient]
) -> None:
    async with client_for("operator") as operator:
        assert (await operator.post("/api/v1/halt", json={"reason": "odd fills"})).status_code == 200
        assert len(lines.matched("kill-switch")) == 1
        assert (await operator.post("/api/v1/resume", json={"reason": "looked"})).status_code == 200
    assert [m["by"] for m in lines.matched("kill-switch")] == ["ada", "ada"]


def test_what_happens_to_orders_fires(lines: Lines) -> None:
    alerts = Alerts()
    order = Order("a" * 32, "AAPL", "buy", 5, "market", Status.UNKNOWN, account_id="DU1")
    alerts.order_event(OrderEvent(EventKind.STATUS, "now", order=order))
    change = PositionChange("AAPL", "DU1", 0.0, 5.0, 7.0)
    alerts.order_event(OrderEvent(EventKind.UNEXPLAINED_POSITION, "now", position=change, message="2 more"))
    assert lines.firing() == {"order"}
    assert len(lines.matched("order")) == 2


def test_a_gateway_that_is_away_is_silence(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = SimulatedBroker()
    monkeypatch.setattr(broker, "name", "ibkr")
    watch = AlertWatch(broker, Alerts(), every=0.01)
    watch.start()
    said = 'jsonPayload.event="broker health" AND jsonPayload.connected='
    away = compiled(said + "false")
    eventually(lambda: any(map(away, lines.entries())), "a disconnected broker's health is logged")
    assert lines.matched("gateway-silent") == []
    broker.connect()
    eventually(lambda: lines.matched("gateway-silent"), "a connected broker's health is logged")
    watch.stop()


def fields_of(metric: LogMetric, entry: dict[str, Any]) -> dict[str, Any]:
    """What a log-based metric takes out of a line, by the label's name; its number as `value`."""
    paths = {**metric.labels, "value": metric.value}
    return {name: entry["jsonPayload"][path.removeprefix("jsonPayload.")] for name, path in paths.items()}


def test_what_the_service_tells_of_itself_becomes_numbers(lines: Lines, world: Fleet) -> None:
    world.connect()
    own = ServiceMetrics(Streams(5, 5, 5))
    ToldMetrics([own.registry]).tell()
    found = [entry for entry in lines.entries() if compiled(service_lines("ibkr-api", TOLD.filter))(entry)]
    told = {taken["name"]: taken["value"] for taken in (fields_of(TOLD, entry) for entry in found)}
    assert told["api_open_streams"] == 0
    assert all(isinstance(value, float) for value in told.values())


async def test_requests_and_orders_become_milliseconds(lines: Lines, trader: httpx.AsyncClient) -> None:
    order = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "market", "client_order_id": "one"}
    assert (await trader.post("/api/v1/connections/default/orders", json=order)).status_code == 201
    assert (await trader.get("/health")).status_code == 200
    for metric in (ORDERS, REQUESTS):
        counted = compiled(service_lines("ibkr-api", metric.filter))
        [entry] = [entry for entry in lines.entries() if counted(entry)]
        taken = fields_of(metric, entry)
        assert taken["status"] == 201
        assert taken["value"] > 0


def test_lines_of_a_pass_carry_the_request_and_the_account(lines: Lines, world: Fleet) -> None:
    account = world.connect()
    with structlog.contextvars.bound_contextvars(request_ids=["abc-1"]):
        world.passes(1)
    moved = [e["jsonPayload"] for e in lines.entries() if e["jsonPayload"]["event"] == "account moved"]
    assert {(m["account_id"], *m["request_ids"]) for m in moved} == {(account, "abc-1")}
