"""The units of one machine: which are enabled, what starts in what order, what stops with what.

A subset of systemd: services (instances of templates, too) with Requires, BindsTo, Wants, PartOf, After,
Before, conditions and [Install]. Targets, and services that the image has (docker, the network's), are there
already. Timers, sockets and mounts aren't known: to start one is an error that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from localcloud.machines.paths import MachinePaths
from localcloud.machines.service import Runner, Service, Time
from localcloud.machines.unitfile import UnitError, UnitFile, parse

_FOLDER = "/etc/systemd/system"
_BOOT_TARGETS = ("multi-user.target", "cloud-init.target", "default.target", "basic.target")
_OF_EVERY_IMAGE = ("network.service", "networking.service", "ssh.service", "dbus.service", "cron.service")


class UnitNotFound(Exception):
    """The machine has no such unit, or one of a kind that the local cloud doesn't run."""


class Units:
    """systemd, for one machine."""

    def __init__(
        self,
        paths: MachinePaths,
        runner: Runner,
        log: Callable[[str], None],
        clock: Time | None = None,
        ports: Callable[[int, bool], None] | None = None,
    ) -> None:
        """`ports(port, up)` is told of each port that a service may listen on (SocketBindAllow=)."""
        self._paths, self._runner, self._log = paths, runner, log
        self._ports = ports or _no_ports
        self._clock = clock or Time()
        self._services: dict[str, Service] = {}
        self._jobs: dict[str, asyncio.Task[bool]] = {}
        self._order: list[str] = []
        self._ready_made: dict[str, asyncio.Event] = {}
        self._followers: set[asyncio.Task[None]] = set()
        for name in _OF_EVERY_IMAGE:
            self.provide(name)

    def provide(self, name: str, ready: bool = True) -> asyncio.Event:
        """A service that the image has. The event is set when it is up; units ordered after it wait."""
        event = self._ready_made.setdefault(name, asyncio.Event())
        if ready:
            event.set()
        return event

    def reload(self) -> None:
        """daemon-reload: units whose files changed are read anew; what runs goes on."""
        for service in self._services.values():
            fresh = self._read(service.name)
            if fresh:
                service.unit = fresh

    def enable(self, names: Iterable[str]) -> None:
        """Makes units start at boot, by links as systemctl makes them. Raises UnitNotFound."""
        for name in names:
            for target in self._unit(name).words("Install", "WantedBy"):
                folder = self._paths.inside(f"{_FOLDER}/{target}.wants")
                folder.mkdir(parents=True, exist_ok=True)
                link = folder / full_name(name)
                if not link.is_symlink():
                    link.symlink_to(f"../{self._file(name).name}")

    def disable(self, names: Iterable[str]) -> None:
        """Undoes enable. What runs goes on."""
        for name in names:
            for link in self._paths.inside(_FOLDER).glob(f"*.wants/{full_name(name)}"):
                link.unlink()

    def enabled(self) -> list[str]:
        """The units that start at boot."""
        links = (self._paths.inside(f"{_FOLDER}/{target}.wants") for target in _BOOT_TARGETS)
        return [link.name for folder in links if folder.is_dir() for link in sorted(folder.iterdir())]

    def state(self, name: str) -> str:
        """A unit's state in systemd's words; `inactive` for what was never started."""
        full = full_name(name)
        if full in self._ready_made:
            return "active" if self._ready_made[full].is_set() else "activating"
        service = self._services.get(full)
        return service.state if service else "inactive"

    def status(self) -> dict[str, dict[str, object]]:
        """Every unit that was started or is enabled, with its state."""
        for name in self.enabled():
            if self._read(name):
                self._service(name)
        return {name: service.describe() for name, service in sorted(self._services.items())}

    def boot(self) -> None:
        """Starts what is enabled, without waiting for it."""
        for name in self.enabled():
            if full_name(name) not in self._ready_made:
                self._enqueue(name)

    async def start(self, names: Iterable[str], wait: bool = True) -> bool:
        """Starts units with what they need; whether all came up. Raises UnitNotFound."""
        jobs = [self._enqueue(name) for name in names if not self.ready_made(name)]
        if not wait:
            return True
        return all(await asyncio.gather(*jobs))

    async def stop(self, names: Iterable[str]) -> None:
        """Stops units, and those that can't be without them."""
        for name in names:
            await self._stop(full_name(name))

    async def restart(self, names: Iterable[str], wait: bool = True) -> bool:
        """Stops and starts units. Raises UnitNotFound."""
        wanted = list(names)
        for name in wanted:
            self._unit(name)
        await self.stop(wanted)
        return await self.start(wanted, wait)

    def reset_failed(self, names: Iterable[str]) -> None:
        """Forgets failures and counts of starts: of the units named, or of all."""
        chosen = [full_name(name) for name in names] or list(self._services)
        for name in chosen:
            if name in self._services:
                self._services[name].reset_failed()

    async def shutdown(self) -> None:
        """Stops everything, the last started first."""
        for name in reversed(self._order.copy()):
            await self._stop(name, alone=True)
        for name in list(self._services):
            await self._stop(name, alone=True)

    def _enqueue(self, name: str) -> asyncio.Task[bool]:
        """A start job, with jobs for what the unit pulls in, all made before any of them runs."""
        name = full_name(name)
        job = self._jobs.get(name)
        if job and not job.done():
            return job
        unit = self._unit(name)
        job = self._jobs[name] = asyncio.create_task(self._job(unit))
        for needed in _requires(unit) + unit.words("Unit", "Wants"):
            if self.ready_made(needed) or self.state(needed) == "active":
                continue
            try:
                self._enqueue(needed)
            except UnitNotFound as error:
                if needed in _requires(unit):
                    self._log(f"{name}: {error}")
        return job

    async def _job(self, unit: UnitFile) -> bool:
        service = self._service(unit.name)
        await self._wait_for_turn(unit)
        for needed in _requires(unit):
            if not self._came_up(needed):
                service.depend_failed(needed)
                return False
        if not self._conditions_hold(unit):
            return True
        started = await service.start()
        if service.state == "active":
            self._order = [name for name in self._order if name != unit.name] + [unit.name]
        return started

    async def _wait_for_turn(self, unit: UnitFile) -> None:
        """Waits for the units that this one comes after, as far as they are about to start."""
        for name in self._before(unit):
            if name in self._ready_made:
                await self._ready_made[name].wait()
            job = self._jobs.get(name)
            if not job or job.done():
                continue
            if self._waits_for(name, unit.name, set()):
                self._log(f"{unit.name}: ordering cycle with {name}: not waiting for it")
                continue
            await asyncio.wait({job})

    def _before(self, unit: UnitFile) -> list[str]:
        after = [full_name(name) for name in unit.words("Unit", "After")]
        others = (self._read(name) for name in self._jobs if name != unit.name)
        return after + [
            other.name for other in others if other and unit.name in other.words("Unit", "Before")
        ]

    def _waits_for(self, name: str, target: str, seen: set[str]) -> bool:
        if name in seen:
            return False
        seen.add(name)
        unit = self._read(name)
        if not unit or name not in self._jobs or self._jobs[name].done():
            return False
        before = self._before(unit)
        return target in before or any(self._waits_for(other, target, seen) for other in before)

    def _came_up(self, name: str) -> bool:
        if self.ready_made(name) or self.state(name) == "active":
            return True
        job = self._jobs.get(full_name(name))
        if job is None:
            return False
        # A requirement that isn't ordered before may still be starting: it doesn't hold this one up.
        return not job.done() or (not job.cancelled() and job.result())

    def _conditions_hold(self, unit: UnitFile) -> bool:
        for path in unit.all("Unit", "ConditionPathExists"):
            wanted = not path.startswith("!")
            if self._paths.inside(path.lstrip("!")).exists() is not wanted:
                self._log(f"{unit.name}: skipped, ConditionPathExists={path} doesn't hold")
                return False
        return True

    async def _stop(self, name: str, alone: bool = False) -> None:
        if not alone:
            for other in self._needing(name, ("Requires", "BindsTo", "PartOf")):
                await self._stop(other)
        job = self._jobs.get(name)
        if job and not job.done() and job is not asyncio.current_task():
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
        service = self._services.get(name)
        if service:
            await service.stop()
        self._order = [started for started in self._order if started != name]

    def _needing(self, name: str, keys: Iterable[str]) -> list[str]:
        """Started units that name this one under one of these keys."""
        return [
            other
            for other, service in self._services.items()
            if other != name
            and service.state not in ("inactive", "failed")
            and any(name in service.unit.words("Unit", key) for key in keys)
        ]

    def _changed(self, name: str) -> None:
        """The ports of a unit open and close with it; units bound to one that went down go down with it."""
        down = self._services[name].state in ("inactive", "failed")
        for word in self._services[name].unit.words("Service", "SocketBindAllow"):
            self._ports(int(word.rpartition(":")[2]), not down)
        if not down:
            return
        for other in self._needing(name, ("BindsTo",)):
            follower = asyncio.get_running_loop().create_task(self._stop(other))
            self._followers.add(follower)
            follower.add_done_callback(self._followers.discard)

    def _service(self, name: str) -> Service:
        if name not in self._services:
            self._services[name] = Service(
                self._unit(name),
                self._runner,
                self._paths,
                self._log,
                self._clock,
                self._again,
                self._changed,
            )
        return self._services[name]

    async def _again(self, name: str) -> None:
        self._enqueue(name)

    def _unit(self, name: str) -> UnitFile:
        full = full_name(name)
        if full in self._services:
            return self._services[full].unit
        unit = self._read(full)
        if unit is None:
            raise UnitNotFound(f"Unit {full} not found")
        if not full.endswith(".service"):
            raise UnitNotFound(f"Unit {full}: the local cloud runs services only")
        return unit

    def _read(self, name: str) -> UnitFile | None:
        path = self._file(name)
        if not path.is_file():
            return None
        try:
            return parse(full_name(name), path.read_text())
        except UnitError as error:
            raise UnitNotFound(str(error)) from error

    def _file(self, name: str) -> Path:
        """A unit's file: its own, else that of the template that it is an instance of."""
        folder, full = self._paths.inside(_FOLDER), full_name(name)
        prefix, at, rest = full.partition("@")
        if not at or (folder / full).is_file():
            return folder / full
        return folder / f"{prefix}@.{rest.rpartition('.')[2]}"

    def ready_made(self, name: str) -> bool:
        """Whether a unit is the image's own: one that `provide` named, or a target."""
        full = full_name(name)
        return full in self._ready_made or (full.endswith((".target", ".mount")) and self._read(full) is None)


def _no_ports(port: int, up: bool) -> None:
    """A machine that nobody reaches."""


def _requires(unit: UnitFile) -> list[str]:
    return unit.words("Unit", "Requires") + unit.words("Unit", "BindsTo")


def full_name(name: str) -> str:
    """A unit's name with its suffix: `.service` when none is given."""
    return name if "." in name else name + ".service"
