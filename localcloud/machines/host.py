"""What a machine is given by the local cloud: a disk, an address, and processes that are known as its own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from localcloud.processes import LogFile, Process

if TYPE_CHECKING:
    from localcloud.cloud import Cloud


class MachineHost:
    """One machine's share of the laptop.

    `root` is its disk and outlives power-off; `run` is its memory-backed /run, private (0700),
    with a path short enough for Unix sockets, and is emptied at power-off. `environment` is what
    the real cloud would let its programs find: where the metadata server and Google's APIs are.
    """

    def __init__(self, cloud: Cloud, name: str, kind: str, address: str) -> None:
        self.cloud = cloud
        self.name = name
        self.kind = kind
        self.address = address
        self.folder = machine_folder(cloud.settings.home, name)
        self.root = self.folder / "root"
        self.run = cloud.settings.run / hashlib.sha256(name.encode()).hexdigest()[:10]
        self.log_file = LogFile(log_path(cloud.settings.log_folder, name))
        self.environment = self._environment()
        self._listening: dict[int, Path] = {}

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        log: str = "",
        run_as: Literal["self", "nobody"] = "self",
    ) -> Process:
        """Start a program on this machine, in a process group of its own.

        `env` comes on top of a minimal environment and the machine's `environment`. Its output goes
        to the machine's log under the name `log`. Raises OSError when `cwd` isn't there.
        """
        source = log or Path(argv[0]).name
        return await self.cloud.processes.spawn(
            argv,
            owner=self.name,
            log=lambda text: self.log_file.write(source, text),
            env={**self.environment, **(env or {})},
            cwd=cwd or self.root,
            run_as=run_as,
        )

    def listen(self, port: int, unix_socket: str | Path) -> None:
        """Lead the machine's address:port to a socket of one of its programs, past the firewall.

        Nothing needs to listen on the socket yet: until then connections are reset, as on a closed
        port. Raises `CloudError` 409 when another program of this laptop has the port.
        """
        self.cloud.network.publish(self.name, self.address, port, Path(unix_socket))
        self._listening[port] = Path(unix_socket)

    def unlisten(self, port: int) -> None:
        """Close a port opened by `listen`."""
        if self._listening.pop(port, None):
            self.cloud.network.unpublish(self.address, port)

    @property
    def ports(self) -> list[int]:
        """The ports that lead somewhere."""
        return sorted(self._listening)

    def log(self, text: str) -> None:
        """Write to the machine's serial console. Never a secret."""
        self.log_file.write("console", text)

    def power_on(self) -> None:
        """Make the disk if it is the first boot, and an empty /run."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(self.run, ignore_errors=True)
        self.run.mkdir(mode=0o700)

    async def power_off(self, grace_seconds: float = 10) -> None:
        """End its processes, close its ports, empty its memory."""
        await self.cloud.processes.stop_all(self.name, grace_seconds)
        for port in self.ports:
            self.unlisten(port)
        shutil.rmtree(self.run, ignore_errors=True)

    def erase(self) -> None:
        """Remove the disk. Its log stays: whoever asks why it is gone wants to read it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        settings = self.cloud.settings
        found = {"IBKR_SERVERS": settings.exchange_address, "HOME": str(self.root)}
        if self.kind == "droplet":  # it isn't in Google's network
            found["DROPLET_METADATA"] = f"{settings.api_url}/droplet"
        else:
            found["GCE_METADATA_HOST"] = settings.api_url.removeprefix("http://")
            found["SECRET_MANAGER_ENDPOINT"] = f"{settings.api_url}/secretmanager"
            found["MONITORING_ENDPOINT"] = f"{settings.api_url}/monitoring"
        return found


def machine_folder(home: Path, name: str) -> Path:
    """The folder of a machine's disk below the cloud's home."""
    return home / "machines" / name.replace("/", "_")


def log_path(folder: Path, name: str) -> Path:
    """The file of a machine's log."""
    return folder / f"{name.replace('/', '_')}.log"
