"""Starts and ends the processes of machines, and knows which machine a process belongs to.

Each process leads a session of its own, so that it can be ended with everything it started, and so
that the network can say whose a socket is. None outlives the daemon: see `launch` and `warden`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from localcloud import warden

_HERE = Path(__file__).parent
_LOG_LIMIT_BYTES = 5_000_000
_READ_BYTES = 65_536


def base_environment() -> dict[str, str]:
    """What every process gets: the way to this interpreter, and nothing else of the person's shell."""
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": "/",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }


def module_environment() -> dict[str, str]:
    """What `python -m localcloud...` needs to find this package from any folder."""
    return {"PYTHONPATH": str(_HERE.parent)}


class LogFile:
    """A log of bounded size: when it is full it becomes `NAME.1` and a new one is begun."""

    def __init__(self, path: Path, limit: int = _LOG_LIMIT_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._limit = limit

    def write(self, source: str, text: str) -> None:
        """Append lines, each with the time (UTC) and who said it."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        lines = "".join(f"{stamp}Z {source}: {line}\n" for line in text.splitlines())
        if self.path.exists() and self.path.stat().st_size + len(lines) > self._limit:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "a") as file:
            file.write(lines)


class Process:
    """A running program of a machine. Ending it ends whatever it started, too."""

    def __init__(self, supervisor: Supervisor, popen: subprocess.Popen[bytes], name: str) -> None:
        self.pid = popen.pid
        self.name = name
        self._popen = popen
        self._supervisor = supervisor
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def returncode(self) -> int | None:
        """Exit status once it has ended; negative is the signal that ended it."""
        return self._popen.returncode

    async def wait(self) -> int:
        """Wait until it has ended; the exit status."""
        return await asyncio.shield(self._ended)

    def on_exit(self, callback: Callable[[int], None]) -> None:
        """Have `callback` called with the exit status when it ends (soon, if it has ended)."""
        self._ended.add_done_callback(lambda ended: callback(ended.result()))

    def terminate(self) -> None:
        """Ask it to end: SIGTERM to its process group."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything of its session, at once."""
        if self.returncode is None:
            self.signal(signal.SIGKILL)
        warden.end_sessions({self.pid})

    def signal(self, number: signal.Signals, *, group: bool = True) -> None:
        """Send a signal to its process group, or to itself alone, if it is still there."""
        if self.returncode is None:
            try:
                (os.killpg if group else os.kill)(self.pid, number)
            except ProcessLookupError:
                pass  # it is ending at this moment; wait() will tell

    async def stop(self, grace_seconds: float = 10) -> int:
        """SIGTERM, and SIGKILL when it hasn't ended within `grace_seconds`; the exit status."""
        self.terminate()
        try:
            await asyncio.wait_for(self.wait(), grace_seconds)
        except TimeoutError:
            pass
        self.kill()
        return await self.wait()

    def ended(self) -> None:
        """Called by the supervisor when the kernel says that it ended."""
        status = self._popen.wait()
        if not self._ended.done():
            self._ended.set_result(status)


class Supervisor:
    """All processes of all machines."""

    def __init__(self, home: Path, run: Path) -> None:
        self._home = home
        self._owners: dict[int, str] = {}
        self._processes: dict[int, Process] = {}
        self._warden = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_HERE / "warden.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        self._tell_warden(f"folder {run}")

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        owner: str,
        log: Callable[[str], None],
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        run_as: Literal["self", "nobody"] = "self",
    ) -> Process:
        """Start a program for the machine `owner`; its output goes to `log`, line by line.

        `env` is added to `base_environment()`. A program that isn't there ends with status 127 and
        one line in the log, as it would in a shell. Raises OSError when `cwd` isn't there.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        launcher = [sys.executable, "-I", "-S", str(_HERE / "launch.py"), str(os.getpid()), run_as]
        try:
            popen = subprocess.Popen(  # noqa: ASYNC220 -- it returns as soon as the child is there
                [*launcher, *argv],
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.STDOUT,
                env={**base_environment(), **(env or {}), warden.MARK: str(self._home)},
                cwd=cwd,
                start_new_session=True,
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        process = Process(self, popen, owner)
        self._tell_warden(f"+{popen.pid}")
        self._owners[popen.pid] = owner
        self._processes[popen.pid] = process
        self._await_end(process, _Output(reading, log))
        return process

    def owner_of(self, pid: int) -> str | None:
        """The machine that a process belongs to: by its ancestors, else by its session."""
        current = pid
        while current > 1:
            if current in self._owners:
                return self._owners[current]
            current = _parent(current)
        try:
            return self._owners.get(os.getsid(pid))
        except (ProcessLookupError, PermissionError):
            return None

    def all_pids(self) -> list[int]:
        """Every process of every machine: those of its sessions first, then strayed descendants."""
        everything = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208
        inside: list[int] = []
        outside: list[int] = []
        for pid in everything:
            try:
                (inside if os.getsid(pid) in self._owners else outside).append(pid)
            except (ProcessLookupError, PermissionError):
                continue
        return inside + [pid for pid in outside if self.owner_of(pid)]

    def pids(self, owner: str | None = None) -> list[int]:
        """Leaders of the running processes, of one machine or of all."""
        return [pid for pid in self._processes if owner in (None, self._owners[pid])]

    def of(self, owner: str) -> list[Process]:
        """The running processes of a machine, in the order they were started."""
        return [process for pid, process in self._processes.items() if self._owners[pid] == owner]

    async def stop_all(self, owner: str, grace_seconds: float = 10) -> None:
        """End every process of a machine."""
        await asyncio.gather(*(process.stop(grace_seconds) for process in self.of(owner)))

    def close(self) -> None:
        """Kill whatever still runs and remove the run-time folder. Waits for it."""
        if self._warden.stdin:
            self._warden.stdin.close()
        self._warden.wait()

    def _await_end(self, process: Process, output: _Output) -> None:
        loop = asyncio.get_running_loop()
        handle = os.pidfd_open(process.pid)

        def ended() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            # What it left behind in its session goes with it, as in a stopped systemd unit.
            warden.end_sessions({process.pid})
            output.finish()
            self._tell_warden(f"-{process.pid}")
            self._owners.pop(process.pid, None)
            self._processes.pop(process.pid, None)
            process.ended()

        loop.add_reader(handle, ended)

    def _tell_warden(self, line: str) -> None:
        assert self._warden.stdin is not None
        try:
            self._warden.stdin.write(line.encode() + b"\n")
            self._warden.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # at shutdown the warden goes first; the parent-death signal remains


class _Output:
    """Carries what a process prints to its log, whole lines at a time."""

    def __init__(self, handle: int, log: Callable[[str], None]) -> None:
        self._handle: int | None = handle
        self._log = log
        self._rest = b""
        os.set_blocking(handle, False)
        asyncio.get_running_loop().add_reader(handle, self._read)

    def finish(self) -> None:
        """Take what is still in the pipe, so that nobody who waits for the end misses the last words."""
        while self._read():
            pass
        self._close()

    def _read(self) -> bool:
        """Take one portion; whether there may be more at this moment."""
        if self._handle is None:
            return False
        try:
            data = os.read(self._handle, _READ_BYTES)
        except BlockingIOError:
            return False
        lines, newline, rest = (self._rest + data).rpartition(b"\n")
        if len(rest) > _READ_BYTES:
            lines, rest = lines + newline + rest, b""
        self._rest = rest
        if lines:
            self._log(lines.decode(errors="replace"))
        if not data:
            self._close()
        return bool(data)

    def _close(self) -> None:
        if self._handle is not None:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = None
            if self._rest:
                self._log(self._rest.decode(errors="replace"))
                self._rest = b""


def _parent(pid: int) -> int:
    """The parent of a process; 0 when it is gone.

    Without pathlib and text: for a connection from outside, every process of the laptop is asked.
    """
    try:
        handle = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(handle, 4096).rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    finally:
        os.close(handle)
