"""What `make restore` asks gcloud for, and when for nothing. gcloud is a stand-in that takes notes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.local_cloud import CommandFailed
from tools.real_stack import RealStack
from tools.restore import restore

INSTANCE = "ibkr-instance-0a1b2c3"


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in writes what it is called with."""
    notes = tmp_path / "called"
    notes.touch()
    (tmp_path / "gcloud").write_text(f'#!/bin/sh\necho "$@" >> {notes}\n')
    (tmp_path / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(RealStack, "outputs", lambda stack: {"database": INSTANCE})
    return notes


def test_without_a_backup_they_are_listed(called: Path) -> None:
    restore(RealStack("staging"), "", None, confirmed=False)
    (line,) = called.read_text().splitlines()
    assert line.startswith(f"sql backups list --instance {INSTANCE}")


def test_the_service_is_closed_before_its_database_goes_back(
    called: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restore(RealStack("staging"), "1234", lambda question: INSTANCE, confirmed=False)
    closed, restored = called.read_text().splitlines()
    assert closed.startswith(
        "run services update ibkr-api --region us-west1 --quiet --ingress internal --project"
    )
    assert restored.startswith(f"sql backups restore 1234 --restore-instance {INSTANCE} --quiet --project")
    assert "--ingress all" in capsys.readouterr().out, "how to open it again"


@pytest.mark.parametrize(("backup", "answer"), [("1234", "yes"), ("newest", INSTANCE)])
def test_nothing_is_done_without_the_instances_name_or_for_no_backup(
    called: Path, backup: str, answer: str
) -> None:
    with pytest.raises(CommandFailed):
        restore(RealStack("staging"), backup, lambda question: answer, confirmed=False)
    assert not called.read_text()


def test_nothing_is_done_where_nobody_can_be_asked(called: Path) -> None:
    with pytest.raises(CommandFailed, match="Nothing was changed"):
        restore(RealStack("staging"), "1234", None, confirmed=False)
    assert not called.read_text()
