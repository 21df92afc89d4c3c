"""The service as a process, as the platform runs it: uvicorn, a real gateway, two revisions, signals.

What one process can show with less is in the other modules. Here: a gateway that goes away and
comes back, the hand-over between an old and a new revision, ends by SIGTERM and by SIGKILL,
wrong settings, the migration command, and both kinds of listener.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.broker.paper_gateway import ROOT, Paper, eventually, free_port, paper_gateway
from tests.service.conftest import Issuer

BASE = "/api/v1/connections/default"
Serve = Callable[..., "Served"]
# TWS says PreSubmitted first; which of the two an answer shows is the gateway's pace.
WORKING = ("accepted", "submitted")


class Served:
    """A `python -m broker.service serve` and a client of it."""

    def __init__(self, environment: dict[str, str], token: str, log: Path) -> None:
        self.log = log
        self.port = free_port()
        given = {**environment, "HOST": "127.0.0.1", "PORT": str(self.port)}
        self.process = run(["serve"], given, log)
        transport = httpx.HTTPTransport(uds=environment.get("UNIX_SOCKET"))
        headers = {"authorization": f"Bearer {token}"}
        url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(transport=transport, base_url=url, headers=headers, timeout=30)
        eventually(self._up, "the service answers its liveness probe")

    def _up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, what: str) -> httpx.Response:
        return self.client.get(f"{BASE}/{what}")

    def order(self, **changes: Any) -> httpx.Response:
        body = {"symbol": "AAPL", "side": "buy", "qty": 1, "order_type": "limit", "limit_price": 100.0}
        return self.client.post(f"{BASE}/orders", json=body | {"client_order_id": uuid.uuid4().hex} | changes)

    def healthy(self) -> bool:
        return bool(self.get("health").json()["ok"])

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(20)

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def run(arguments: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    given = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    with log.open("ab") as out:
        command = [sys.executable, "-m", "broker.service", *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=given | environment, stdout=out, stderr=out)


@pytest.fixture
def serve(environment: dict[str, str], issuer: Issuer, tmp_path: Path) -> Iterator[Serve]:
    """Starts services, and ends them."""
    made: list[Served] = []

    def start(**changes: str) -> Served:
        token = issuer.token("trader", exp=4_000_000_000)
        made.append(Served(environment | changes, token, tmp_path / f"service-{len(made)}.log"))
        return made[-1]

    yield start
    for served in made:
        served.close()


@pytest.fixture
def paper() -> Iterator[Paper]:
    """An exchange and a logged-in gateway."""
    with paper_gateway() as made:
        yield made


@pytest.fixture
def ibkr(paper: Paper) -> dict[str, str]:
    """What the platform sets for a service that trades through the paper gateway."""
    return {
        "BROKER_TYPE": "ibkr",
        "IBKR_GATEWAY_HOST": "127.0.0.1",
        "IBKR_GATEWAY_PORT": str(paper.port),
        "IBKR_TRADING_MODE": "paper",
        "LEASE_SECONDS": "3",
    }


def test_a_gateway_that_goes_away_is_a_503_with_since_and_doing_and_comes_back(
    serve: Serve,
    paper: Paper,
    ibkr: dict[str, str],
) -> None:
    service = serve(**ibkr)
    eventually(service.healthy, "it connects")
    assert service.get("account").json()["id"] == paper.account
    assert service.order().json()["status"] in WORKING
    paper.processes[-1].kill()
    away = eventually(lambda: (a := service.get("positions")).status_code == 503 and a, "the loss is noticed")
    for answer in (away, service.get("account"), service.get("orders"), service.order()):
        assert answer.status_code == 503, "never an empty list, never a 500"
        found = answer.json()
        assert found["since"] == away.json()["since"]
        assert found["doing"]
        assert int(answer.headers["retry-after"]) >= 1
    assert service.client.get("/readyz").status_code == 200, (
        "a gateway's restart must not take the service down"
    )
    health = service.get("health")
    assert health.status_code == 200
    assert health.json()["ok"] is False
    paper.start_gateway()
    eventually(service.healthy, "it reconnects by itself")
    (order,) = service.get("orders").json()
    assert order["status"] in WORKING


def test_the_new_revision_waits_takes_over_and_can_cancel_the_old_ones_orders(
    serve: Serve,
    paper: Paper,
    ibkr: dict[str, str],
) -> None:
    old = serve(**ibkr)
    eventually(old.healthy, "the old revision connects")
    order = old.order().json()
    new = serve(**ibkr)
    assert new.client.get("/readyz").status_code == 200, "a standby is ready: else a rollout would never end"
    eventually(new.healthy, "the old revision hands over while it still runs")
    standby = eventually(lambda: (a := old.order()).status_code == 503 and a, "the old one stops trading")
    assert standby.json()["type"].endswith("stand-by")
    assert standby.headers["retry-after"]
    cancelled = new.client.delete(f"{BASE}/orders/{order['id']}")
    assert cancelled.json()["status"] == "cancelled", (
        "one fixed client id, so its orders are the new one's too"
    )
    assert old.end() == 0
    assert new.healthy(), "the end of the old one changes nothing"
    assert len(paper.book()) == 1


def test_sigterm_releases_the_connection_at_once(serve: Serve, ibkr: dict[str, str]) -> None:
    old = serve(**ibkr)
    eventually(old.healthy, "it connects")
    assert old.end() == 0
    assert "Traceback" not in old.log.read_text()
    new = serve(**(ibkr | {"LEASE_SECONDS": "300"}))
    eventually(new.healthy, "the next one needn't wait for the lease to run out", seconds=20)


def test_an_open_stream_does_not_hold_the_end_up(serve: Serve) -> None:
    """It would last as long as the platform grants, and then be cut off in the middle of a line."""
    service = serve()
    with service.client.stream("GET", f"{BASE}/events") as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry"), "the client listens"
        service.process.terminate()
        rest = list(lines)  # to the stream's own end: a connection that breaks would raise
    assert not [line for line in rest if line]
    assert service.process.wait(20) == 0
    assert "Cancel 1 running" not in service.log.read_text(), "what uvicorn breaks off after 4 s"


def test_a_killed_holder_is_succeeded_when_its_lease_runs_out(serve: Serve, ibkr: dict[str, str]) -> None:
    old = serve(**ibkr)
    eventually(old.healthy, "it connects")
    order = old.order().json()
    old.process.kill()
    new = serve(**ibkr)
    eventually(new.healthy, "the lease ran out")
    assert new.get(f"orders/{order['id']}").json()["status"] in WORKING, "found again, not sent again"


def test_a_frozen_holder_comes_back_as_standby(serve: Serve, ibkr: dict[str, str], paper: Paper) -> None:
    old = serve(**ibkr)
    eventually(old.healthy, "it connects")
    old.process.send_signal(signal.SIGSTOP)
    new = serve(**ibkr)
    eventually(
        lambda: new.get("health").json()["state"] in ("client_id_in_use", "connected"), "the lease ran out"
    )
    old.process.send_signal(signal.SIGCONT)
    eventually(new.healthy, "the thawed one gives the connection up")
    assert old.order().status_code == 503
    assert new.order().status_code == 201
    assert len(paper.book()) == 1


def test_a_database_that_goes_away_refuses_orders_and_sends_nothing(
    serve: Serve,
    database_url: str,
    paper: Paper,
    ibkr: dict[str, str],
) -> None:
    import psycopg

    service = serve(**ibkr)
    eventually(service.healthy, "it connects")
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as db:
        db.execute("alter table orders rename to orders_away")
        try:
            answer = service.order()
        finally:
            db.execute("alter table orders_away rename to orders")
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("journal-unavailable")
    assert paper.book() == [], "what can't be written down isn't sent"
    assert service.order().status_code == 201


def test_it_listens_on_a_unix_socket_when_one_is_named(serve: Serve, postgres: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="sk") as folder:
        service = serve(UNIX_SOCKET=f"{folder}/api")
        assert service.client.get("/readyz").status_code == 200
        assert service.end() == 0


def test_a_broker_that_is_not_configured_serves_and_says_so(serve: Serve) -> None:
    service = serve(BROKER_TYPE="alpaca")
    answer = service.get("account")
    assert answer.status_code == 503
    assert "ALPACA_API_KEY" in answer.json()["detail"]
    assert service.get("health").json()["state"] == "not_configured"
    assert service.client.get("/readyz").status_code == 200


def test_wrong_settings_end_it_at_once_with_all_of_them_and_no_secret(
    environment: dict[str, str], tmp_path: Path
) -> None:
    wrong = environment | {
        "DATABASE_URL": "mysql://user:hunter2@host/db",
        "OIDC_ISSUER": "ftp://issuer",
        "PORT": "0",
        "BROKER_TYPE": "etrade",
        "IBKR_CLIENT_ID": "x",
    }
    log = tmp_path / "log"
    process = run(["serve"], wrong, log)
    assert process.wait(30) == 2
    said = log.read_text()
    for name in ("DATABASE_URL", "OIDC_ISSUER", "PORT", "BROKER_TYPE", "IBKR_CLIENT_ID"):
        assert name in said
    assert "hunter2" not in said


def test_logs_are_json_with_the_request_id_and_without_tokens(serve: Serve) -> None:
    service = serve()
    service.client.get(f"{BASE}/account", headers={"x-request-id": "look-for-me"})
    assert service.end() == 0
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    [line] = [row for row in lines if row.get("request_id") == "look-for-me" and row["event"] == "request"]
    assert (line["status"], line["user"]) == (200, "ada")
    assert "Bearer ey" not in service.log.read_text()


def test_migrate_upgrades_an_empty_database_repeats_and_comes_down_again(
    empty_database: str, environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    given = environment | {"DATABASE_URL": empty_database}

    def migrate(*arguments: str) -> str:
        before = log.stat().st_size if log.exists() else 0
        assert run(["migrate", *arguments], given, log).wait(30) == 0, log.read_text()
        return log.read_text()[before:]

    assert re.match(r"migrated from an empty database to \d{4}\n", migrate())
    assert "nothing to do" in migrate()
    assert "to an empty database" in migrate("--revision", "base")
    assert "migrated from an empty database" in migrate()


def test_migrate_gives_up_on_a_database_that_never_comes(environment: dict[str, str], tmp_path: Path) -> None:
    url = f"postgresql+psycopg://user:hunter2@127.0.0.1:{free_port()}/db"
    log = tmp_path / "log"
    assert run(["migrate", "--wait", "1"], environment | {"DATABASE_URL": url}, log).wait(30) == 3
    assert "waiting for the database" in log.read_text()
    assert "hunter2" not in log.read_text()


def test_two_migrations_at_once_are_one(
    empty_database: str, environment: dict[str, str], tmp_path: Path
) -> None:
    given = environment | {"DATABASE_URL": empty_database}
    log = tmp_path / "log"
    both = [run(["migrate"], given, log) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0], log.read_text()
