"""A service of its own that does one thing for a user and runs passes, and may be ended at any point.

    python -m tests.fleet.pass_process

Reads a JSON object a line (`Order`'s fields) and answers each with the number of the process that carries it
out, and then with how that ended: `killed`, `done`, or what went wrong. That process is forked before any
connection is opened: importing pydo and making its client takes seconds.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Imported by the first use otherwise, which is in every process anew, and takes longer than the rest.
import azure.core.rest._requests_basic  # noqa: F401
import psycopg  # noqa: F401
import pydo  # noqa: F401

from broker.fleet.account import Wanted
from broker.fleet.agents import TlsAgents
from broker.fleet.digitalocean import Budget, PydoDroplets
from broker.fleet.enrolment import Enroller, EnrolmentLater, EnrolmentRefused
from broker.fleet.keys import FleetKeys
from broker.fleet.reconciler import FleetSettings, Reconciler
from broker.fleet.repository import AlreadyConnected, FleetLease, Repository
from broker.fleet.spec import DropletSettings
from broker.fleet.vault import LocalKeyWrapper, Vault
from broker.service.database import make_engine
from tests.fleet.boundaries import Boundaries
from tests.fleet.droplets import ASKED, ASKING
from tests.fleet.site import MANY


@dataclass
class Order:
    """What a process is to do. `until`: status and reason at which it is done; `at`: where it is ended."""

    database: str
    api: str
    token: str
    home: str
    port: int
    account: str
    action: str = ""
    until: tuple[str, str] = ("", "")
    at: int = 0
    signal: str = "SIGKILL"
    passes: int = 40
    lease_seconds: float = 60.0
    #: gives the lease away after each pass, so that another process has the next one
    release: bool = False
    #: seconds that this process's clock is ahead
    clock: float = 0.0


def act(repository: Repository, account_id: str, action: str) -> None:
    """What a user asks for."""
    if action == "connect":
        with contextlib.suppress(AlreadyConnected):
            repository.connect("ada", "demo", account_id, "secret", "ada")
        return
    account = repository.get(account_id)
    assert account is not None
    if action == "restart":
        repository.want_restart(account, "ada")
    elif action.startswith("credentials:"):
        repository.set_credentials(account, *action.split(":")[1:], by="ada")
    elif action:
        repository.want(account, Wanted(action), "ada")


def enrol_who_asks(enroller: Enroller, home: Path) -> None:
    """What droplets ask, as they would over HTTP; one whose answer was lost asks again."""
    for asking in sorted(home.glob(f"droplets/*/*/{ASKING}")):
        if not asking.with_name(ASKED).exists():
            with contextlib.suppress(EnrolmentLater, FileNotFoundError):  # it was deleted meanwhile
                with contextlib.suppress(EnrolmentRefused):
                    enroller.enrol(*json.loads(asking.read_text()))
                asking.with_name(ASKED).touch()


def set_clock(ahead: float) -> None:
    """This process's clock is so many seconds ahead from now on, as far as the fleet could read it."""
    real = time.time

    class Shifted(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz) + dt.timedelta(seconds=ahead)

    time.time = lambda: real() + ahead
    for name, module in list(sys.modules.items()):
        if name.startswith("broker.") and getattr(module, "datetime", None) is dt.datetime:
            module.datetime = Shifted  # type: ignore[attr-defined]


def run(order: Order, client: PydoDroplets) -> None:
    set_clock(order.clock)
    engine = make_engine(order.database, 2)  # whoever freezes is cut off soon
    vault = Vault(LocalKeyWrapper({"k1": b"1" * 32}))
    keys = FleetKeys(engine, vault)
    repository = Repository(engine, vault, keys)
    agents = TlsAgents(keys.sign, port=order.port)
    settings = FleetSettings(
        "test", "https://service.example", keys.push_key, DropletSettings("203.0.113.9"),
        probes=2, steps=1,
    )  # fmt: skip
    alarm = lambda _kind, _text: None  # noqa: E731 - nobody to tell
    enroller = Enroller(repository, client, agents, alarm)
    lease = FleetLease(engine, "test", order.lease_seconds)
    reconciler = Reconciler(settings, repository, client, agents, lease, alarm)
    with Path(order.home, "points").open("w") as points:

        def note(name: str) -> None:
            points.write(name + "\n")
            points.flush()

        Boundaries(order.at, signal.Signals[order.signal], note).install(engine)
        act(repository, order.account, order.action)
        for _ in range(order.passes):
            reconciler.run_pass()
            if order.release:
                lease.release()
            enrol_who_asks(enroller, Path(order.home))
            if order.until[0] and status_of(repository, order) == order.until:
                return
            time.sleep(0.03)  # the cloud works
    if order.until[0]:
        raise AssertionError(f"it didn't get there: {status_of(repository, order)}")


def status_of(repository: Repository, order: Order) -> tuple[str, str]:
    """By the IBKR user's name for one that this process has connected."""
    found: Any = repository.get(order.account)
    if found is None:
        found = next((a for a in repository.to_reconcile()), None)
    return (found.status, found.status_reason) if found is not None else ("", "")


def main() -> None:
    clients: dict[str, PydoDroplets] = {}
    for line in sys.stdin:
        order = Order(**json.loads(line))
        order.until = (order.until[0], order.until[1])
        if order.api not in clients:
            clients[order.api] = PydoDroplets(order.token, order.api, Budget(MANY, MANY), timeout=5)
        child = os.fork()
        if child == 0:
            try:
                run(order, clients[order.api])
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("killed" if killed else "done" if status == 0 else f"failed {status}", flush=True)


if __name__ == "__main__":
    main()
