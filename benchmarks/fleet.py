"""The fleet's figures: what a pass costs, what a day costs, what a connect and a status cost.

Each part is a generator of lines; `python -m benchmarks fleet` prints them.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine

from benchmarks import fleet_budget, fleet_service
from benchmarks.fleet_pass import WRAPPING_KEY
from benchmarks.fleet_stubs import FIRST, account_of, address_of, enrolment_of
from broker.fleet.models import broker_accounts, enrolments
from broker.fleet.vault import LocalKeyWrapper, Vault
from soak.fleet.database import new_database, postgres, sqlalchemy_url

MANY, ANSWER_SECONDS, PASSES, WARMING = 10_000, 0.02, 3, 6
SIZES = (1, 200, 201, 1000)


class _Program:
    """A program of this folder that answers lines with lines of JSON."""

    def __init__(self, module: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )

    def read(self) -> dict[str, Any]:
        """The next line."""
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def ask(self) -> dict[str, Any]:
        """The answer to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.read()

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *_of: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait(30)


def fill(engine: Engine, droplets: int, certificate: str) -> None:
    """So many accounts that run, each with its droplet."""
    vault = Vault(LocalKeyWrapper(WRAPPING_KEY))
    login = {"username": "ib", "password": "secret", "gateway_token": "t" * 43}
    rows, given = [], []
    with engine.begin() as db:
        now = db.exec_driver_sql("select clock_timestamp()").scalar_one()
        for number in range(FIRST, FIRST + droplets):
            account = account_of(number)
            sealed = vault.seal(account, login)
            rows.append(
                {
                    "id": account, "user_id": f"user{number}", "username": f"user{number}",
                    "username_index": 1,
                    "environment": "demo", "ib_username_hash": f"{number:064x}", "wanted": "running",
                    "status": "running", "status_since": now, "do_droplet_id": number,
                    "do_droplet_name": f"user{number}-ib-demo-1", "do_server_status": "active",
                    "do_ip_address": address_of(number), "do_region": "nyc1", "key_name": sealed.key_name,
                    "sealed_data_key": sealed.data_key,
                    **{f"sealed_{name}": sealed.values[name] for name in login},
                    "pushed_version": 1, "credentials_droplet_id": number, "certificate_sha256": certificate,
                    "certificate_droplet_id": number, "generation": 1, "create_started_at": now,
                    "last_used_at": now, "created_at": now, "updated_at": now,
                }
            )  # fmt: skip
            given.append(
                {
                    "id": enrolment_of(number), "token_sha256": f"{number:064x}", "account_id": account,
                    "generation": 1, "created_at": now, "expires_at": now,
                }
            )  # fmt: skip
        db.execute(broker_accounts.insert(), rows)
        db.execute(enrolments.insert(), given)
        db.exec_driver_sql("analyze broker_accounts")


@contextlib.contextmanager
def _fleet(server: str, droplets: int, passes: int) -> Iterator[tuple[_Program, _Program]]:
    """The stubs and a reconciler over so many running accounts."""
    url = new_database(server, f"fleet{droplets}", virtual_time=False)
    with _Program("fleet_stubs", droplets, ANSWER_SECONDS) as stubs:
        where = stubs.read()
        engine = create_engine(sqlalchemy_url(url))
        fill(engine, droplets, where["certificate"])
        engine.dispose()
        arguments = (sqlalchemy_url(url), where["api"], where["port"], passes)
        with _Program("fleet_pass", *arguments) as passing:
            yield stubs, passing


def calls(server: str, sizes: tuple[int, ...] = SIZES) -> Iterator[str]:
    """What a pass asks DigitalOcean, counted where the requests arrive."""
    for droplets in sizes:
        with _fleet(server, droplets, 1) as (stubs, passing):
            told, counted = passing.ask(), stubs.ask()
        lists, other = counted.get("lists", 0), counted.get("other", 0)
        wanted = -(-droplets // 200)
        yield (
            f"a pass over {told['ready']} running accounts: {lists} list calls, {other} other calls; "
            f"wanted: {wanted} and 0"
        )


def many(server: str, droplets: int = MANY, passes: int = PASSES) -> Iterator[str]:
    """Passes over many accounts: time, memory, and whose work it was."""
    with _fleet(server, droplets, WARMING + passes) as (stubs, passing):
        first, _ = passing.ask(), stubs.ask()
        # A gateway's first probe unseals its token and makes the connection that is kept.
        for _ in range(1, WARMING):
            passing.ask(), stubs.ask()
        told, counted = [], []
        for _ in range(passes):
            told.append(passing.ask())
            counted.append(stubs.ask())
    if any(one["problem"] or one["ready"] > droplets for one in told):
        yield f"NOT a whole pass: {told}"
    probed = min(one["ready"] for one in told)
    seconds = [one["seconds"] for one in told]
    ours, stubs_ = (statistics.median(one["cpu"] for one in of) for of in (told, counted))
    yield (
        f"a pass over {droplets} accounts, {probed} of them probed over TLS: "
        f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}, {passes} passes; "
        f"the first one {first['seconds']:.1f} s over {first['ready']}); wanted: under 10 s"
    )
    yield (
        f"  CPU: {ours:.1f} s ours, {stubs_:.1f} s the stubs'; "
        f"list calls {counted[0].get('lists', 0)}, other {counted[0].get('other', 0)}"
    )
    yield f"  memory at most {told[-1]['memory']:.0f} MiB; wanted: under 400 MB"


def measure() -> Iterator[str]:
    """All figures, a line each, as they come."""
    with postgres() as server:
        yield from calls(server)
        yield from many(server)
    yield from fleet_budget.days()
    yield from fleet_service.measure()
