"""The packages of a machine: what its image has, and what was installed, which stays on its disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from localcloud.machines.calls import GuestMachine


def read_packages(machine: GuestMachine) -> None:
    """Finds what was installed at an earlier boot."""
    installed = _list(machine)
    if installed.exists():
        machine.packages.update(installed.read_text().split())


def add_packages(machine: GuestMachine, names: Iterable[str]) -> None:
    """Installs packages: from now on the machine has them."""
    machine.packages.update(names)
    installed = _list(machine)
    installed.parent.mkdir(parents=True, exist_ok=True)
    installed.write_text("\n".join(sorted(machine.packages)) + "\n")


def _list(machine: GuestMachine) -> Path:
    return machine.paths.inside("/var/lib/dpkg/installed")
