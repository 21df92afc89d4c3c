"""`make up`, `up` without changes, and the plan of a hundred users, each beside what the engine alone needs.

The floor is the same CLI over a provider that echoes and a program that declares as many empty resources
(`empty_resources.py`), run in turn with what is measured, so that a machine's moods hit both.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.empty_resources import write_program
from localcloud.control import Daemon
from tools.environments import CHECKOUT
from tools.local_cloud import NETWORKS, is_free
from tools.local_stack import LocalStack

USERS = 100


def seconds(work: Callable[[], Any]) -> float:
    """How long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_of(runs: list[float]) -> str:
    """Median, and the range that it lies in."""
    return f"{statistics.median(runs):.2f} s ({min(runs):.2f} to {max(runs):.2f}, {len(runs)} runs)"


class Floor:
    """The engine over a program of N empty resources, with the local stack's own settings for the CLI."""

    def __init__(self, folder: Path, stack: LocalStack, port: int) -> None:
        self._folder = folder
        write_program(folder)
        (folder / "state").mkdir()
        self._env = stack._base() | {
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_DEBUG_PROVIDERS": f"echo:{port}",
        }
        self._cli = str(stack._pulumi_program())
        self.run("stack", "init", "empty", count=0)

    def run(self, *arguments: str, count: int) -> None:
        """Run the CLI over a program of `count` resources."""
        env = os.environ | self._env | {"EMPTY_RESOURCES": str(count)}
        done = subprocess.run(
            [self._cli, *arguments], cwd=self._folder, env=env, capture_output=True, text=True
        )
        if done.returncode != 0:
            sys.exit(f"the floor's own run failed:\n{done.stdout}\n{done.stderr}")


@contextlib.contextmanager
def echo_provider() -> Iterator[int]:
    """The provider of the floor; gives its port."""
    argv = [sys.executable, "-m", "benchmarks.empty_resources", "serve"]
    with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def engine(stack: LocalStack, command: str, *options: str) -> float:
    """The time of one command of the CLI on the stack, everything around it prepared."""
    with stack._ready() as lock:
        return seconds(lambda: stack._pulumi(command, *options, lock=lock))


def up_from_nothing(folder: Path, runs: int) -> Iterator[str]:
    """The whole of `make up` but for the set-up: daemon, accounts, secrets, engine, machines."""
    times = []
    for run in range(runs):
        stack = new_stack(folder / f"fresh{run}")
        try:
            times.append(seconds(stack.up))
        finally:
            stack.destroy()
    yield f"up from nothing: {median_of(times)}; wanted: under 30 s"


def up_without_changes(stack: LocalStack, floor: Floor, runs: int) -> Iterator[str]:
    """`up` of an unchanged stack against the floor with as many resources."""
    stack.up()
    count = len(stack._checkpoint()["resources"])
    floor.run("up", "--yes", "--skip-preview", "--stack", "empty", count=count)
    ours, engines = [], []
    for _ in range(runs):
        ours.append(engine(stack, "up", "--yes", "--skip-preview"))
        engines.append(
            seconds(lambda: floor.run("up", "--yes", "--skip-preview", "--stack", "empty", count=count))
        )
    ratio = statistics.median(one / other for one, other in zip(ours, engines, strict=True))
    yield f"up without changes, {count} resources: {median_of(ours)}"
    yield f"  the engine with {count} empty resources: {median_of(engines)}"
    yield f"  ratio {ratio:.2f}; wanted: at most 1.5"


def plan_of_many_users(folder: Path, port: int, runs: int) -> Iterator[str]:
    """A plan from nothing for one user and for a hundred, and what the engine needs for the difference."""
    stack = new_stack(folder / "users")
    floor = Floor(make(folder / "users-floor"), stack, port)
    try:
        with stack.locked():
            pass
        times: dict[int, list[float]] = {1: [], USERS: []}
        floors: dict[int, list[float]] = {1: [], USERS: []}
        counts = {}
        for count in times:
            declare_users(stack, count)
            with stack._ready():
                pass  # logins and secrets of all users are made here, once
            Daemon(stack.cloud.home).call("status")
            for _ in range(runs):
                times[count].append(engine(stack, "preview"))
            counts[count] = planned(stack)
            for _ in range(runs):
                floors[count].append(
                    seconds(lambda n=counts[count]: floor.run("preview", "--stack", "empty", count=n))
                )
        one, many = (statistics.median(times[count]) for count in times)
        added = statistics.median(floors[USERS]) - statistics.median(floors[1])
        yield f"plan for 1 user, {counts[1]} resources: {median_of(times[1])}"
        yield f"plan for {USERS} users, {counts[USERS]} resources: {median_of(times[USERS])}"
        yield f"  the engine's own share of the added resources: {added:.2f} s"
        yield f"  without it {(many - added) / one:.2f} times the first user's plan; wanted: at most 3"
    finally:
        stack.destroy()


def declare_users(stack: LocalStack, count: int) -> None:
    """Declare that many users on top of the tracked configuration."""
    stack.config.set(
        "ibkr:ibeam.users", [{"name": f"user{n:03}", "environment": "paper"} for n in range(count)]
    )


def planned(stack: LocalStack) -> int:
    """How many resources the stack's plan has."""
    import json

    told = json.loads(stack._ask("preview", "--stack", "local", "--json"))
    return sum(told["changeSummary"].values())


def new_stack(home: Path) -> LocalStack:
    """A stack beside whatever else runs here; the engine's output goes to a file."""
    network = next(network for network in reversed(NETWORKS) if is_free(network))
    return LocalStack(home=make(home), network=network, quiet=home.with_suffix(".log"))


def make(folder: Path) -> Path:
    """A folder, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def measure(runs: int = 3) -> Iterator[str]:
    """All figures, a line each, as they come."""
    with tempfile.TemporaryDirectory(prefix="ibkr-bench-") as name, echo_provider() as port:
        folder = Path(name)
        yield from up_from_nothing(folder, runs)
        stack = new_stack(folder / "stack")
        try:
            yield from up_without_changes(stack, Floor(make(folder / "floor"), stack, port), 2 * runs)
        finally:
            stack.destroy()
        yield from plan_of_many_users(folder, port, runs)
