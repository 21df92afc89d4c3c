"""What a person watches: interruptions reach the command, its end is awaited, its lock outlives us."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools import pulumi_process
from tools.environments import CHECKOUT
from tools.local_cloud import CommandFailed

# Stands for the engine: says when it is there, and what it was told, in a file.
ENGINE = """
import pathlib, signal, sys
told = pathlib.Path(sys.argv[1])
def end(number, frame):
    with told.open("a") as out:
        print(signal.Signals(number).name, file=out)
    sys.exit(7)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
print("here", flush=True)
signal.pause()
"""
WATCHER = """
import os, pathlib, sys
from tools import pulumi_process
try:
    pulumi_process.watched([sys.executable, "-c", sys.argv[1], sys.argv[2]], os.environ, pathlib.Path("."))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_passed_on_once_and_the_end_awaited(
    tmp_path: Path, number: signal.Signals
) -> None:
    """A second SIGINT would make the engine give up what it was doing, and not write its state."""
    told = tmp_path / "told"
    argv = [sys.executable, "-c", WATCHER, ENGINE, str(told)]
    watcher = subprocess.Popen(
        argv,
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "here\n"
    os.killpg(watcher.pid, number)  # as a terminal, or a CI runner, does
    assert watcher.communicate()[0] == "interrupted\n"
    assert told.read_text() == "SIGINT\n"


def test_quiet_output_goes_to_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    argv = [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"]
    assert pulumi_process.watched(argv, os.environ, tmp_path, quiet=log) == 0
    assert sorted(log.read_text().split()) == ["err", "out"]


def test_a_failed_answer_says_what_the_command_said(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; sys.exit('no stack named dev')"]
    with pytest.raises(CommandFailed, match="no stack named dev"):
        pulumi_process.answer(argv, os.environ, tmp_path)


def test_input_is_given_and_never_in_the_command_line(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; print(len(sys.stdin.read()), len(sys.argv))"]
    assert pulumi_process.answer(argv, os.environ, tmp_path, text="hunter2") == "7 1\n"


def test_the_checkouts_python_comes_before_everything_on_the_path() -> None:
    """The engine's language host runs programs with it."""
    found = pulumi_process.search_path(Path("/cli"), Path("/checkout/.venv/bin/python"))
    assert found["PATH"].startswith("/checkout/.venv/bin:/cli:")
    assert found["VIRTUAL_ENV"] == "/checkout/.venv"
