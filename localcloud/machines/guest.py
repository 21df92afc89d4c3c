"""A machine with an operating system: boots, applies its user data, runs its units, and shuts down.

What it keeps is on `host.root`; what is in `host.run` is gone after a power-off, as on a real machine. It
knows nothing of Google or DigitalOcean: who may reach it, and what the metadata server says, is the host's
business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from localcloud.machines.calls import GuestMachine, Host
from localcloud.machines.cloudinit import CloudInit, UserDataError
from localcloud.machines.disks import attach, unmount_all
from localcloud.machines.packages import add_packages, read_packages
from localcloud.machines.paths import MachinePaths
from localcloud.machines.runner import MachineRunner
from localcloud.machines.service import ProgramMissing
from localcloud.machines.snapshot import IBEAM_SNAPSHOT, is_snapshot
from localcloud.machines.stand_ins import BY_NAME, BY_PATH
from localcloud.machines.units import UnitNotFound, Units

_FOLDERS = (
    "etc/systemd/system", "opt", "var/lib/cloud/instances", "var/log", "var/cache", "var/tmp", "srv", "root",
    "home", "mnt", "tmp", "dev/disk/by-id",
)  # fmt: skip
_CLOUD_FINAL = "cloud-final.service"


class Guest:
    """The operating system of one machine. `kind` is "gce" or "droplet".

    `disks` are the attached disks' folders by device name; `image` is a slug or the number of a snapshot;
    `offline` says why the machine doesn't reach the internet at that moment, and nothing when it does.
    """

    def __init__(
        self,
        host: Host,
        user_data: str,
        kind: str,
        *,
        disks: Mapping[str, Path] | None = None,
        image: str = "",
        offline: Callable[[], str] = str,
    ) -> None:
        self._host = host
        self._kind = kind
        self._image = image
        self._paths = MachinePaths(host.root, host.run)
        self._runner = MachineRunner(BY_NAME, BY_PATH)
        self._machine = GuestMachine(
            host=host,
            paths=self._paths,
            units=Units(self._paths, self._runner, self._say, ports=self._port),
            cloud_init=CloudInit(self._paths, user_data, self._say),
            disks=dict(disks or {}),
            offline=offline,
        )
        self._progress = "off"

    async def boot(self) -> None:
        """Brings the machine up, until cloud-init is done; what it started may still be on its way up.

        A cloud-init or unit that fails doesn't raise: as in life, the machine is there, and its console and
        `status` tell.
        """
        self._progress = "running"
        self._prepare()
        await self._runner.open(self._machine)
        units, cloud_init = self._machine.units, self._machine.cloud_init
        for name in ("cloud-config.service", "cloud-init.service", "cloud-init-local.service"):
            units.provide(name)
        final = units.provide(_CLOUD_FINAL, ready=False)
        try:
            await self._apply(cloud_init, units)
        except UserDataError as error:
            self._progress = "error"
            self._say(f"cloud-init: {error}")
        finally:
            final.set()
        self._say(f"cloud-init finished: {self._progress}")

    async def shutdown(self) -> None:
        """Stops the units in order; what still runs then is the host's to end."""
        await self._machine.units.shutdown()
        for running in list(self._machine.containers.values()):
            running.terminate()
        await asyncio.gather(*self._machine.tasks, return_exceptions=True)
        unmount_all(self._machine)
        await self._runner.close()
        self._progress = "off"

    def status(self) -> dict[str, Any]:
        """What the machine says of itself: cloud-init's progress, units with state, containers, firewall."""
        try:
            units = self._machine.units.status()
        except UnitNotFound as error:
            return {"cloud_init": self._progress, "problem": str(error)}
        failed = sorted(
            name for name, unit in units.items() if unit["state"] == "failed" or unit["result"] != "success"
        )
        return {
            "cloud_init": self._progress,
            "units": units,
            "failed": failed,
            "containers": sorted(self._machine.containers),
            "firewall": {chain: rules for chain, rules in self._machine.firewall.items() if rules},
        }

    @property
    def owners(self) -> dict[str, str]:
        """Who owns which path, where user data said so; this laptop has no such users."""
        return dict(self._machine.cloud_init.owners)

    async def _apply(self, cloud_init: CloudInit, units: Units) -> None:
        """cloud-init's stages, in their order, around the start of the enabled units."""
        first = cloud_init.first_boot
        cloud_init.begin()
        read_packages(self._machine)
        if first:
            self._install_packages(cloud_init)
            cloud_init.say_what_is_skipped()
            self._say("cloud-init: first boot of this machine")
        await self._run_boot_commands(cloud_init)
        cloud_init.write_files()
        if "docker.io" in self._machine.packages:
            units.provide("docker.service")
        try:
            units.boot()
        except UnitNotFound as error:
            self._say(str(error))
        cloud_init.write_files(deferred=True)
        script = cloud_init.run_script()
        failed = script is not None and await self._run_script(str(script), "runcmd") != 0
        cloud_init.finish()
        self._progress = "error" if failed else "done"

    def _install_packages(self, cloud_init: CloudInit) -> None:
        offline = self._machine.offline()
        if cloud_init.packages and offline:
            # As in life, cloud-init goes on without them, and what needs them fails.
            self._say(f"cloud-init: no package could be installed: {offline}")
        elif cloud_init.packages:
            add_packages(self._machine, cloud_init.packages)

    async def _run_boot_commands(self, cloud_init: CloudInit) -> None:
        text = cloud_init.boot_script()
        if text:
            script = self._paths.own / "bootcmd"
            script.write_text(self._paths.text(text))
            await self._run_script(str(script), "bootcmd")

    async def _run_script(self, script: str, name: str) -> int:
        """Runs a script of cloud-init's; its exit status, which the console gets when it isn't 0."""
        try:
            running = await self._runner.start(["sh", script], {"HOME": "/root"}, "/", name)
            code = await running.wait()
        except ProgramMissing as error:
            self._say(f"{name}: {error}")
            return 127
        if code:
            self._say(f"cloud-init: {name} ended with status {code}")
        return code

    def _prepare(self) -> None:
        """What the image has: folders, disks' devices, and a snapshot's own files at its first boot."""
        self._paths.prepare()
        for folder in _FOLDERS:
            (self._host.root / folder).mkdir(parents=True, exist_ok=True)
        attach(self._machine)
        if is_snapshot(self._image):
            self._machine.packages.add("docker.io")
            for path, content in IBEAM_SNAPSHOT.items():
                place = self._paths.inside(path)
                if not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_text(content)
            self._paths.know_scripts(path for path in IBEAM_SNAPSHOT if path.endswith(".sh"))

    def _port(self, port: int, is_open: bool) -> None:
        """A service that listens on a port of the machine is there, or gone."""
        if is_open:
            self._host.listen(port, self._machine.port_socket(port))
        else:
            self._host.unlisten(port)

    def _say(self, text: str) -> None:
        self._host.log(self._paths.restore(text))
