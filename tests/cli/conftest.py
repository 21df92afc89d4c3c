"""The command line as a program sees it: arguments in, exit code, standard output and error out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.cli.program import main
from tests.broker.alert_receiver import Receiver, listening
from tests.broker.paper_gateway import Paper, paper_gateway

Run = Callable[..., "Done"]


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document of standard output."""
        return dict(json.loads(self.out))

    @property
    def error(self) -> dict[str, Any]:
        """The error within it, whose exit code is the process's."""
        found = dict(self.document["error"])
        assert found["exit_code"] == self.code
        return found


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The simulated broker with a journal of the test's; nothing of the caller's own settings."""
    for name in list(os.environ):
        if name.startswith(("BROKER_", "IBKR_", "IBEAM_", "ALPACA_", "ALERT_", "MARKET_", "RISK_")) or (
            name == "DATABASE_URL"
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BROKER_TYPE", "simulated")
    monkeypatch.setenv("BROKER_JOURNAL", str(tmp_path / "orders.sqlite"))
    monkeypatch.setenv("COLUMNS", "140")
    return monkeypatch


@pytest.fixture
def run(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, through the entry point of `python -m broker`."""

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Done(int(code), captured.out, captured.err)

    return call


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Where alerts go that are sent to its `url`."""
    with listening() as made:
        yield made


@pytest.fixture(scope="module")
def paper() -> Iterator[Paper]:
    """An exchange and a logged-in paper gateway, for all tests of a module."""
    with paper_gateway() as made:
        yield made


@pytest.fixture
def over_gateway(paper: Paper, environment: pytest.MonkeyPatch) -> Paper:
    """The settings lead to the paper gateway."""
    environment.setenv("BROKER_TYPE", "ibkr")
    environment.setenv("IBKR_GATEWAY_HOST", "127.0.0.1")
    environment.setenv("IBKR_GATEWAY_PORT", str(paper.port))
    environment.setenv("IBKR_TRADING_MODE", "paper")
    return paper
