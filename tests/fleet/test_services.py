"""Several services over one database and one DigitalOcean team: at once, frozen, with clocks that differ."""

from __future__ import annotations

import ast
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import broker.fleet
from broker.fleet.account import Wanted
from broker.fleet.repository import FleetLease
from broker.service.database import make_engine
from broker.service.migrate import migrate
from tests.fleet.model import Fleet
from tests.fleet.services import Services, serving_services
from tests.fleet.site import Site, serving_site

RUNNING = ("running", "")
CREATE = "POST /v2/droplets"


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    with serving_site(tmp_path) as found:
        yield found


@pytest.fixture
def fleet(engine, vault, site) -> Fleet:
    return Fleet(engine, vault, site)


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Services, Services]]:
    with serving_services() as one, serving_services() as other:
        yield one, other


def test_two_services_at_once_make_one_droplet(fleet, site, two, migrated):
    fleet.lease.release()
    for service in two:
        service.begin(site, migrated, "ib", "connect", until=RUNNING, release=True, passes=400)
    assert [service.end() for service in two] == ["done", "done"]
    [account] = fleet.repository.of_user("ada")
    assert site.api.requests.count(CREATE) == 1
    assert site.machines.starts == {account.id: 1}
    assert site.problems == []
    for wanted, until in ((Wanted.HIBERNATED, ("stopped", "hibernated")), (Wanted.RUNNING, RUNNING)):
        fleet.repository.want(fleet.of(account.id), wanted, "ada")
        for service in two:
            service.begin(site, migrated, account.id, "", until=until, release=True, passes=400)
        assert [service.end() for service in two] == ["done", "done"]
    assert site.api.requests.count(CREATE) == 2
    assert sum(request.startswith("DELETE") for request in site.api.requests) == 1
    assert site.problems == []


def until_frozen(number: int) -> bool:
    """Whether the process stops before it ends."""
    process = psutil.Process(number)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_STOPPED:
                return True
        except psutil.NoSuchProcess:
            return False
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.01)
    raise AssertionError("it neither froze nor ended")


#: what the frozen one was doing, where it would have ended, and what the user wants when it wakes up
FROZEN = {
    "connect": ("connect", RUNNING, ""),
    "restart": ("restart", RUNNING, ""),
    "a stop that was taken back": ("stopped", ("stopped", "powered_off"), "running"),
    "a hibernation that was taken back": ("hibernated", ("stopped", "hibernated"), "running"),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("life", FROZEN)
def test_a_holder_that_freezes_anywhere_and_wakes_up_does_no_harm(fleet, site, two, migrated, life):
    action, until, afterwards = FROZEN[life]
    account = ""
    if action != "connect":
        account = fleet.connect()
        fleet.until(account, *RUNNING)
    for at in range(2, 60):  # before 1 nothing was asked
        before = site.machines.starts[account]
        fleet.lease.release()
        target = account or f"ib{at}"
        more = {"until": until, "at": at, "signal": "SIGSTOP", "passes": 60}
        number = two[0].begin(site, migrated, target, action, **more)
        try:
            frozen = until_frozen(number)
            if not account:
                account = fleet.repository.of_user("ada")[0].id
                before = 0
            fleet.start()  # its lease has run out
            if afterwards:
                fleet.repository.want(fleet.of(account), Wanted(afterwards), "ada")
            fleet.passes(3)
            fleet.advance(seconds=130)  # so much later
            fleet.until(account, *RUNNING, most=20)
        finally:
            if psutil.pid_exists(number):
                os.kill(number, signal.SIGCONT)
        two[0].end()
        where = f"frozen at {at}"
        fleet.lease.take()
        fleet.pass_()
        assert len(site.api.ids()) == 1, f"{where}: a double is removed within one pass"
        fleet.until(account, *RUNNING, most=20)
        assert site.problems == [], where
        if not afterwards:
            assert site.machines.starts[account] - before == 1, where
        if not frozen:
            assert at > 6
            return
        if action == "connect":
            fleet.repository.want(fleet.of(account), Wanted.DELETED, "ada")
            fleet.until(account, "deleted")
            account = ""
    raise AssertionError("it never came to an end")


def test_clocks_that_are_minutes_apart_change_nothing(fleet, site, two, migrated):
    fleet.lease.release()
    for service, ahead in zip(two, (1800.0, -1800.0), strict=True):
        service.begin(site, migrated, "ib", "connect", until=RUNNING, release=True, passes=400, clock=ahead)
    assert [service.end() for service in two] == ["done", "done"]
    [account] = fleet.repository.of_user("ada")
    assert site.api.requests.count(CREATE) == 1
    assert site.machines.starts == {account.id: 1}
    # Who is ahead doesn't think that the other's lease has run out, nor the other way round.
    holder = FleetLease(fleet.engine, "test", seconds=600)
    assert holder.take()
    fleet.repository.want(fleet.of(account.id), Wanted.STOPPED, "ada")
    for service, ahead in zip(two, (1800.0, -1800.0), strict=True):
        service.run(site, migrated, account.id, "", passes=3, clock=ahead)
    assert fleet.status(account.id) == RUNNING
    holder.release()
    two[0].run(site, migrated, account.id, "", passes=3, clock=1800.0)
    assert fleet.status(account.id)[0] == "stopped", "or the test shows nothing"


def test_no_module_of_the_fleet_reads_the_processs_own_clock():
    """`time.monotonic` measures how long something took; what is written down is the database's time."""
    found = []
    for path in Path(broker.fleet.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = f"{node.value.id}.{node.attr}"
                if name in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"):
                    found.append(f"{path.name}:{node.lineno}: {name}")
    assert found == []


def test_two_stacks_in_one_team_leave_each_other_alone(fleet, site, vault, empty_database):
    database = make_engine(empty_database)
    migrate(database, say=lambda _said: None)
    other = Fleet(database, vault, site, stack="test-2")
    mine, theirs = fleet.connect(), other.connect()

    def both(count: int) -> None:
        for _ in range(count):
            for one in (fleet, other):
                site.sign_with(one.keys.sign)
                one.pass_()

    both(6)
    assert (fleet.status(mine), other.status(theirs)) == (RUNNING, RUNNING)
    assert fleet.of(mine).do_droplet_name == other.of(theirs).do_droplet_name, "names aren't unique"
    [kept] = site.machines.of(mine)
    fleet.repository.want(fleet.of(mine), Wanted.HIBERNATED, "ada")
    other.repository.want(other.of(theirs), Wanted.STOPPED, "ada")
    both(4)
    assert fleet.status(mine) == ("stopped", "hibernated")
    assert other.status(theirs) == ("stopped", "powered_off")
    assert site.api.ids() == [other.of(theirs).do_droplet_id]
    fleet.repository.want(fleet.of(mine), Wanted.RUNNING, "ada")
    site.api.note("droplet_limit", 1)  # the team's: theirs counts
    both(2)
    assert fleet.status(mine) == ("error", "quota_reached")
    for one in (fleet, other):
        kinds = {kind for kind, _ in one.alarms}
        assert "unknown_droplet" not in kinds
    assert kept.name not in site.machines.all
    database.dispose()
