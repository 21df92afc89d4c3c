"""What this machine must have, checked before anything is made: all that is missing is said at once.

Runs under whatever `python3` is, so it keeps to syntax that Python 3.6 reads, and to the standard library.
"""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Tuple

OLDEST, NEWEST = (3, 11), (3, 13)
MEGABYTE = 1024 * 1024

# What an installation occupies, measured, with some air: the virtual environments, the CLI, and
# (for its one-off build from Go modules) modules and object files, removed when it is done.
ENVIRONMENT_MEGABYTES = 1500
CLI_MEGABYTES = 500
BUILD_MEGABYTES = 5000
RUNNING_MEGABYTES = 500
# The local cloud runs PostgreSQL, the service and the gateways; linking the CLI takes 2.1 GB.
RUNNING_MEMORY = 1200
BUILD_MEMORY = 2500


class Facts(NamedTuple):
    """What was found out about the machine; sizes in MB."""

    platform: str
    machine: str
    python: Optional[str]
    python_version: Tuple[int, int]
    git: Optional[str]
    memory: int
    checkout_disk: int
    cache_disk: int
    same_disk: bool


def python_version(executable: str) -> Optional[Tuple[int, int]]:
    """(major, minor) of an interpreter that can make environments, or None if it doesn't work."""
    question = "import sys, ssl, sqlite3, zlib; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [executable, "-c", question],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=True,
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return (int(answer[0]), int(answer[1]))


def find_python(version_of: Callable[[str], Optional[Tuple[int, int]]] = python_version) -> Optional[str]:
    """An interpreter between OLDEST and NEWEST: the one that runs this, else one on PATH."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and version_of(found) == (3, minor):
            return found
    return None


def cache_folder() -> Path:
    """Where tools are kept, outside the checkout: `$XDG_CACHE_HOME/ibkr`, or `~/.cache/ibkr`."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "ibkr"


def free_disk(path: Path) -> int:
    """MB free where this path is, or will be."""
    return shutil.disk_usage(str(nearest(path))).free // MEGABYTE


def nearest(path: Path) -> Path:
    """The path itself or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def free_memory() -> int:
    """MB of memory and swap that programs can still have, a container's limit included."""
    values = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) // 1024
    free = values["MemAvailable"] + values.get("SwapFree", 0)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        free = min(free, (int(limit.read_text()) - int(used.read_text())) // MEGABYTE)
    return free


def look(checkout: Path, cache: Path) -> Facts:
    """Find out what the checks need to know; takes a fraction of a second."""
    linux = sys.platform.startswith("linux")
    return Facts(
        platform=sys.platform,
        machine=os.uname().machine if hasattr(os, "uname") else "",
        python=find_python(),
        python_version=(sys.version_info[0], sys.version_info[1]),
        git=shutil.which("git"),
        memory=free_memory() if linux else 0,
        checkout_disk=free_disk(checkout),
        cache_disk=free_disk(cache),
        same_disk=os.stat(str(nearest(checkout))).st_dev == os.stat(str(nearest(cache))).st_dev,
    )


def unwritable(error: OSError) -> Optional[str]:
    """What to do about a file or folder that can't be written; None for a problem of another kind."""
    where = error.filename or "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk of {} is full. Free some of it, then type the same command.".format(where)
    if error.errno == errno.EROFS:
        return "{} is on a read-only disk. Clone to another one.".format(where)
    if error.errno in (errno.EACCES, errno.EPERM):
        return "{} can't be written by this user ({}): it may be another user's, made with sudo.".format(
            where, error.strerror
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return "{} is a file, and a folder is needed there. Move it away.".format(where)
    return None


def problems(facts: Facts, needs_environment: bool, needs_cli: bool) -> List[str]:
    """Everything that stands in the way, each with what to do; an empty list if nothing does."""
    found = []
    if not facts.platform.startswith("linux"):
        found.append(
            f"This is {facts.platform}; the local cloud needs Linux. Open the folder in its dev container "
            "(.devcontainer/), or use a Linux machine."
        )
    elif facts.machine not in ("x86_64", "aarch64"):
        found.append(f"This machine is {facts.machine}; only x86_64 and aarch64 are supported.")
    if facts.python is None:
        version = "{}.{}".format(*facts.python_version)
        found.append(
            f"python3 is Python {version}, and there is no python3.11, python3.12 or python3.13 on PATH. "
            "Install one of them (Debian, Ubuntu: apt install python3.12; Fedora: dnf install python3.12; "
            "or pyenv). Python 3.14 is too new for ib_insync."
        )
    if facts.git is None:
        found.append("git is not on PATH. Install it (apt install git, dnf install git).")
    if facts.platform.startswith("linux"):
        found += _room(facts, needs_environment, needs_cli)
    return found


def _room(facts: Facts, needs_environment: bool, needs_cli: bool) -> List[str]:
    found = []
    memory = BUILD_MEMORY if needs_cli else RUNNING_MEMORY
    if facts.memory < memory:
        remedy = "Close programs or add swap"
        if needs_cli:
            remedy += f", or install the Pulumi CLI yourself: then {RUNNING_MEMORY} MB are enough"
        found.append(f"{facts.memory} MB of memory are free; {memory} MB are needed. {remedy}.")
    checkout = RUNNING_MEGABYTES + (ENVIRONMENT_MEGABYTES if needs_environment else 0)
    cache = CLI_MEGABYTES + BUILD_MEGABYTES if needs_cli else 0
    if facts.same_disk:
        checkout, cache = checkout + cache, 0
    if facts.checkout_disk < checkout:
        found.append(
            f"{facts.checkout_disk} MB are free on the checkout's disk; {checkout} MB are needed. "
            "Free some, or clone to another disk."
        )
    if cache and facts.cache_disk < cache:
        found.append(
            f"{facts.cache_disk} MB are free on the cache folder's disk; {cache} MB are needed while the "
            "Pulumi CLI is built. Free some, or set XDG_CACHE_HOME to a folder on another disk."
        )
    return found
