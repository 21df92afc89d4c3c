"""What a figure was measured on."""

import os
import platform
from pathlib import Path


def describe() -> str:
    """One line: processors, memory, kernel, Python."""
    memory = next(
        int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    return (
        f"{os.cpu_count()} processors, {memory / 2**20:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )
