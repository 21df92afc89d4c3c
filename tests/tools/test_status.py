"""The table of `make status`, and which states make its exit code 1."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tools import logs, status, summary
from tools.local_cloud import CommandFailed
from tools.real_stack import RealStack
from tools.status import Level, Part, Report

ACCOUNT = {
    "account_id": "ib-demo-1a2b3c4d",
    "status": "running",
    "wanted": "running",
    "reason": "",
    "message": "what to do",
    "since": "2026-11-20T15:00:00Z",
    "droplet_name": "demo-ib-demo-1",
    "user_id": "demo",
}


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ({}, Level.WELL),
        ({"status": "initializing", "reason": "logging_in"}, Level.BUSY),
        ({"status": "error", "reason": "login_failed"}, Level.BAD),
        ({"status": "error", "reason": "login_failed", "wanted": "stopped"}, Level.NOTE),
        ({"status": "stopped", "reason": "hibernated", "wanted": "hibernated"}, Level.OFF),
        ({"wanted": "deleted"}, Level.BUSY),
    ],
)
def test_only_an_account_that_should_run_and_does_not_is_bad(change: dict[str, str], level: Level) -> None:
    part = status.of_account(ACCOUNT | change)
    assert part.level is level
    assert bool(part.remedy) == (part.state == "error")


def report(*parts: Part) -> Report:
    return Report("local", 84, list(parts), {"Service": "http://127.20.191.2:8080"})


def test_columns_are_aligned_and_what_needs_somebody_stands_below() -> None:
    bad = Part("Broker", "default", "link lost", Level.BAD, detail="503", remedy="Look at it.")
    text = status.as_text(report(Part("Service", "x", "ready", Level.WELL, detail="answers"), bad))
    first, second = text.splitlines()[1:3]
    assert first.index("ready") == second.index("link lost")
    assert first.index("answers") == second.index("503")
    assert "Broker default: Look at it." in text
    assert "\x1b" not in text, "this is no terminal"
    assert not report(bad).is_well


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    part = Part("Service", "x", "ready", Level.WELL)
    assert "\x1b[32mready\x1b[0m" in status.as_text(report(part))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in status.as_text(report(part))


def test_one_part_is_found_by_its_name_or_kind() -> None:
    whole = report(status.of_account(ACCOUNT), Part("Gateway VM", "ibkr-gateway", "ailing", Level.BAD))
    assert whole.about("ib-demo-1a2b3c4d").is_well
    assert whole.about("demo-ib-demo-1").is_well
    assert not whole.about("gateway").is_well
    with pytest.raises(CommandFailed, match="ib-demo-1a2b3c4d, ibkr-gateway"):
        whole.about("other")


@pytest.mark.parametrize(
    ("seconds", "said"), [(5, "5 s"), (600, "10 min"), (7200, "2 h"), (400_000, "4 d"), (-5, "0 s")]
)
def test_ages_are_said_roughly(seconds: float, said: str) -> None:
    assert status.ago((datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()) == said


def test_a_revision_that_leaves_at_a_rollout_is_no_failure() -> None:
    former = {"name": "run/ibkr-api/ibkr-api-00001", "software": {"ready": 1, "instances": 1}}
    assert status.of_instance(former | {"status": "STOPPING"}).level is Level.BUSY
    assert status.of_instance(former | {"status": "RUNNING"}).level is Level.WELL
    assert status.of_instance(former | {"status": "TERMINATED"}).level is Level.BAD


def test_a_pass_that_is_overdue_is_bad() -> None:
    last = {"accounts": 1, "moving": 0, "droplets": 1, "problem": ""}
    fleet = {"last_pass": last, "last_pass_at": datetime.now(UTC).isoformat(), "quarantine": []}
    assert status.of_fleet(fleet)[0].level is Level.WELL
    assert status.of_fleet(fleet | {"last_pass_at": "2026-11-20T15:00:00Z"})[0].level is Level.BAD
    assert status.of_fleet(fleet | {"last_pass": last | {"problem": "503"}})[0].level is Level.BAD


def test_a_line_of_the_service_is_readable() -> None:
    line = (
        '2026-11-21T20:48:00.227Z instance-0: {"event": "fleet pass", "seconds": 0.07, "problem": "", '
        '"level": "info", "severity": "INFO", "request_id": "x"}'
    )
    assert logs.readable(line) == "20:48:00.227 instance-0 INFO    fleet pass  seconds=0.07"
    assert logs.readable("2026-11-21T20:48:00.227Z ibeam: [1, 2]").endswith("ibeam: [1, 2]")
    assert logs.readable("Traceback") == "Traceback"


def test_a_table_of_nothing_is_empty() -> None:
    assert summary.table([]) == ""
    assert "`make up` makes it" in status.as_text(Report("local", 0))


def test_logs_of_a_real_stack_are_asked_of_gcloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gcloud is a stand-in that writes down how it is called."""
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    gcloud.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def no_token() -> str:
        raise CommandFailed("no token")

    stack = RealStack("staging")
    logs.of_real(stack, "service", True, no_token)
    logs.of_real(stack, "gateway", False, no_token)
    read, tail, serial = (tmp_path / "called").read_text().splitlines()
    assert read.startswith('logging read resource.type="cloud_run_revision" --limit 100')
    assert tail.startswith("beta logging tail resource.type=")
    assert serial.startswith("compute instances get-serial-port-output ibkr-gateway --zone us-west1-")
    with pytest.raises(CommandFailed, match="service, gateway, and"):
        logs.of_real(stack, "sql", False, no_token)
