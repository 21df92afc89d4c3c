"""The Chromium that tests of the dashboard drive: the machine's own, else Debian's or Ubuntu's package."""

import os
import shutil
import subprocess
from pathlib import Path

from tools import cache, machine
from tools.steps import SetupFailed, run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> Path:
    """Its path; installed by apt where that is allowed. Raises SetupFailed."""
    found = _find()
    if found is not None:
        return found
    apt = shutil.which("apt-get")
    may = os.geteuid() == 0 or (
        shutil.which("sudo") is not None
        and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0
    )
    if apt is None or not may:
        raise SetupFailed("There is no Chromium for the dashboard's tests: install the package chromium.")
    with cache.exclusive(machine.cache_folder() / "apt.lock", "another installation"):
        found = _find()
        if found is None:
            first = [] if os.geteuid() == 0 else ["sudo", "-n"]
            quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            run([*first, apt, "update"], "Reading the lists of packages", env=quiet, timeout=600)
            run(
                [*first, apt, "install", "-y", "chromium"],
                "Installing Chromium for the tests",
                env=quiet,
                timeout=1200,
            )
            found = _find()
    if found is None:
        raise SetupFailed("The package chromium was installed, but there is no such program on PATH.")
    return found


def _find() -> Path | None:
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return Path(path)
    return None
