"""A block device over a file, as an attached disk of a machine."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

# linux/loop.h
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
_AUTOCLEAR = 4
_FLAGS_OFFSET = 4 + 4 + 52


class LoopDevice:
    """A loop device; the kernel detaches it when nobody has it open, so none is left even after a kill."""

    def __init__(self, file: Path, size: int = 64 * 1024 * 1024) -> None:
        self.file = file
        if not file.exists():
            with file.open("wb") as new:
                new.truncate(size)
        control = os.open("/dev/loop-control", os.O_RDWR)
        backing = os.open(file, os.O_RDWR)
        try:
            self.number, self._device = _configure(control, backing)
        finally:
            os.close(backing)
            os.close(control)

    def close(self) -> None:
        """Detaches it, at once or when it is unmounted."""
        if self._device >= 0:
            os.close(self._device)
            self._device = -1


def _configure(control: int, backing: int) -> tuple[int, int]:
    for _ in range(20):
        number = fcntl.ioctl(control, _GET_FREE)
        device = os.open(f"/dev/loop{number}", os.O_RDWR)
        config = bytearray(304)
        struct.pack_into("=I", config, 0, backing)
        struct.pack_into("=I", config, _FLAGS_OFFSET, _AUTOCLEAR)
        try:
            fcntl.ioctl(device, _CONFIGURE, bytes(config))
        except BlockingIOError:
            os.close(device)  # another process was faster
            continue
        except OSError as error:
            os.close(device)
            if error.errno == 16:  # EBUSY: the same
                continue
            raise
        return number, device
    raise OSError("no free loop device")
