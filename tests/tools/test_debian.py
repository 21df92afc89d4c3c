"""Programs that tests need: found, installed once, or asked for with their packages."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tools import debian
from tools.steps import SetupFailed


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with an apt-get that writes down what it does, and makes programs of packages."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder / "sh", '#!/bin/sh\nexec /bin/sh "$@"\n')
    program(
        folder / "apt-get",
        f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n[ "$1" = install ] || exit 0\n'
        f"printf '#!/bin/sh\\n' > {folder}/wanted\n/bin/chmod 755 {folder}/wanted\n",
    )
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(stat.S_IRWXU)


def test_what_is_missing_is_installed_once(machine: Path) -> None:
    for _ in range(2):
        debian.ensure({"wanted": "its-package", "sh": "dash"}, "a test")
    said = (machine / "said").read_text().splitlines()
    assert said == ["update", "install -y --no-install-recommends its-package"]


def test_without_the_right_the_packages_are_named(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupFailed, match=r"a test needs wanted: install its-package"):
        debian.ensure({"wanted": "its-package"}, "a test")
    assert not (machine / "said").exists()


def test_a_package_without_the_program_is_told(machine: Path) -> None:
    with pytest.raises(SetupFailed, match="other still isn't on PATH"):
        debian.ensure({"other": "its-package"}, "a test")
