"""The service as a process with its fleet on: the end of an instance, and a database that goes away."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import psycopg
from sqlalchemy import make_url

from broker.service.database import make_engine
from broker.service.migrate import migrate
from tests.broker.paper_gateway import eventually
from tests.fleet.local_digitalocean import LocalDigitalOcean
from tests.service.conftest import Issuer
from tests.service.fleet_agents import Agents
from tests.service.fleet_fixtures import (
    BASE,
    cloud,
    fleet_changes,
    fleet_environment,
    fleet_service,
    login,
    until,
)
from tests.service.test_process import Served

__all__ = ["cloud", "fleet_changes", "fleet_environment"]


def test_an_instance_ends_in_time_though_a_droplet_keeps_it_waiting(
    fleet_environment: dict[str, str], cloud: LocalDigitalOcean, issuer: Issuer, tmp_path: Path
) -> None:
    served = Served(fleet_environment, issuer.token("user", exp=4_000_000_000), tmp_path / "service.log")
    anyone = httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=60)

    def enrol(body: dict[str, str]) -> int:
        return anyone.post("/api/v1/enrolments", json=body).status_code

    agents = Agents(cloud, enrol, tmp_path)
    agents.start()
    try:
        eventually(lambda: served.client.get(f"{BASE}/accounts").status_code == 200, "the fleet opens")
        account = served.client.post(f"{BASE}/connect", json=login()).json()["account_id"]
        there = f"{BASE}/accounts/{account}"
        eventually(lambda: served.client.get(f"{there}/status").json()["status"] == "running", "it runs")
        address = agents.of(account).address
        agents.close()
        with socket.create_server((address, 5000)) as silent:  # connections come about, and nothing else
            assert served.client.post(f"{there}/restart").status_code == 202
            silent.settimeout(60)
            kept = silent.accept()
            assert served.end() == 0, "Cloud Run kills after 10 s; here it gets 20, on a busy machine"
            kept[0].close()
    finally:
        agents.close()
        anyone.close()
        served.close()
    log = served.log.read_text()
    assert "Traceback" not in log
    assert account in log
    for secret in (login()["credentials"]["password"], cloud.token):
        assert secret not in log


async def test_a_database_that_goes_away_is_a_503_and_comes_back(
    fleet_environment: dict[str, str], empty_database: str, postgres: str, issuer: Issuer
) -> None:
    name = make_url(empty_database).database
    server = f"postgresql://postgres@/postgres?{postgres}"

    def migrated() -> None:
        engine = make_engine(empty_database, 0)
        migrate(engine, say=lambda _said: None)
        engine.dispose()

    migrated()
    roles = issuer.token("user", "operator")
    scheduler = {"aud": "https://service.example", "email": fleet_environment["SCHEDULER_EMAIL"]}
    token = issuer.token(**scheduler, email_verified=True)
    async with (
        fleet_service(fleet_environment | {"DATABASE_URL": empty_database}) as made,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=made),
            base_url="http://service",
            headers={"authorization": f"Bearer {roles}"},
            timeout=60,
        ) as client,
    ):
        account = (await client.post(f"{BASE}/connect", json=login())).json()["account_id"]
        there = f"{BASE}/accounts/{account}"
        with psycopg.connect(server, autocommit=True) as db:
            db.execute(f"alter database {name} with allow_connections false".encode())
            db.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
            answers = [
                await client.post(f"{BASE}/connect", json=login("another")),
                await client.get(f"{BASE}/accounts"),
                await client.get(there),
                await client.post(f"{there}/stop"),
                await client.put(f"{there}/credentials", json=login()["credentials"]),
                await client.put(f"{there}/policy", json={"policy": "idle:30"}),
                await client.get(f"{there}/history"),
                await client.get(f"{there}/logs"),
                await client.delete(there),
                await client.get("/api/v1/fleet"),
                await client.get("/api/v1/fleet/accounts"),
                await client.post("/api/v1/fleet/reconcile", headers={"authorization": f"Bearer {token}"}),
                await client.post(
                    "/api/v1/enrolments", json={"account_id": account, "token": "t", "certificate": "c"}
                ),
            ]
            for answer in answers:
                assert answer.status_code == 503, answer.text
                assert answer.json()["type"].endswith(":database-away")
                assert "retry-after" in answer.headers
            db.execute(f"alter database {name} with allow_connections true".encode())
        found = await until(lambda: client.get(there), "running", key="wanted")
        assert found["account_id"] == account
