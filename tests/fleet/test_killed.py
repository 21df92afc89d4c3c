"""SIGKILL before and after every call that changes something at DigitalOcean, over the real client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text

from broker.fleet.account import Wanted
from broker.fleet.digitalocean import PydoDroplets
from tests.fleet.local_digitalocean import LocalDigitalOcean, serving
from tests.fleet.model import Fleet


@pytest.fixture
def api(tmp_path) -> Iterator[LocalDigitalOcean]:
    with serving(tmp_path) as found:
        found.note("droplet_limit", 1000)
        yield found


@pytest.fixture
def run(api, engine, migrated) -> Iterator[Callable[[int, int], str]]:
    """Runs passes in a process of their own; how it ended."""
    command = [sys.executable, "-m", "tests.fleet.pass_process", migrated, api.url, api.token]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(kill_at: int, passes: int) -> str:
        process.stdin.write(f"{kill_at} {passes}\n")
        process.stdin.flush()
        found = process.stdout.readline().strip()
        with engine.begin() as db:  # its lease runs out
            db.execute(text("update fleet_lease set expires_at = clock_timestamp()"))
        return found

    yield ask
    process.stdin.close()
    process.wait(30)


LIVES = {
    "connect": (Wanted.RUNNING, "initializing", "enrolling", 1),
    "delete": (Wanted.DELETED, "deleted", "", 0),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("life", LIVES)
def test_a_killed_process_loses_and_doubles_nothing(api, engine, vault, run, life):
    wanted, status, reason, droplets = LIVES[life]
    fleet = Fleet(engine, vault)  # what comes after a death; it has the real client too
    client = PydoDroplets(api.token, api.url)

    def passes(count: int) -> None:
        fleet.start()
        fleet.reconciler._parts = replace(fleet.reconciler._parts, droplets=client)
        for _ in range(count):
            assert fleet.reconciler.run_pass() is not None
            api.settle()
        fleet.lease.release()

    for kill_at in range(1, 100):
        account = fleet.connect(name=f"{life}{kill_at}")
        if life != "connect":
            passes(2)
            fleet.repository.want(fleet.of(account), wanted, "ada")
        ended = run(kill_at, 3)
        api.settle()
        fleet.advance(seconds=130)
        passes(4)
        assert fleet.status(account) == (status, reason), kill_at
        assert len(api.ids()) == droplets, kill_at
        if ended == "done":
            assert kill_at > 6
            return
        assert ended == "killed"
        for number in api.ids():
            api.run(api.account.delete_droplet(number))
        fleet.drop(account)
    raise AssertionError("it never came to an end")
