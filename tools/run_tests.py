"""Runs every test: `python -m tools.run_tests [PYTEST ARGUMENTS]`.

Everything in the main environment, the end-to-end tests among it; and once more, over ib_async, what
talks through the TWS library, in an environment that has it in ib_insync's place. Much of a test is
waiting, so the end-to-end tests, those over ib_async and two long folders run beside the rest, and are shown
after it.
The last line counts all: `N passed, N failed`.
"""

import contextlib
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools import pulumi_cli, pulumi_process
from tools.environments import CHECKOUT, IB_ASYNC, MAIN, Environment

RESULTS = CHECKOUT / ".local" / "test-results"
END_TO_END = "tests/e2e"
# With these beside it, the rest takes as long as what runs beside.
FLEET_AND_SERVICE = ("tests/fleet", "tests/service")
# What goes through the TWS library, and so runs a second time over ib_async.
TWS_TESTS = (
    "tests/tws/test_*.py",
    "tests/broker/test_ibkr*.py",
    "tests/broker/test_accounts.py",
    "tests/broker/test_factory.py",
    "tests/conformance/test_*.py",
    "tests/cli/test_gateway.py",
)
# Once is enough: IBKR's own client uses neither library, the judge judges, and the state machine is long.
INDEPENDENT = {"test_ibapi.py", "test_judge.py", "test_machine.py"}


@dataclass(frozen=True)
class Counts:
    """How tests ended; an error outside a test is a failure."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed" + (
            f", {self.skipped} skipped" if self.skipped else ""
        )


def counts_in(results: Path) -> Counts:
    """From a JUnit file; a run that left none has failed."""
    if not results.exists():
        return Counts(failed=1)
    total = Counts()
    for suite in ET.parse(results).getroot().iter("testsuite"):
        number = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
        failed = number["failures"] + number["errors"]
        total += Counts(max(number["tests"] - failed - number["skipped"], 0), failed, number["skipped"])
    return total


def pytest(
    environment: Environment, name: str, arguments: Sequence[str], output: Path | None = None
) -> tuple[int, Counts]:
    """One run of pytest; its exit code and counts. `output` takes what it prints, else it is shown."""
    results = RESULTS / f"{name}.xml"
    results.unlink(missing_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    cli = pulumi_cli.locate()
    if cli is None:
        print("There is no Pulumi CLI: `make test` sets it up.", file=sys.stderr)
        return 1, Counts(failed=1)
    env = os.environ | pulumi_process.search_path(cli, environment.python)
    argv = [str(environment.python), "-m", "pytest", f"--junitxml={results}", *arguments]
    with output.open("wb") if output else contextlib.nullcontext() as stream:
        code = subprocess.run(
            argv, cwd=CHECKOUT, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        ).returncode
    return code, counts_in(results)


def tws_tests() -> list[str]:
    """The files of TWS_TESTS."""
    found = [file for pattern in TWS_TESTS for file in sorted(CHECKOUT.glob(pattern))]
    return [str(file.relative_to(CHECKOUT)) for file in found if file.name not in INDEPENDENT]


def run_all() -> tuple[int, Counts]:
    """Every test; the worst exit code and all counts."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    beside = {
        "end-to-end": (MAIN, [END_TO_END]),
        "over ib_async": (IB_ASYNC, tws_tests()),
        "of fleet and service": (MAIN, list(FLEET_AND_SERVICE)),
    }
    logs = {name: RESULTS / f"{name.replace(' ', '-')}.log" for name in beside}
    with ThreadPoolExecutor(1) as pool:  # one after the other: two processors are soon full
        waiting = {
            name: pool.submit(pytest, environment, name.replace(" ", "-"), arguments, logs[name])
            for name, (environment, arguments) in beside.items()
        }
        code, counts = pytest(MAIN, "main", [f"--ignore={f}" for f in (END_TO_END, *FLEET_AND_SERVICE)])
        for name, run in waiting.items():
            print(f"\nThe tests {name}, which run meanwhile:", flush=True)
            code_beside, counts_beside = run.result()
            print(logs[name].read_text(errors="replace"), flush=True)
            code, counts = code or code_beside, counts + counts_beside
    return code, counts


def main() -> int:
    """Returns the exit code."""
    chosen = sys.argv[1:]
    # A choice of tests is the person's, and is run as it stands.
    code, counts = pytest(MAIN, "main", chosen) if chosen else run_all()
    print(f"\n{counts}")
    return code


if __name__ == "__main__":
    sys.exit(main())
