"""Services in processes of their own, beside the test's: see pass_process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.fleet.pass_process import Order
from tests.fleet.site import Site


class Services:
    """One process after another, forked from one that has imported everything."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, site: Site, database: str, account: str, action: str, **more: Any) -> int:
        """Has a process do something; its number. `more`: fields of an Order."""
        order = Order(
            database, site.api.url, site.api.token, str(site.home), site.port, account, action, **more
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def end(self) -> str:
        """How the process ended that was begun last: `killed` or `done`."""
        return self._line()

    def run(self, *order: Any, **more: Any) -> str:
        """Begins and awaits one."""
        self.begin(*order, **more)
        return self.end()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def points(site: Site) -> list[str]:
    """The points that the last process reached."""
    return Path(site.home, "points").read_text().split("\n")[:-1]


@contextlib.contextmanager
def serving_services() -> Iterator[Services]:
    command = [sys.executable, "-m", "tests.fleet.pass_process"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Services(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
