"""All machines of the cloud: started, stopped, deleted by name, and brought back after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from localcloud.cloud import CloudError
from localcloud.machines.host import MachineHost

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_NOTES = "machines"
_RESUME_AFTER_SECONDS = (0, 1, 5, 15, 60)
_SECRET_FIELDS = frozenset({"user_data", "metadata", "env", "root_password"})


class Software(Protocol):
    """What runs on a machine once it has power."""

    async def boot(self) -> None:
        """Bring it up. Raises `CloudError` when it can't start."""

    async def shutdown(self) -> None:
        """Bring it down in order; the host then ends what is left."""

    def status(self) -> Any:
        """What it says of itself, for people."""


class Machine:
    """A machine with power: its host and what runs on it."""

    def __init__(self, host: MachineHost, software: Software) -> None:
        self.host = host
        self.software = software
        self.booting: asyncio.Task[None] | None = None


class Machines:
    """Boots, powers off and deletes machines. What they are is kept, so a restart finds them again.

    A machine of kind "gce" or "droplet" is RUNNING as soon as it has power, as in the real clouds:
    its first boot goes on by itself, and a cloud-init that fails is the console's to tell. "sql"
    and "run" have booted when they are ready to serve, and a failure is the caller's error.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._running: dict[str, Machine] = {}
        self._changing: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._callbacks: list[Callable[[str, str], None]] = []

    async def boot(self, name: str, kind: str, spec: dict[str, Any]) -> None:
        """Start a machine, new or powered off. An already running one is left as it is.

        Raises `CloudError` when a port or a file it needs isn't to be had, and, for kinds that are
        waited for, when it doesn't come up.
        """
        async with self._lock(name):
            if name in self._running:
                return
            self._note(name, kind=kind, spec=spec, wanted="running")
            await self._start(name, kind, spec)

    async def power_off(self, name: str) -> None:
        """Stop a machine; its disk and its specification stay. Raises `CloudError` 404."""
        self._specification(name)
        async with self._lock(name):
            self._note(name, wanted="stopped")
            await self._stop(name)

    async def power_on(self, name: str) -> None:
        """Start a stopped machine with the specification it has. Raises `CloudError` 404."""
        noted = self._specification(name)
        await self.boot(name, noted["kind"], noted["spec"])

    async def delete(self, name: str) -> None:
        """Stop a machine and remove its disk. Deleting what isn't there is not an error."""
        async with self._lock(name):
            noted = self._cloud.store.noted(_NOTES, name)
            await self._stop(name)
            if noted:
                MachineHost(self._cloud, name, noted["kind"], noted["spec"].get("address", "")).erase()
                self._cloud.store.forget(_NOTES, name)
                self._changed(name)

    def update(self, name: str, **changes: Any) -> None:
        """Change a machine's specification without a restart (tags, metadata ...).

        Running software isn't told: as in life, it sees new metadata when it asks for it.
        """
        noted = self._specification(name)
        self._note(name, spec={**noted["spec"], **changes})
        machine = self._running.get(name)
        if machine and "address" in changes:
            machine.host.address = changes["address"]
        self._cloud.network.changed()

    def status(self, name: str) -> str:
        """RUNNING, STOPPED, ABSENT, or on the way: STAGING, STOPPING; FAILED to come up."""
        if name in self._changing:
            return self._changing[name]
        if name in self._running:
            return "RUNNING"
        noted = self._cloud.store.noted(_NOTES, name)
        if noted is None:
            return "ABSENT"
        return "FAILED" if noted["wanted"] == "running" else "STOPPED"

    def specifications(self) -> dict[str, dict[str, Any]]:
        """Every machine's `kind`, `spec` and what is `wanted` of it ("running" or "stopped")."""
        return self._cloud.store.notes(_NOTES)

    def names(self, kind: str | None = None) -> list[str]:
        """Every machine that exists, running or not, in the order of creation."""
        noted = self._cloud.store.notes(_NOTES)
        return [name for name, note in noted.items() if kind in (None, note["kind"])]

    def specification(self, name: str) -> dict[str, Any]:
        """A machine's `kind` and `spec` as they were given. Raises `CloudError` 404."""
        return self._specification(name)

    def describe(self, name: str) -> dict[str, Any]:
        """What a person may know of a machine: no secret is in it. Raises `CloudError` 404."""
        noted = self._specification(name)
        machine = self._running.get(name)
        shown = {key: value for key, value in noted["spec"].items() if key not in _SECRET_FIELDS}
        return {
            "name": name,
            "kind": noted["kind"],
            "status": self.status(name),
            "address": noted["spec"].get("address", ""),
            "ports": machine.host.ports if machine else [],
            "pids": self._cloud.processes.pids(name),
            "software": machine.software.status() if machine else None,
            "spec": shown,
        }

    def running(self, name: str) -> Machine | None:
        """The machine, if it has power."""
        return self._running.get(name)

    def on_change(self, callback: Callable[[str, str], None]) -> None:
        """Have `callback(name, status)` called whenever a machine's status has changed."""
        self._callbacks.append(callback)

    async def resume(self) -> None:
        """After the daemon's start: start the machines that ought to run."""
        noted = self._cloud.store.notes(_NOTES)
        order = {"sql": 0, "gce": 1, "droplet": 1, "run": 2}
        for stage in sorted({order.get(note["kind"], 1) for note in noted.values()}):
            await asyncio.gather(
                *(
                    self._resume(name, note)
                    for name, note in noted.items()
                    if note["wanted"] == "running" and order.get(note["kind"], 1) == stage
                )
            )

    async def close(self) -> None:
        """At the daemon's end: stop everything, keeping what is wanted for the next start."""
        kinds = {name: self._cloud.store.noted(_NOTES, name)["kind"] for name in self._running}
        for wave in (("run",), ("gce", "droplet"), ("sql",)):
            await asyncio.gather(*(self._stop(name) for name, kind in kinds.items() if kind in wave))

    async def _resume(self, name: str, note: dict[str, Any]) -> None:
        """Start one machine again, repeatedly: what it needs may not be back yet."""
        for delay in _RESUME_AFTER_SECONDS:
            await asyncio.sleep(delay)
            try:
                async with self._lock(name):
                    if name not in self._running and self.status(name) == "FAILED":
                        await self._start(name, note["kind"], note["spec"])
                    return
            except (CloudError, OSError) as error:
                self._cloud.log.error("%s did not come back: %s", name, error)

    async def _start(self, name: str, kind: str, spec: dict[str, Any]) -> None:
        host = MachineHost(self._cloud, name, kind, spec.get("address", ""))
        machine = Machine(host, _software(host, kind, spec))
        host.power_on()
        self._changing[name] = "STAGING"
        self._running[name] = machine
        try:
            if kind in ("gce", "droplet"):
                machine.booting = asyncio.create_task(self._first_boot(machine))
            else:
                await machine.software.boot()
        except BaseException:
            self._running.pop(name, None)
            await host.power_off()
            raise
        finally:
            self._changing.pop(name, None)
            self._changed(name)

    async def _first_boot(self, machine: Machine) -> None:
        try:
            await machine.software.boot()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a machine whose boot fails is still a machine, and its console tells
            machine.host.log(f"boot failed: {type(error).__name__}: {error}")
            self._cloud.log.warning("%s: boot failed: %s", machine.host.name, type(error).__name__)

    async def _stop(self, name: str) -> None:
        machine = self._running.get(name)
        if machine is None:
            return
        self._changing[name] = "STOPPING"
        try:
            if machine.booting and not machine.booting.done():
                machine.booting.cancel()
                await asyncio.gather(machine.booting, return_exceptions=True)
            await machine.software.shutdown()
        finally:
            await machine.host.power_off()
            self._running.pop(name, None)
            self._changing.pop(name, None)
            self._changed(name)

    def _changed(self, name: str) -> None:
        self._cloud.network.changed()
        for callback in self._callbacks:
            callback(name, self.status(name))

    def _specification(self, name: str) -> dict[str, Any]:
        noted: dict[str, Any] | None = self._cloud.store.noted(_NOTES, name)
        if noted is None:
            raise CloudError(404, f"The machine '{name}' was not found.", "notFound")
        return noted

    def _note(self, name: str, **changes: Any) -> None:
        noted = self._cloud.store.noted(_NOTES, name) or {}
        self._cloud.store.note(_NOTES, name, {**noted, **changes})

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


def _software(host: MachineHost, kind: str, spec: dict[str, Any]) -> Software:
    """What a machine of this kind runs. Imported when first wanted: starting stays quick."""
    if kind in ("gce", "droplet"):
        from localcloud.machines.guest import Guest
        from localcloud.network import why_offline

        return Guest(
            host,
            spec.get("user_data") or "",
            kind,
            disks={disk["device_name"]: Path(disk["folder"]) for disk in spec.get("disks") or []},
            image=str(spec.get("image", "")),
            offline=lambda: why_offline(host.cloud.network.topology(), host.name),
        )
    if kind == "run":
        from localcloud.machines.revision import Instance

        return Instance(host, spec)
    if kind == "sql":
        from localcloud.machines.postgres import PostgresServer

        return PostgresServer(host, spec)
    raise CloudError(400, f"The local cloud has no machines of kind '{kind}'.", "invalid")
