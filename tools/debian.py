"""Programs that tests need and Debian or Ubuntu packages: installed where that is allowed, else asked for."""

import os
import shutil
import subprocess
from collections.abc import Mapping

from tools import cache, machine
from tools.steps import SetupFailed, run


def ensure(packages: Mapping[str, str], what_for: str) -> None:
    """Have all programs on PATH; `packages` names each one's package. Raises SetupFailed with the remedy."""
    if not _missing(packages):
        return
    with cache.exclusive(machine.cache_folder() / "apt.lock", "another installation"):
        missing = _missing(packages)
        if not missing:
            return
        apt, first = shutil.which("apt-get"), _as_root()
        if apt is None or first is None:
            raise SetupFailed(f"{what_for} needs {', '.join(missing)}: install {' '.join(missing.values())}.")
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        options = ["install", "-y", "--no-install-recommends"]
        run([*first, apt, "update"], "Reading the lists of packages", env=quiet, timeout=600)
        title = f"Installing {', '.join(missing.values())} for {what_for}"
        run([*first, apt, *options, *missing.values()], title, env=quiet, timeout=1200)
        still = _missing(packages)
        if still:
            raise SetupFailed(f"{', '.join(still)} still isn't on PATH after apt-get installed it.")


def _missing(packages: Mapping[str, str]) -> dict[str, str]:
    return {program: package for program, package in packages.items() if shutil.which(program) is None}


def _as_root() -> list[str] | None:
    """What a command must begin with to run as root; None if it can't without a question."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    may = sudo is not None and subprocess.run([sudo, "-n", "true"], capture_output=True).returncode == 0
    return [str(sudo), "-n"] if may else None
