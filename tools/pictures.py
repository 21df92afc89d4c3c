"""`make pictures`: takes the pictures of the dashboard anew, and keeps those that the documents show.

They are what the dashboard's tests leave in `.local/screenshots`: each page in each of its states, most of
them of the stack that `make up` makes. Those in `docs/pictures` are copies.
"""

import shutil
import sys
from pathlib import Path

from tools import run_tests
from tools.environments import CHECKOUT, MAIN

TAKEN = CHECKOUT / ".local" / "screenshots"
KEPT = CHECKOUT / "docs" / "pictures"
#: what takes them; of two with one name that of the whole stack stays
TESTS = ("tests/dashboard", "tests/e2e/test_dashboard.py")
#: those that the documents show, by the name that they have there
SHOWN = {
    "disconnected": "gateway-vm-gone",
    "fleet": "fleet-light",
    "gateways": "gateways-in-each-status-light",
    "health": "health-gateway-vm-gone",
    "live-order": "live-order-preview",
    "orders-phone": "orders-dark-phone",
    "overview": "overview-light",
}
MOST_BYTES = 200_000


def problem(file: Path) -> str:
    """Why a picture can't be kept; empty if it can."""
    if not file.exists():
        return f"{file.name}: no test has taken it"
    size = file.stat().st_size
    return "" if size < MOST_BYTES else f"{file.name}: it has {size} bytes, and {MOST_BYTES} are too many"


def main() -> int:
    """Returns the exit code."""
    shutil.rmtree(TAKEN, ignore_errors=True)
    code, counts = run_tests.pytest(MAIN, "pictures", TESTS)
    print(counts)
    problems = [found for name in SHOWN.values() if (found := problem(TAKEN / f"{name}.png"))]
    if code or problems:
        print("\n".join(["The pictures stay as they were.", *problems]), file=sys.stderr)
        return 1
    KEPT.mkdir(exist_ok=True)
    for shown, taken in SHOWN.items():
        shutil.copyfile(TAKEN / f"{taken}.png", KEPT / f"{shown}.png")
    print(f"{len(list(TAKEN.iterdir()))} pictures are in {TAKEN}, {len(SHOWN)} of them in {KEPT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
