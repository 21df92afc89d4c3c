"""What a machine of the local cloud is made of, and what starting a program on it can come to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from localcloud.machines.cloudinit import CloudInit
from localcloud.machines.paths import MachinePaths
from localcloud.machines.service import Running
from localcloud.machines.units import Units


class Host(Protocol):
    """What a machine is given: a disk, a private /run, an address, processes known as its own."""

    name: str
    root: Path
    run: Path
    environment: dict[str, str]

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        log: str = "",
    ) -> Running:
        """Start a program on the machine."""

    def listen(self, port: int, unix_socket: str | Path) -> None:
        """Lead the machine's port to a socket."""

    def unlisten(self, port: int) -> None:
        """Close the port."""

    def log(self, text: str) -> None:
        """Write to the serial console."""


@dataclass
class GuestMachine:
    """The parts of one machine, as its stand-ins see them.

    `packages` is what the image has beyond the plain one; `displays` the X displays that run; `firewall`
    the rules of iptables by chain; `mounts` the mount points in use; `offline` says why the machine doesn't
    reach the internet, and nothing when it does; `tasks` what goes on in the background until the machine
    is off.
    """

    host: Host
    paths: MachinePaths
    units: Units
    cloud_init: CloudInit
    disks: Mapping[str, Path] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    displays: set[str] = field(default_factory=set)
    firewall: dict[str, list[str]] = field(default_factory=dict)
    mounts: set[str] = field(default_factory=set)
    offline: Callable[[], str] = str
    containers: dict[str, Running] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def port_socket(self, port: int) -> Path:
        """The socket that stands for a port of the machine's own loopback."""
        return self.paths.own / f"port-{port}"


@dataclass(frozen=True)
class Call:
    """A program as it was called: arguments with paths of this laptop, the name first."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    stdin: str = ""

    @property
    def name(self) -> str:
        """The program's name without its folder."""
        return Path(self.argv[0]).name

    @property
    def arguments(self) -> list[str]:
        """What comes after the name."""
        return list(self.argv[1:])

    @property
    def words(self) -> list[str]:
        """The arguments that aren't options."""
        return [argument for argument in self.argv[1:] if not argument.startswith("-")]


@dataclass(frozen=True)
class Done:
    """The program has ended already, with this status and output."""

    code: int = 0
    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True)
class Exec:
    """The program does nothing but run another one."""

    argv: tuple[str, ...]


Outcome = Done | Exec | Running
StandIn = Callable[[GuestMachine, Call], Outcome | Awaitable[Outcome]]


def option(arguments: Sequence[str], *names: str) -> str:
    """The value after one of these options; empty when it isn't given."""
    for position, word in enumerate(arguments[:-1]):
        if word in names:
            return arguments[position + 1]
    return ""


class Finished:
    """A program that has ended."""

    pid = 0

    def __init__(self, code: int) -> None:
        self._code = code

    async def wait(self) -> int:
        """Its exit status."""
        return self._code

    def terminate(self) -> None:
        """It has ended already."""

    def kill(self) -> None:
        """It has ended already."""


class Holding:
    """A program that only holds something (a port, a display) until it is ended; it needs no process."""

    pid = 0

    def __init__(self, let_go: Callable[[], None]) -> None:
        self._let_go = let_go
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        """Ended by SIGTERM, once it is."""
        await self._ended.wait()
        return -15

    def terminate(self) -> None:
        """Lets go."""
        if not self._ended.is_set():
            self._let_go()
            self._ended.set()

    kill = terminate
