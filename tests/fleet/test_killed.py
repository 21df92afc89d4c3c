"""SIGKILL at every point of everything that a user can ask for, with nothing made up but the cloud.

What comes after a death is another process with the same database: here the test's own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fleet.model import Fleet
from tests.fleet.pass_process import act
from tests.fleet.services import Services, points, serving_services
from tests.fleet.site import Site, serving_site

RUNNING = ("running", "")
#: what is asked, where it comes to rest, droplets then, and how often the gateway is started with a login:
#: each start may be a push to somebody's phone
Deed = tuple[str, tuple[str, str], int, int]
CYCLES: dict[str, tuple[Deed, Deed]] = {
    "connect and delete": (("connect", RUNNING, 1, 1), ("deleted", ("deleted", ""), 0, 0)),
    "stop and start": (("stopped", ("stopped", "powered_off"), 1, 0), ("running", RUNNING, 1, 1)),
    "restart and other credentials": (("restart", RUNNING, 1, 1), ("credentials", RUNNING, 1, 1)),
    "hibernate and wake": (("hibernated", ("stopped", "hibernated"), 0, 0), ("running", RUNNING, 1, 1)),
}
LEAST_POINTS = {
    "connect": 12, "deleted": 6, "stopped": 6, "running": 6, "restart": 6, "credentials": 6, "hibernated": 6,
}  # fmt: skip
"""Fewer would mean that the points aren't found any more."""


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    with serving_site(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with serving_services() as found:
        yield found


@pytest.fixture
def fleet(engine, vault, site) -> Fleet:
    return Fleet(engine, vault, site)


def come_to_rest(fleet: Fleet, account: str, until: tuple[str, str]) -> None:
    """A new service runs passes; the time that it waits for a lost answer goes by if nothing else helps."""
    fleet.start()
    for seconds in (0, 130):
        fleet.advance(seconds=seconds)
        for _ in range(6):
            told = fleet.pass_()
            if fleet.status(account) == until and not told.moving:
                return


@pytest.mark.timeout(400)
@pytest.mark.parametrize("cycle", CYCLES)
def test_a_killed_service_loses_and_doubles_nothing(fleet, site, services, migrated, cycle):
    found: dict[str, int] = {}
    account = ""
    if cycle != "connect and delete":
        account = fleet.connect()
        come_to_rest(fleet, account, RUNNING)
    for at in range(1, 60):
        for action, until, droplets, starts in CYCLES[cycle]:
            before = site.machines.starts[account] if action != "connect" else 0
            creates = site.api.requests.count("POST /v2/droplets")
            said = f"credentials:ib:{at}" if action == "credentials" else action
            target = f"ib{at}" if action == "connect" else account
            fleet.lease.release()
            if action not in found:
                ended = services.run(site, migrated, target, said, until=until, at=at)
                assert ended in ("killed", "done")
                if ended == "done":
                    found[action] = at - 1
            where = f"{action}, killed before {at}: {points(site)}"
            if at == 1 or (action in found and ended != "done"):
                # Its request died with it, before anything was written: the user asks again.
                act(fleet.repository, target, said)
            if action == "connect":
                account = fleet.repository.of_user("ada")[0].id
            come_to_rest(fleet, account, until)
            assert fleet.status(account) == until, where
            assert len(site.machines.of(account)) == len(site.api.ids()) == droplets, where
            assert site.problems == [], where
            assert site.machines.starts[account] - before == starts, where
            assert site.api.requests.count("POST /v2/droplets") - creates <= 1, where
            if action == "credentials":
                assert site.machines.of(account)[0].credentials == ("ib", str(at)), where
            ended = ""
        if len(found) == 2:
            assert all(found[action] >= LEAST_POINTS[action] for action in found), found
            return
    raise AssertionError(f"it never came to an end: {found}")
