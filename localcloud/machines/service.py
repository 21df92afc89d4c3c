"""One service of a machine: started, watched, restarted and stopped by systemd's rules.

Rules: systemd.service(5), systemd.unit(5). Time enters through `Time`, so tests don't wait.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from localcloud.machines.notify import NotifySocket
from localcloud.machines.paths import MachinePaths
from localcloud.machines.unitfile import Command, UnitError, UnitFile, parse_environment_file

EXEC_FAILED = 203
"""Exit status of a service whose program isn't there (systemd.exec(5): EXIT_EXEC)."""

_CLEAN_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE}
_DEFAULT_TIMEOUT = 90.0
_RESTART_ON: Mapping[str, frozenset[str]] = {
    "no": frozenset(),
    "always": frozenset({"success", "exit-code", "signal", "timeout", "resources"}),
    "on-success": frozenset({"success"}),
    "on-failure": frozenset({"exit-code", "signal", "timeout", "resources"}),
    "on-abnormal": frozenset({"signal", "timeout"}),
    "on-abort": frozenset({"signal"}),
}


class ProgramMissing(Exception):
    """The machine has no such program; its message names it."""


class Running(Protocol):
    """A program that was started on a machine."""

    @property
    def pid(self) -> int:
        """Process id on this laptop; 0 when the program needs no process of its own."""

    async def wait(self) -> int:
        """Its exit status; negative is the signal that ended it."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


class Runner(Protocol):
    """Starts programs of a machine."""

    async def start(self, argv: list[str], env: Mapping[str, str], cwd: str, log: str) -> Running:
        """Start a program. Raises ProgramMissing."""


@dataclass(frozen=True)
class Time:
    """What a service asks about time: seconds on a steady clock, and a way to let some pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class _CommandFailed(Exception):
    def __init__(self, what: str, code: int) -> None:
        super().__init__(what)
        self.code = code


