"""Speaking to the daemon from outside: starting, stopping, asking. Used by the command line and by tools."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from localcloud.daemon import is_running

_START_SECONDS = 60
_STOP_SECONDS = 45
_LOOK_EVERY_SECONDS = 0.02


class DaemonError(Exception):
    """The daemon refused, could not be started, or doesn't run; the message says which."""


class Daemon:
    """The daemon of one home folder, running or not."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def about(self) -> dict[str, Any]:
        """The content of daemon.json. Raises `DaemonError` when the daemon doesn't run."""
        try:
            found: dict[str, Any] = json.loads((self.home / "daemon.json").read_text())
        except (OSError, ValueError):
            raise DaemonError("the local cloud is not running (start it: localcloud start)") from None
        return found

    def running(self) -> bool:
        """Whether the daemon runs."""
        return is_running(self.home)

    def start(self, network: str | None = None, images: Mapping[str, str] | None = None) -> bool:
        """Start the daemon and wait until it is ready; False when it ran already.

        Raises `DaemonError` with the reason when it doesn't come up.
        """
        if self.running():
            self._wait_for_announcement()
            if network and self.about()["network"] != network:
                running = self.about()["network"]
                raise DaemonError(
                    f"the local cloud in {self.home} runs with network {running}; stop it first"
                )
            if images:
                self.call("images", **images)
            return False
        line = self._spawn(network, images or {})
        if "already running" in line:  # somebody else was faster by a moment
            self._wait_for_announcement()
            return False
        if line != "ready":
            raise DaemonError(line.removeprefix("error: ") or f"it did not start; see {self.log}")
        return True

    def stop(self) -> bool:
        """Stop the daemon and all it runs, and wait for the end; False when it didn't run."""
        if not self.running():
            return False
        self._wait_for_announcement()
        pid = int(self.about()["pid"])
        try:
            self.call("stop")
        except DaemonError:
            os.kill(pid, signal.SIGTERM)
        if not self._wait_until(lambda: not _alive(pid), _STOP_SECONDS):
            os.kill(pid, signal.SIGKILL)  # its warden clears up
            self._wait_until(lambda: not _alive(pid), _STOP_SECONDS)
        return True

    def call(self, method: str, **params: Any) -> Any:
        """Ask the daemon. Raises `DaemonError` with its refusal."""
        with self.open(method, **params) as connection:
            return connection.result

    def open(self, method: str, **params: Any) -> Connection:
        """Ask, and keep the connection for what follows the answer (`tunnel`, `logs`)."""
        return Connection(self.about()["admin_socket"], method, params)

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.home / "logs" / "daemon.log"

    def _spawn(self, network: str | None, images: Mapping[str, str]) -> str:
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.home / "logs").mkdir(exist_ok=True, mode=0o700)
        reading, writing = os.pipe()
        argv = [sys.executable, "-m", "localcloud", "--home", str(self.home.resolve())]
        argv += ["--network", network] if network else []
        argv += ["serve", "--ready-fd", str(writing)]
        for name, folder in images.items():
            argv += ["--image", f"{name}={folder}"]
        package = Path(__file__).resolve().parent.parent
        handle = os.open(self.home / "logs" / "daemon.err", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                pass_fds=(writing,),
                start_new_session=True,
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(package)},
            )
        finally:
            os.close(handle)
            os.close(writing)
        with os.fdopen(reading) as answer:
            return answer.readline().strip()

    def _wait_for_announcement(self) -> None:
        if not self._wait_until((self.home / "daemon.json").exists, _START_SECONDS):
            raise DaemonError(f"the local cloud is starting, but not getting ready; see {self.log}")

    def _wait_until(self, true: Any, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                return False
            time.sleep(_LOOK_EVERY_SECONDS)
        return True


def _alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended but was not yet collected doesn't."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class Connection:
    """One request to the daemon and its answer; what comes after it can be read from `socket`."""

    def __init__(self, path: str, method: str, params: Mapping[str, Any]) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.connect(path)
            self.socket.sendall(json.dumps({"method": method, "params": params}).encode() + b"\n")
            answer = json.loads(self._line())
        except (OSError, ValueError):
            self.socket.close()
            raise DaemonError("the local cloud does not answer (see: localcloud status)") from None
        if "error" in answer:
            self.socket.close()
            raise DaemonError(answer["error"]["message"])
        self.result: Any = answer["result"]

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def stream(self) -> Iterator[bytes]:
        """What the daemon sends after its answer, until it closes."""
        while data := self.socket.recv(65_536):
            yield data

    def _line(self) -> bytes:
        """One byte at a time: what follows the line belongs to the tunnel."""
        line = b""
        while not line.endswith(b"\n"):
            byte = self.socket.recv(1)
            if not byte:
                raise OSError("closed")
            line += byte
        return line
