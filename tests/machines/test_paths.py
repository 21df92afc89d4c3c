"""Paths of a machine and where they are here: in arguments, in scripts, and back for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcloud.machines.paths import MachinePaths


@pytest.fixture
def paths(tmp_path: Path, run_folder: Path) -> MachinePaths:
    root = tmp_path / "a folder"
    root.mkdir()
    paths = MachinePaths(root, run_folder)
    paths.prepare()
    return paths


@pytest.mark.parametrize(
    "text",
    [
        "/etc/x",
        "--ini=/etc/x/y.ini",
        "cat </var/log/x",
        '"/opt/a":',
        "-o /srv/a,/mnt/b",
        "/tmp",
        "/dev/disk/by-id/g",
    ],
)
def test_a_machines_path_leads_to_its_disk_and_back(paths: MachinePaths, text: str) -> None:
    here = paths.text(text)
    assert str(paths.disk) in here
    assert " folder" not in here, "a script may not quote it"
    assert paths.restore(here) == text


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/etc/x",
        "$HOME/opt/x",
        "${HOME}/var/x",
        "../run/x",
        "a/etc/b",
        "/usr/bin/etc",
        "/dev/null",
        "/etcetera",
        "/run-parts",
        "s/opt/x/",
    ],
)
def test_what_only_looks_like_one_stays(paths: MachinePaths, text: str) -> None:
    assert paths.text(text) == text


def test_run_leads_to_memory(paths: MachinePaths, run_folder: Path) -> None:
    assert paths.text("/run/a /var/run/b") == f"{run_folder}/a {run_folder}/b"
    assert paths.inside("/run") == run_folder


def test_turning_twice_is_turning_once(paths: MachinePaths) -> None:
    once = paths.text("/etc/x /run/y /tmp/z")
    assert paths.text(once) == once


def test_a_script_is_run_as_a_copy_and_stays_as_it_was_written(paths: MachinePaths) -> None:
    script = paths.inside("/opt/s")
    script.parent.mkdir()
    script.write_text("#!/usr/bin/env python3\nopen('/etc/x')\n")
    script.chmod(0o755)
    paths.know_scripts(["/opt/s"])
    paths.refresh_scripts()
    copy = Path(paths.text("/opt/s"))
    assert copy == paths.script(script) == paths.script(copy)
    assert copy.read_text() == f"#!{paths.own}/bin/python3\nopen('{paths.disk}/etc/x')\n"
    assert "/usr/bin/env python3" in script.read_text()
    assert paths.restore(str(copy)) == "/opt/s"


def test_a_changed_script_is_copied_anew(paths: MachinePaths) -> None:
    script = paths.inside("/opt/s")
    script.parent.mkdir()
    paths.know_scripts(["/opt/s"])
    for text in ("#!/bin/sh\necho 1\n", "#!/bin/sh\necho 2\n"):
        script.write_text(text)
        paths.refresh_scripts()
        assert text.splitlines()[1] in Path(paths.text("/opt/s")).read_text()
    script.unlink()
    paths.refresh_scripts()
    assert not Path(paths.text("/opt/s")).exists()
