"""`make status` and `make logs` over a stack that runs, and that loses its gateway."""

import itertools
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Service, ask, eventually
from tools import logs, status
from tools.local_cloud import CommandFailed
from tools.local_stack import LocalStack


class InRealClouds:
    """What `make status` asks of a stack in real clouds, answered by this one's outputs."""

    name = "staging"

    def __init__(self, stack: LocalStack) -> None:
        self.outputs = stack.outputs

    def resources(self) -> None:
        """Some backends don't tell."""


def kinds(report: status.Report) -> set[str]:
    return {part.kind for part in report.parts}


def test_status_shows_every_part_and_that_the_gateway_is_away(stack: LocalStack, service: Service) -> None:
    report = status.of_local(stack)
    assert report.is_well, status.as_text(report)
    expected = {
        "Service",
        "Revision",
        "Broker",
        "Kill switch",
        "Database",
        "Gateway VM",
        "Reconciler",
        "Droplet",
    }
    assert expected <= kinds(report)
    assert report.resources
    assert "demo-ib-paper-1" in status.as_text(report)
    ask(stack, "kill_unit", name="gce/ibkr-gateway", unit="ibkr-gateway@paper.service")
    try:
        ill = eventually(lambda: status.of_local(stack), lambda now: not now.is_well)
        assert "Broker" in {part.kind for part in ill.parts if part.level is status.Level.BAD}
        assert "Needs attention" in status.as_text(ill)
    finally:
        eventually(service.health, lambda health: health["ok"], 120)
    assert eventually(lambda: status.of_local(stack), lambda now: now.is_well)


def test_status_of_a_real_stack_says_what_needs_a_token(stack: LocalStack, service: Service) -> None:
    def none() -> str:
        raise CommandFailed("TOKEN must hold an operator's token")

    real: Any = InRealClouds(stack)
    report = status.of_real(real, none)
    assert kinds(report) == {"Service", "Gateway VM", "Droplet"}
    assert "TOKEN must hold" in status.as_text(report)
    assert {"Broker", "Reconciler", "Kill switch"} <= kinds(
        status.of_real(real, lambda: stack.token("operator"))
    )
    users = status.of_real(real, lambda: stack.token("user"))
    assert "isn't an operator's" in status.as_text(users)


def test_logs_are_followed_by_short_names(stack: LocalStack, service: Service) -> None:
    names = {name for source in logs.sources(stack) for name in source.names}
    assert {"service", "gateway", "database", "demo-ib-paper-1", "daemon", "exchange"} <= names
    with pytest.raises(CommandFailed, match="service"):
        logs.chosen("nothing", lambda: logs.sources(stack))
    machine = logs.chosen("service", lambda: logs.sources(stack))
    lines = stack.cloud.follow(machine, logs.BEFORE)
    httpx.get(f"{service.url}/api/v1/a-path-of-this-test")
    assert any("a-path-of-this-test" in line for line in itertools.islice(lines, 500))
