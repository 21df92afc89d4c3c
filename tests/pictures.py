"""Pictures of the dashboard's pages and states, as its tests leave them: `.local/screenshots/NAME.png`.

Tests of the running stack and tests of single states write into the same folder; `python -m tools.pictures`
runs both and puts those that the documents show into `docs/pictures`.
"""

from __future__ import annotations

import os
from pathlib import Path

from tools.environments import CHECKOUT

#: names another folder
VARIABLE = "DASHBOARD_PICTURES"


def file_for(name: str) -> Path:
    """Where the picture of this name goes; its folder is there."""
    folder = Path(os.environ.get(VARIABLE) or CHECKOUT / ".local" / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.png"
