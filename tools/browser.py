"""The Chromium that tests of the dashboard drive: the machine's own, else Debian's or Ubuntu's package."""

import shutil
from pathlib import Path

from tools import debian

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: how it is started: as root, without a screen, asking nobody but the site
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-sync",
)


def chromium() -> Path:
    """Its path; installed by apt where that is allowed. Raises SetupFailed."""
    if _find() is None:
        debian.ensure({"chromium": "chromium"}, "the dashboard's tests")
    found = _find()
    assert found is not None  # ensure has seen to it
    return found


def _find() -> Path | None:
    return next((Path(path) for name in NAMES if (path := shutil.which(name)) is not None), None)