class Service:
    """A unit of type service and its state, in systemd's words.

    `state` is inactive, activating, active, deactivating or failed; `sub` says more (running, exited,
    auto-restart ...); `result` is success, exit-code, signal, timeout, resources, start-limit-hit or
    dependency.
    """

    def __init__(
        self,
        unit: UnitFile,
        runner: Runner,
        paths: MachinePaths,
        log: Callable[[str], None],
        clock: Time,
        start_again: Callable[[str], Awaitable[object]],
        changed: Callable[[str], None],
    ) -> None:
        self.unit = unit
        self._runner, self._paths, self._log, self._clock = runner, paths, log, clock
        self._start_again, self._changed = start_again, changed
        self.state, self.sub, self.result = "inactive", "dead", "success"
        self.exit_code: int | None = None
        self.restarts = 0
        self._starts: list[float] = []
        self._main: Running | None = None
        self._control: Running | None = None
        self._watching: asyncio.Task[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def name(self) -> str:
        """The unit's name, with its suffix."""
        return self.unit.name

    @property
    def kind(self) -> str:
        """Type=, as systemd guesses it when it isn't given."""
        given = self.unit.one("Service", "Type")
        return given or ("simple" if self.unit.all("Service", "ExecStart") else "oneshot")

    def describe(self) -> dict[str, object]:
        """The state, for people and for tests."""
        return {
            "state": self.state,
            "sub": self.sub,
            "result": self.result,
            "exit_code": self.exit_code,
            "restarts": self.restarts,
            "pid": self._main.pid if self._main else 0,
        }

    async def start(self) -> bool:
        """One attempt to start; whether it is up (a oneshot: done). A restart may follow by itself."""
        if self.state == "active":
            return True
        self._stopping = False
        if self._restarting:
            self._restarting.cancel()
            self._restarting = None
        if self._limit_is_hit():
            self._settle("failed", "failed", "start-limit-hit")
            self._log(f"{self.name}: start request repeated too quickly: not started again")
            return False
        self._set("activating", "start-pre")
        self._log(f"Starting {self.name} - {self.unit.one('Unit', 'Description', self.name)}")
        try:
            await self._bring_up()
        except asyncio.CancelledError:
            await self._end_processes()
            self._settle("inactive", "dead", "success")
            raise
        except (TimeoutError, _CommandFailed, ValueError, OSError) as error:
            await self._failed_to_start(error)
            return False
        return True

    async def stop(self) -> None:
        """ExecStop, then SIGTERM, then SIGKILL after TimeoutStopSec. It isn't restarted."""
        self._stopping = True
        if self._restarting:
            self._restarting.cancel()
            self._restarting = None
        if self.state in ("inactive", "failed"):
            return
        was_up = self.state == "active"
        self._set("deactivating", "stop")
        timeout = self.unit.seconds("Service", "TimeoutStopSec", _DEFAULT_TIMEOUT)
        if was_up:
            await self._run_ignoring_failure("ExecStop", timeout)
        await self._end_processes(timeout)
        if self._watching:
            await asyncio.gather(self._watching, return_exceptions=True)
        self._settle("inactive", "dead", "success")
        self._log(f"Stopped {self.name}")

    def reset_failed(self) -> None:
        """Forgets a failure and the count of starts."""
        self._starts.clear()
        if self.state == "failed":
            self._settle("inactive", "dead", "success")

    def depend_failed(self, dependency: str) -> None:
        """Notes that it wasn't started since something it requires wasn't."""
        self._settle("inactive", "dead", "dependency")
        self._log(f"{self.name}: not started, since {dependency} wasn't")

    async def _bring_up(self) -> None:
        default = math.inf if self.kind == "oneshot" else _DEFAULT_TIMEOUT
        limit = self.unit.seconds("Service", "TimeoutStartSec", default)
        environment = self._environment()
        self._make_directories()
        async with asyncio.timeout(None if math.isinf(limit) else limit):
            for command in self.unit.commands("ExecStartPre"):
                await self._run(command, environment)
            if self.kind == "oneshot":
                await self._bring_up_oneshot(environment)
            else:
                await self._bring_up_main(environment)
            for command in self.unit.commands("ExecStartPost"):
                await self._run(command, environment)

    async def _bring_up_oneshot(self, environment: Mapping[str, str]) -> None:
        self._set("activating", "start")
        for command in self.unit.commands("ExecStart"):
            await self._run(command, environment)
        self.exit_code = 0
        if self._remains():
            self._settle("active", "exited", "success")
        else:
            self._settle("inactive", "dead", "success")
        self._log(f"Finished {self.name}")

    async def _bring_up_main(self, environment: Mapping[str, str]) -> None:
        commands = self.unit.commands("ExecStart")
        if len(commands) != 1:
            raise UnitError(f"{self.name}: Type={self.kind} takes exactly one ExecStart")
        if self.kind == "notify":
            with NotifySocket(self._paths.own / f"{self.name[:40]}.notify") as notify:
                main = await self._launch(commands[0], {**environment, "NOTIFY_SOCKET": str(notify.path)})
                self._watch(main)
                await self._until_ready(notify, main)
        else:
            self._watch(await self._launch(commands[0], environment))
        if self._main is None:
            raise _CommandFailed(f"{self.name} ended as it became ready", 1)
        self._settle("active", "running", "success")
        self._log(f"Started {self.name}")

    async def _until_ready(self, notify: NotifySocket, main: Running) -> None:
        ready = asyncio.ensure_future(notify.ready())
        ended = asyncio.ensure_future(main.wait())
        try:
            done, _ = await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in (ready, ended):
                waiting.cancel()
        if ready not in done:
            raise _CommandFailed(f"{self.name} ended before it was ready", 1)

    async def _launch(self, command: Command, environment: Mapping[str, str]) -> Running:
        try:
            return await self._runner.start(
                command.expand(environment),
                environment,
                self.unit.one("Service", "WorkingDirectory", "/").lstrip("-"),
                self.name.removesuffix(".service"),
            )
        except ProgramMissing as error:
            self._log(f"{self.name}: {error}")
            raise _CommandFailed(str(error), EXEC_FAILED) from None

    async def _run(self, command: Command, environment: Mapping[str, str]) -> None:
        """Runs a command of the start sequence to its end. Raises _CommandFailed."""
        try:
            self._control = await self._launch(command, environment)
            code = await self._control.wait()
            self._control = None
        except _CommandFailed as error:
            code = error.code
        if code != 0 and command.failure_counts:
            raise _CommandFailed(f"{command.words[0]} ended with status {code}", code)

    async def _run_ignoring_failure(self, key: str, timeout: float) -> None:
        try:
            environment = self._environment()
            if self._main:
                environment["MAINPID"] = str(self._main.pid)
            async with asyncio.timeout(None if math.isinf(timeout) else timeout):
                for command in self.unit.commands(key):
                    await self._run(command, environment)
        except (TimeoutError, _CommandFailed, ValueError, OSError) as error:
            self._log(f"{self.name}: {key} failed: {error or type(error).__name__}")
            if self._control:
                await self._end_processes()

    def _watch(self, main: Running) -> None:
        self._main = main
        self._watching = asyncio.create_task(self._await_end(main))

    async def _await_end(self, main: Running) -> None:
        code = await main.wait()
        self._main = None
        self.exit_code = code
        if self._stopping or self.state == "deactivating":
            return
        if self.state == "activating":
            return  # the start sequence tells
        result = self._result_of(code)
        self._log(f"{self.name}: main process ended, status {code} ({result})")
        await self._run_ignoring_failure("ExecStopPost", _DEFAULT_TIMEOUT)
        if result == "success" and self._remains():
            self._settle("active", "exited", "success")
            return
        self._settle("failed" if result != "success" else "inactive", "dead", result)
        self._restart_if_wanted(result, code)

    async def _failed_to_start(self, error: Exception) -> None:
        result = "resources"
        if isinstance(error, TimeoutError):
            result = "timeout"
        elif isinstance(error, _CommandFailed):
            result = "signal" if error.code < 0 else "exit-code"
            self.exit_code = error.code
        await self._end_processes()
        await self._run_ignoring_failure("ExecStopPost", _DEFAULT_TIMEOUT)
        self._settle("failed", "failed", result)
        self._log(f"[FAILED] {self.name} didn't start: {error or result}")
        self._restart_if_wanted(result, self.exit_code)

    def _restart_if_wanted(self, result: str, code: int | None) -> None:
        if self._stopping or not self._wants_restart(result, code):
            return
        delay = self._restart_delay()
        self._set("activating", "auto-restart")
        self._log(f"{self.name}: restart in {delay:g} s")
        self._restarting = asyncio.create_task(self._restart_after(delay))

    async def _restart_after(self, delay: float) -> None:
        await self._clock.sleep(delay)
        self.restarts += 1
        self._restarting = None
        await self._start_again(self.name)

    def _wants_restart(self, result: str, code: int | None) -> bool:
        if str(code) in self.unit.words("Service", "RestartPreventExitStatus"):
            self._log(f"{self.name}: not restarted after status {code} (RestartPreventExitStatus)")
            return False
        if str(code) in self.unit.words("Service", "RestartForceExitStatus"):
            return True
        return result in _RESTART_ON.get(self.unit.one("Service", "Restart", "no"), frozenset())

    def _restart_delay(self) -> float:
        """RestartSec, growing in RestartSteps to RestartMaxDelaySec (systemd 254) with each restart."""
        first = self.unit.seconds("Service", "RestartSec", 0.1)
        steps = int(self.unit.one("Service", "RestartSteps", "0"))
        last = self.unit.seconds("Service", "RestartMaxDelaySec", first)
        if steps == 0 or first <= 0 or last <= first:
            return first
        return float(min(last, first * (last / first) ** (min(self.restarts, steps) / steps)))

    def _limit_is_hit(self) -> bool:
        interval = self.unit.seconds("Unit", "StartLimitIntervalSec", 10.0)
        burst = int(self.unit.one("Unit", "StartLimitBurst", "5"))
        now = self._clock.now()
        self._starts = [start for start in self._starts if now - start < interval]
        if interval > 0 and burst > 0 and len(self._starts) >= burst:
            return True
        self._starts.append(now)
        return False

    def _result_of(self, code: int) -> str:
        if code == 0 or str(code) in self.unit.words("Service", "SuccessExitStatus"):
            return "success"
        if code < 0:
            return "success" if -code in _CLEAN_SIGNALS else "signal"
        return "exit-code"

    def _remains(self) -> bool:
        return self.unit.one("Service", "RemainAfterExit", "no") in ("yes", "true", "1", "on")

    def _environment(self) -> dict[str, str]:
        found = self.unit.environment()
        for name in self.unit.all("Service", "EnvironmentFile"):
            path = self._paths.inside(name.lstrip("-"))
            if path.exists():
                found.update(parse_environment_file(path.read_text()))
            elif not name.startswith("-"):
                raise UnitError(f"EnvironmentFile {name} isn't there")
        return found

    def _make_directories(self) -> None:
        for path, mode in self.unit.directories():
            folder: Path = self._paths.inside(path)
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)

    async def _end_processes(self, timeout: float = 5.0) -> None:
        for running in (self._control, self._main):
            if running is None:
                continue
            running.terminate()
            try:
                await asyncio.wait_for(running.wait(), None if math.isinf(timeout) else timeout)
            except TimeoutError:
                running.kill()
                await running.wait()
        self._control = None

    def _set(self, state: str, sub: str) -> None:
        self.state, self.sub = state, sub

    def _settle(self, state: str, sub: str, result: str) -> None:
        self.state, self.sub, self.result = state, sub, result
        self._changed(self.name)
