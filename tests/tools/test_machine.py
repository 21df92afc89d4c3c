"""What a machine lacks is said at once, each with its remedy; decided on plain facts."""

import sys

import pytest

from tools import machine
from tools.machine import Facts, problems

GOOD = Facts(
    platform="linux",
    machine="x86_64",
    python="/usr/bin/python3",
    python_version=(3, 12),
    git="/usr/bin/git",
    memory=8000,
    checkout_disk=50_000,
    cache_disk=50_000,
    same_disk=True,
)


def test_a_good_machine_has_no_problems() -> None:
    assert problems(GOOD, needs_environment=True, needs_cli=True) == []


def test_all_problems_are_said_at_once() -> None:
    bad = GOOD._replace(python=None, python_version=(3, 14), git=None, memory=100, checkout_disk=100)
    said = problems(bad, needs_environment=True, needs_cli=True)
    assert len(said) == 4
    for word in ("Python 3.14", "git", "memory", "disk"):
        assert any(word in problem for problem in said), (
            f"{word} is missing: people fix one and run into the next"
        )


def test_another_system_is_told_of_the_dev_container_and_not_of_its_memory() -> None:
    said = problems(GOOD._replace(platform="darwin", memory=0), needs_environment=True, needs_cli=True)
    assert len(said) == 1
    assert ".devcontainer" in said[0]


def test_an_old_python_is_told_which_ones_will_do() -> None:
    (said,) = problems(GOOD._replace(python=None, python_version=(3, 9)), False, False)
    assert "Python 3.9" in said
    assert "apt install" in said


def test_memory_for_a_build_is_only_asked_for_where_a_build_may_come() -> None:
    small = GOOD._replace(memory=2000)
    assert problems(small, needs_environment=True, needs_cli=False) == []
    (said,) = problems(small, needs_environment=True, needs_cli=True)
    assert "install the Pulumi CLI yourself" in said


def test_a_full_cache_disk_names_the_variable_that_moves_the_cache() -> None:
    (said,) = problems(GOOD._replace(same_disk=False, cache_disk=100), False, needs_cli=True)
    assert "XDG_CACHE_HOME" in said


def test_disks_that_are_one_must_hold_everything() -> None:
    room = machine.RUNNING_MEGABYTES + machine.ENVIRONMENT_MEGABYTES + machine.CLI_MEGABYTES
    one = GOOD._replace(checkout_disk=room + machine.BUILD_MEGABYTES - 1)
    assert len(problems(one, needs_environment=True, needs_cli=True)) == 1


def test_another_python_is_found_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    monkeypatch.setattr(
        machine.shutil, "which", lambda name: f"/opt/{name}" if name == "python3.12" else None
    )
    assert machine.find_python(version_of=lambda _: (3, 12)) == "/opt/python3.12"


def test_a_shim_that_does_not_run_is_not_taken_for_a_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/opt/{name}")
    assert machine.find_python(version_of=lambda _: None) is None, (
        "pyenv leaves shims of versions that aren't active"
    )


def test_the_cache_folder_is_where_the_person_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert str(machine.cache_folder()) == "/elsewhere/ibkr"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert machine.cache_folder().is_absolute(), "a relative path is invalid by the XDG specification"


def test_this_machine_is_looked_at_without_an_error(tmp_path: pytest.TempPathFactory) -> None:
    facts = machine.look(machine.Path(str(tmp_path)), machine.Path(str(tmp_path)) / "not" / "yet")
    assert facts.memory > 0
    assert facts.same_disk
