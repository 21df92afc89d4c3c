"""Attached disks of a machine: a folder each, with a `device` (blank, or with a file system) and its content.

Mounting makes the mount point a link to the content, so the disk outlives the machine.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from localcloud.machines.calls import Call, Done, GuestMachine, Outcome, option

_BLANK, _AMBIVALENT = 2, 8
_BY_ID = "dev/disk/by-id"


def attach(machine: GuestMachine) -> None:
    """Makes the machine's disks appear under /dev/disk/by-id, and frees what was mounted before."""
    unmount_all(machine)
    for name, folder in machine.disks.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "device").touch()
        device = machine.host.root / _BY_ID / f"google-{name}"
        device.unlink(missing_ok=True)
        device.symlink_to(folder / "device")


def unmount_all(machine: GuestMachine) -> None:
    """Frees the mount points of this run, or of one that was cut off: mounts don't outlive power."""
    noted = _notes(machine)
    points = set(machine.mounts)
    if noted.exists():
        points |= set(json.loads(noted.read_text()))
    for point in points:
        place = machine.host.root / point.lstrip("/")
        if place.is_symlink():
            place.unlink()
            place.mkdir()
    machine.mounts.clear()
    noted.unlink(missing_ok=True)


def blkid(machine: GuestMachine, call: Call) -> Outcome:
    """blkid --probe DEVICE: 0 for a file system, 2 for a blank disk, 8 for anything else."""
    device = Path(call.words[-1])
    if not device.exists():
        return Done(_BLANK)
    content = device.read_bytes()
    if content.startswith(b"ext4"):
        return Done(stdout=f'{device}: TYPE="ext4"\n')
    return Done(_AMBIVALENT if content else _BLANK)


def mkfs(machine: GuestMachine, call: Call) -> Outcome:
    """mkfs.ext4 DEVICE: what was on the disk is gone."""
    folder = _disk_of(machine, Path(call.words[-1]))
    if folder is None:
        return Done(1, stderr=f"{call.name}: {call.words[-1]}: No such device\n")
    shutil.rmtree(folder / "content", ignore_errors=True)
    (folder / "content").mkdir()
    (folder / "device").write_text("ext4\n")
    return Done()


def mount(machine: GuestMachine, call: Call) -> Outcome:
    """mount DEVICE POINT: the disk's content appears at the mount point until the machine is off."""
    options = option(call.arguments, "-o")
    words = [word for word in call.words if word != options]
    if len(words) != 2:
        return Done(1, stderr="mount: the local cloud mounts DEVICE at POINT only\n")
    device, point = map(Path, words)
    folder = _disk_of(machine, device)
    if folder is None or not (folder / "content").is_dir():
        return Done(32, stderr=f"mount: {device}: can't read superblock\n")
    if not point.is_dir() or point.is_symlink() or any(point.iterdir()):
        return Done(32, stderr=f"mount: {point}: the local cloud mounts on empty folders only\n")
    point.rmdir()
    point.symlink_to(folder / "content")
    machine.mounts.add(machine.paths.restore(str(point)))
    _note(machine)
    return Done()


def mountpoint(machine: GuestMachine, call: Call) -> Outcome:
    """mountpoint POINT."""
    return Done(0 if machine.paths.restore(call.words[-1]) in machine.mounts else 32)


def _disk_of(machine: GuestMachine, device: Path) -> Path | None:
    """The folder of the disk that /dev/disk/by-id/google-NAME is."""
    return machine.disks.get(device.name.removeprefix("google-"))


def _note(machine: GuestMachine) -> None:
    _notes(machine).write_text(json.dumps(sorted(machine.mounts)))


def _notes(machine: GuestMachine) -> Path:
    return machine.host.root / ".mounts.json"
