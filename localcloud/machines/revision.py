"""One revision of a Cloud Run service: its instances, kept alive and watched.

spec of a machine of kind "run":
    {"service", "revision", "container" (see `container.container_of`), "instances",
     "service_account", "vpc_access" (as declared)}
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from localcloud.cloud import CloudError
from localcloud.machines import probes
from localcloud.machines.container import environment_of, program_of
from localcloud.machines.host import MachineHost
from localcloud.processes import Process

_BACK_OFF_SECONDS = (0.5, 1, 2, 4, 8, 16, 30)
_STABLE_SECONDS = 60
STOP_SECONDS = 10  # Cloud Run sends SIGTERM and, ten seconds later, SIGKILL


class Replica:
    """One instance of a revision."""

    def __init__(self, revision: Instance, index: int) -> None:
        self._revision = revision
        self.index = index
        self.socket: Path = revision.host.run / f"instance-{index}.sock"
        self.ready = False
        self.restarts = 0
        self.process: Process | None = None

    async def start(self) -> None:
        """Start the program and wait for its startup probe. Raises `CloudError` 400 when it fails."""
        revision, container = self._revision, self._revision.container
        volumes = revision.host.run / f"volumes-{self.index}"
        env = revision.environment(volumes) | {"UNIX_SOCKET": str(self.socket)}
        self.socket.unlink(missing_ok=True)
        program = program_of(revision.host.cloud, container)
        process = await revision.host.spawn(
            program.argv, env=program.env | env, cwd=program.cwd, log=f"instance-{self.index}"
        )
        self.process = process
        ended = asyncio.ensure_future(process.wait())
        probing = asyncio.ensure_future(probes.started(container["startup_probe"], self.socket))
        try:
            await asyncio.wait([ended, probing], return_when=asyncio.FIRST_COMPLETED)
            if probing.done() and probing.result() and not ended.done():
                self.ready = True
                return
        finally:
            ended.cancel()
            probing.cancel()
        process.kill()
        raise CloudError(400, revision.failure(), "FAILED_PRECONDITION")

    async def watch(self) -> None:
        """Keep it alive: restart it when it ends or its liveness probe fails, slower each time."""
        loop = asyncio.get_running_loop()
        host = self._revision.host
        attempt = 0
        while True:
            begun = loop.time()
            reason = await self._until_ended()
            self.ready = False
            if loop.time() - begun > _STABLE_SECONDS:
                attempt = 0
            while not self.ready:
                host.log(f"instance-{self.index}: {reason}; restarting")
                await asyncio.sleep(_BACK_OFF_SECONDS[min(attempt, len(_BACK_OFF_SECONDS) - 1)])
                attempt += 1
                self.restarts += 1
                try:
                    await self.start()
                except (CloudError, OSError) as error:
                    reason = str(error)

    async def _until_ended(self) -> str:
        assert self.process is not None
        ended = asyncio.ensure_future(self.process.wait())
        waiting: list[asyncio.Future[Any]] = [ended]
        probe = self._revision.container["liveness_probe"]
        if probe:
            waiting.append(asyncio.ensure_future(probes.until_unhealthy(probe, self.socket)))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return f"Container called exit({ended.result()})."
        finally:
            for future in waiting:
                future.cancel()
        self.process.kill()
        return "LIVENESS HTTP probe failed; the instance was shut down"


class Instance:
    """What runs on a machine of kind "run": a revision with as many instances as are always on."""

    def __init__(self, host: MachineHost, spec: dict[str, Any]) -> None:
        self.host = host
        self.spec = spec
        self.container: dict[str, Any] = spec["container"]
        self.replicas = [Replica(self, index) for index in range(spec.get("instances") or 1)]
        self._watching: list[asyncio.Task[None]] = []
        self._turn = 0

    async def boot(self) -> None:
        """Start every instance. Raises `CloudError` 400 when one doesn't pass its startup probe."""
        await asyncio.gather(*(replica.start() for replica in self.replicas))
        self._watching = [asyncio.create_task(replica.watch()) for replica in self.replicas]

    async def shutdown(self) -> None:
        """Stop restarting, and end the instances as Cloud Run does: SIGTERM, then SIGKILL."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        processes = [replica.process for replica in self.replicas if replica.process]
        await asyncio.gather(*(process.stop(STOP_SECONDS) for process in processes))

    def status(self) -> dict[str, Any]:
        """Instances that are ready, and restarts."""
        return {
            "ready": sum(replica.ready for replica in self.replicas),
            "instances": len(self.replicas),
            "restarts": sum(replica.restarts for replica in self.replicas),
        }

    def socket_for_next(self) -> Path | None:
        """The socket of the instance that takes the next connection; None when none is ready."""
        ready = [replica for replica in self.replicas if replica.ready]
        self._turn += 1
        return ready[self._turn % len(ready)].socket if ready else None

    def environment(self, volumes: Path) -> dict[str, str]:
        """The container's environment as Cloud Run sets it (container runtime contract).

        `volumes` is the folder that its secret volumes are written below.
        """
        declared = environment_of(self.host.cloud, self.container, self.spec["service_account"], volumes)
        return declared | {
            "PORT": str(self.container["port"]),
            "K_SERVICE": self.spec["service"],
            "K_REVISION": self.spec["revision"],
            "K_CONFIGURATION": self.spec["service"],
        }

    def failure(self) -> str:
        """Cloud Run's words for an instance that doesn't come up."""
        return (
            "The user-provided container failed to start and listen on the port defined provided by the "
            f"PORT={self.container['port']} environment variable within the allocated timeout. This can "
            "happen when the container port is misconfigured or if the timeout is too short. The health "
            "check timeout can be extended. Logs for this revision might contain more information. "
            f"(Here: localcloud logs {self.host.name})"
        )
