"""Starts programs of a machine: stand-ins, scripts that its user data wrote, and harmless tools.

A script finds on its PATH only the tools named here and shims for the stand-ins: what a machine's root user
does to the machine (mount, iptables, apt-get ...) must never be done to this laptop. Anything else is "not
found", as on a machine without the package, and the console says so.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import shlex
import shutil
import sys
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

from localcloud.machines.calls import Call, Done, Exec, Finished, GuestMachine, Outcome, StandIn
from localcloud.machines.service import ProgramMissing, Running

TOOLS = (
    "awk", "basename", "bash", "cat", "chmod", "cmp", "cp", "cut", "date", "dirname", "echo", "env", "expr",
    "false", "find", "grep", "gzip", "head", "id", "ln", "ls", "md5sum", "mkdir", "mktemp", "mv", "openssl",
    "printf", "readlink", "realpath", "rm", "rmdir", "sed", "seq", "sh", "sha256sum", "sleep", "sort", "stat",
    "tail", "tar", "tee", "test", "timeout", "touch", "tr", "true", "uname", "uniq", "wc", "xargs",
)  # fmt: skip
_TOOL_PATH = "/usr/local/bin:/usr/bin:/bin"
_SYSTEM_FOLDERS = ("", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
_CHDIR_FAILED = 200


class MachineRunner:
    """Starts one machine's programs. `by_path` are stand-ins for files that an installer puts there."""

    def __init__(self, by_name: Mapping[str, StandIn], by_path: Mapping[str, StandIn]) -> None:
        self._by_name = by_name
        self._by_path = by_path
        self._machine: GuestMachine | None = None
        self._server: asyncio.Server | None = None

    async def open(self, machine: GuestMachine) -> None:
        """Makes the PATH of the machine's scripts and answers its shims."""
        self._machine = machine
        self._make_path(self._bin)
        self._server = await asyncio.start_unix_server(self._answer, str(self._control))

    async def close(self) -> None:
        """Stops answering."""
        if self._server:
            self._server.close()
            self._server = None

    async def start(self, argv: list[str], env: Mapping[str, str], cwd: str, log: str) -> Running:
        """Starts a program with arguments as the machine has them. Raises ProgramMissing."""
        machine = self._of()
        machine.paths.refresh_scripts()
        call = Call(
            tuple(machine.paths.text(argument) for argument in argv),
            {name: machine.paths.text(value) for name, value in env.items()},
            cwd,
        )
        return await self._run(call, log)

    async def _run(self, call: Call, log: str) -> Running:
        outcome = await self._stand_in_for(call)
        if outcome is None:
            return await self._spawn(call, log)
        if isinstance(outcome, Exec):
            return await self._run(Call(outcome.argv, call.env, call.cwd), log)
        if isinstance(outcome, Done):
            self._say(log, outcome)
            return Finished(outcome.code)
        return outcome

    async def _stand_in_for(self, call: Call) -> Outcome | None:
        machine = self._of()
        program = Path(call.argv[0])
        path = machine.paths.restore(call.argv[0])
        if path in self._by_path:
            if not machine.paths.inside(path).is_file():
                raise ProgramMissing(f"{path}: No such file or directory")
            return await _outcome(self._by_path[path](machine, call))
        if program.name in self._by_name and (
            "/" not in call.argv[0] or str(program.parent) in _SYSTEM_FOLDERS
        ):
            return await _outcome(self._by_name[program.name](machine, call))
        return None

    async def _spawn(self, call: Call, log: str) -> Running:
        machine = self._of()
        folder = machine.paths.inside(call.cwd)
        if not folder.is_dir():
            machine.host.log(f"{log}: {call.cwd}: No such file or directory")
            return Finished(_CHDIR_FAILED)
        environment = {
            **call.env,
            "PATH": str(self._bin),
            "MACHINE_CONTROL": str(self._control),
            "PORT_SOCKETS": str(machine.paths.own),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return await machine.host.spawn(self._real(call), env=environment, cwd=folder, log=log)

    def _real(self, call: Call) -> list[str]:
        """The command line on this laptop: a script's copy, or a tool. Raises ProgramMissing."""
        machine = self._of()
        program, arguments = call.argv[0], call.arguments
        if "/" in program:
            copy = machine.paths.script(Path(program))
            if copy and copy.is_file():
                return [*self._interpreter(copy), str(copy), *arguments]
            if str(Path(program).parent) not in _SYSTEM_FOLDERS:
                raise ProgramMissing(f"{machine.paths.restore(program)}: No such file or directory")
        tool = self._bin / Path(program).name
        if not tool.exists():
            raise ProgramMissing(f"{program}: command not found (the local cloud's machines don't have it)")
        return [str(tool), *arguments]

    def _interpreter(self, script: Path) -> list[str]:
        with script.open() as file:
            first = file.readline().strip()
        words = shlex.split(first.removeprefix("#!")) or ["sh"]
        if Path(words[0]).name == "env" and len(words) > 1:
            words = words[1:]
        tool = self._bin / Path(words[0]).name
        if not tool.exists():
            raise ProgramMissing(f"{words[0]}: No such interpreter")
        if tool.name == "python3" and any(name.startswith("python3-") for name in self._of().packages):
            return [sys.executable, *words[1:]]  # through the link, it finds no library but its own
        return [str(tool), *words[1:]]

    def _say(self, log: str, outcome: Done) -> None:
        machine = self._of()
        for line in (outcome.stdout + outcome.stderr).splitlines():
            machine.host.log(f"{log}: {machine.paths.restore(line)}")

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one shim: does what it was called for, and tells it how that went."""
        running: list[Running] = []
        try:
            request = json.loads(await reader.readline())
            answer = await self._do(request, running)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the script was ended while it waited
        finally:
            for program in running:
                program.terminate()
            writer.close()

    async def _do(self, request: Mapping[str, Any], running: list[Running]) -> dict[str, Any]:
        call = Call(tuple(request["argv"]), request["env"], stdin=request["stdin"])
        try:
            outcome = await _outcome(self._by_name[call.name](self._of(), call))
        except ProgramMissing as error:
            outcome = Done(127, stderr=f"{error}\n")
        except OSError as error:
            outcome = Done(1, stderr=f"{call.name}: {error}\n")
        if isinstance(outcome, Exec):
            return {"code": 0, "stdout": "", "stderr": "", "exec": list(outcome.argv)}
        if not isinstance(outcome, Done):
            running.append(outcome)
            code = await outcome.wait()
            running.clear()
            outcome = Done(code if code >= 0 else 128 - code)
        return {"code": outcome.code, "stdout": outcome.stdout, "stderr": outcome.stderr}

    def _make_path(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for name in TOOLS:
            found = shutil.which(name, path=_TOOL_PATH)
            if found and not (folder / name).is_symlink():
                (folder / name).symlink_to(found)
        for name in ("python3", "python"):
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(sys.executable)
        shim = folder / ".shim"
        command = shlex.join([sys.executable, "-I", "-S", str(Path(__file__).with_name("shim.py"))])
        shim.write_text(f'#!/bin/sh\nexec {command} "${{0##*/}}" "$@"\n')
        shim.chmod(0o700)
        for name in self._by_name:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(shim.name)

    @property
    def _bin(self) -> Path:
        return self._of().paths.own / "bin"

    @property
    def _control(self) -> Path:
        return self._of().paths.own / "control"

    def _of(self) -> GuestMachine:
        assert self._machine is not None, "the runner is opened before anything is started"
        return self._machine


async def _outcome(given: Outcome | Awaitable[Outcome]) -> Outcome:
    return await given if inspect.isawaitable(given) else given
