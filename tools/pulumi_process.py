"""Runs the Pulumi CLI: for a person to watch, or for its answer."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from tools.local_cloud import CommandFailed


def watched(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    *,
    quiet: Path | None = None,
    lock: int | None = None,
) -> int:
    """Run a command that the person watches; returns its exit code.

    Ctrl-C asks it to end well, and its end is awaited: what it was doing gets into the state. On a
    terminal the kernel tells both of us; otherwise only this process is told, and passes it on. The
    lock stays held until the command has ended, even if this process is killed.

    `quiet` is a file that its output goes to instead. Raises KeyboardInterrupt, after its end, if it was
    interrupted and didn't succeed all the same.
    """
    interrupted = False
    terminal = sys.stdin.isatty() and quiet is None
    output = quiet.open("ab") if quiet else None
    process = subprocess.Popen(
        argv,
        env=dict(env),
        cwd=cwd,
        stdin=None if terminal else subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        start_new_session=not terminal,
        pass_fds=[] if lock is None else [lock],
    )

    def pass_on(signum: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        print("\nInterrupted: waiting for what is under way to end ...", file=sys.stderr, flush=True)
        if not (terminal and signum == signal.SIGINT):
            process.send_signal(signal.SIGINT)

    before = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        if output:
            output.close()
    if interrupted and code != 0:
        raise KeyboardInterrupt
    return code


def answer(argv: Sequence[str], env: Mapping[str, str], cwd: Path, text: str = "") -> str:
    """Run a command for its answer; `text` is its input. Raises CommandFailed with what it says."""
    result = subprocess.run(argv, env=dict(env), cwd=cwd, input=text, capture_output=True, text=True)
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip()
        raise CommandFailed(f"`{' '.join(argv[:3])}` failed: {said}")
    return result.stdout


def search_path(cli: Path, python: Path) -> dict[str, str]:
    """PATH and VIRTUAL_ENV for the CLI, whose language host uses the checkout's environment."""
    path = os.pathsep.join([str(python.parent), str(cli), os.environ.get("PATH", os.defpath)])
    return {"PATH": path, "VIRTUAL_ENV": str(python.parent.parent)}
