"""Nothing half-made is ever taken for complete, and two at once don't meddle with each other."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import cache
from tools.environments import CHECKOUT


def python(code: str) -> "subprocess.Popen[str]":
    """Run code that uses the tools in a process of its own."""
    pipe = subprocess.PIPE
    argv = [sys.executable, "-c", code]
    return subprocess.Popen(argv, cwd=CHECKOUT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_folder_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "1.0"
    with cache.made_complete(final) as draft:
        (draft / "tool").write_text("x")
        assert not final.exists()
    assert (final / "tool").read_text() == "x"
    assert [entry.name for entry in tmp_path.iterdir()] == ["1.0"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with cache.made_complete(tmp_path / "1.0") as draft:
            (draft / "tool").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_attempt_left_is_removed_by_the_next(tmp_path: Path) -> None:
    leftover = tmp_path / ".1.0.abcdef"
    leftover.mkdir()
    (leftover / "tool").write_text("half")
    with cache.made_complete(tmp_path / "1.0"):
        assert not leftover.exists()


def test_the_lock_is_kept_by_a_child_that_outlives_its_killed_parent(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    parent = f"""
import os, pathlib, subprocess
from tools import cache
with cache.exclusive(pathlib.Path({str(lock)!r}), "x") as held:
    subprocess.Popen(["cat"], stdin=0, stdout=subprocess.DEVNULL, pass_fds=[held])
    print("held", flush=True)
    os.kill(os.getpid(), 9)
"""
    follower = f"""
import pathlib
from tools import cache
with cache.exclusive(pathlib.Path({str(lock)!r}), "the first"):
    print("mine", flush=True)
"""
    process = python(parent)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"
    process.wait()
    next_one = python(follower)
    assert next_one.stderr is not None
    assert next_one.stderr.readline() == "Waiting for the first to end ...\n"
    process.stdin.close()  # `cat` ends, and with it the lock
    assert next_one.communicate()[0] == "mine\n"


def test_one_at_a_time(tmp_path: Path) -> None:
    lock, trace = tmp_path / "lock", tmp_path / "trace"
    worker = f"""
import pathlib
from tools import cache
trace = pathlib.Path({str(trace)!r})
with cache.exclusive(pathlib.Path({str(lock)!r}), "x"):
    for sign in "()":
        with trace.open("a") as out:
            out.write(sign)
"""
    workers = [python(worker) for _ in range(4)]
    assert [process.wait() for process in workers] == [0] * 4
    assert trace.read_text() == "()" * 4
