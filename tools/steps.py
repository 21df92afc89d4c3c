"""Long-running commands as a person sees them: what is going on, for how long, and how it ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

REFRESH_SECONDS = 1.0
QUIET_SECONDS = 30.0


class SetupFailed(Exception):
    """Setting up can't go on; the message says what was tried and what to do. Shown without a traceback."""


class Progress:
    """One line about a step: rewritten each second on a terminal, else a line now and then."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._detail = self._result = ""
        self._failed = False
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._terminal = sys.stderr.isatty()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Progress":
        if not self._terminal:
            self._print(f"{self._title} ...")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._ended.set()
        self._thread.join()
        failed = "interrupted" if kind is KeyboardInterrupt else "failed"
        outcome = failed if kind or self._failed else "done"
        self._print(f"{self._title}: {outcome} after {self._elapsed()}{self._result}")

    def detail(self, text: str) -> None:
        """What exactly is being done now."""
        self._detail = text.strip()[:60]

    def result(self, text: str, failed: bool = False) -> None:
        """What came of it, told at the end."""
        self._result, self._failed = f", {text}", failed

    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"

    def _tick(self) -> None:
        while not self._ended.wait(REFRESH_SECONDS if self._terminal else QUIET_SECONDS):
            self._print(
                f"{self._title} ... {self._elapsed()}  {self._detail}", end="" if self._terminal else "\n"
            )

    def _print(self, text: str, end: str = "\n") -> None:
        start = "\r\x1b[K" if self._terminal else ""
        print(f"{start}{text}", end=end, file=sys.stderr, flush=True)


def run(
    argv: Sequence[str | Path],
    title: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    keep_open: Sequence[int] = (),
) -> None:
    """Run a command with its progress shown and its output kept back unless it fails.

    `timeout` is in seconds; `keep_open` are file descriptors that the command inherits (locks).
    Raises SetupFailed with the end of the command's output.
    """
    last: deque[str] = deque(maxlen=15)
    with Progress(title) as progress:
        process = subprocess.Popen(
            [str(part) for part in argv],
            env=dict(env) if env is not None else None,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=keep_open,
        )
        deadline = Deadline(process, timeout)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                last.append(line.rstrip())
                progress.detail(line)
            code = process.wait()
        except BaseException:
            end(process)
            process.wait()
            raise
        finally:
            deadline.cancel()
        if code != 0:
            why = f"took longer than {timeout:.0f} s" if deadline.expired else f"ended with code {code}"
            tail = "\n    ".join(last)
            raise SetupFailed(f"{title}: {argv[0]} {why}:\n    {tail}")


class Deadline:
    """Ends a process after some seconds, unless it is cancelled before; None is never."""

    def __init__(self, process: "subprocess.Popen[str]", seconds: float | None) -> None:
        self.expired = False
        self._process = process
        self._timer = threading.Timer(seconds or threading.TIMEOUT_MAX, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Too late is no error."""
        self._timer.cancel()

    def _expire(self) -> None:
        self.expired = True
        end(self._process)


def end(process: subprocess.Popen[str]) -> None:
    """End a command that was started by run(), with everything that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
