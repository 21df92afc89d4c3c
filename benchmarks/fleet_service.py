"""The fleet through the service's HTTP API: from a connect to running, and what a status costs.

The service is the real app on a real PostgreSQL; DigitalOcean is the local cloud's API with known times;
droplets have the agents that the service's tests have, whose gateways take a known time to log in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import structlog
from fastapi import Depends, FastAPI, Response

from broker.fleet.vault import LocalKeyWrapper
from broker.service.app import create_app
from broker.service.auth import require
from broker.service.database import make_engine
from broker.service.migrate import migrate
from broker.service.settings import Settings
from localcloud.addresses import Addresses
from soak.fleet.database import postgres, sqlalchemy_url
from tests.fleet.local_digitalocean import LocalDigitalOcean, serving
from tests.service.conftest import Issuer
from tests.service.fleet_agents import Agent, Agents

BASE = "/api/v1/brokers/interactivebrokers"
CONNECTS, STATUSES = 9, 400
#: seconds that DigitalOcean takes for a droplet, and a gateway for its login; long enough to be no multiple
#: of anything here
CREATE, LOGIN = (1.0, 3.0), (3.0, 6.0)


class _SlowAgent(Agent):
    """A gateway that logs in after a while."""

    seconds = 0.0
    pushed_at = 0.0

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        """See Agent."""
        if path == "/agent/credentials":
            self.pushed_at = time.monotonic()
        ready = time.monotonic() >= self.pushed_at + self.seconds
        self.session = {"authenticated": ready, "connected": ready, "competing": False}
        return super().answer(method, path, headers, body)


@contextlib.contextmanager
def _issuer() -> Iterator[Issuer]:
    found = Issuer()
    found.add_key("one")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps(found.answer(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_said: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


@contextlib.asynccontextmanager
async def _service(folder: Path, server: str) -> AsyncIterator[tuple[FastAPI, LocalDigitalOcean, Issuer]]:
    """The app with its fleet, over a DigitalOcean of its own."""
    url = sqlalchemy_url(server)
    engine = make_engine(url, 0)
    migrate(engine, say=lambda _said: None)
    engine.dispose()
    LocalKeyWrapper.add_key(folder / "fleet.key")
    with serving(folder / "cloud") as cloud, _issuer() as issuer:
        prefix = f"127.{60 + os.getpid() % 180}"
        cloud.do(lambda: setattr(cloud.cloud, "addresses", Addresses(cloud.cloud.store, prefix)))
        cloud.note("droplet_limit", 1000)
        app = create_app(
            Settings.from_environment(
                {
                    "BROKER_TYPE": "simulated",
                    "DATABASE_URL": url,
                    "OIDC_ISSUER": issuer.url,
                    "OIDC_AUDIENCE": "ibkr-api",
                    "STACK": "bench",
                    "FLEET_ENABLED": "true",
                    "DIGITAL_OCEAN_API_KEY": cloud.token,
                    "DIGITAL_OCEAN_API_URL": cloud.url,
                    "DIGITAL_OCEAN_IMAGE_ID": "ubuntu-24-04-x64",
                    "FLEET_SERVICE_URL": "https://service.example",
                    "FLEET_CLIENT_ADDRESS": "203.0.113.9",
                    "FLEET_IBEAM_IMAGE": "voyz/ibeam:0.5.12@sha256:" + "a" * 64,
                    "FLEET_KEY_FILE": str(folder / "fleet.key"),
                    "FLEET_ACCOUNTS_PER_USER": "1000",
                    "FLEET_CONNECTS_PER_HOUR": "10000",
                    "SCHEDULER_AUDIENCE": "https://service.example",
                    "SCHEDULER_EMAIL": "scheduler@p.iam.gserviceaccount.com",
                    "SCHEDULER_ISSUER": issuer.url,
                    "SCHEDULER_JWKS_URL": issuer.url + "/jwks.json",
                }
            )
        )
        async with app.router.lifespan_context(app):
            yield app, cloud, issuer


def _client(app: FastAPI, issuer: Issuer) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {issuer.token('user', sub='ada')}"}
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers, timeout=60)


async def _connects(app: FastAPI, cloud: LocalDigitalOcean, issuer: Issuer, count: int) -> str:
    """From POST /connect to running, less what the cloud and the gateway take by themselves."""
    loop = asyncio.get_running_loop()
    added: list[float] = []
    whole: list[float] = []
    drawn = random.Random(1)
    async with _client(app, issuer) as client, _client(app, issuer) as droplets:

        def enrol(body: dict[str, str]) -> int:
            asked = droplets.post("/api/v1/enrolments", json=body)
            return asyncio.run_coroutine_threadsafe(asked, loop).result(60).status_code

        with tempfile.TemporaryDirectory() as folder:
            agents = Agents(cloud, enrol, Path(folder), _SlowAgent)
            agents.start()
            try:
                for number in range(count):
                    create, login = drawn.uniform(*CREATE), drawn.uniform(*LOGIN)
                    await asyncio.to_thread(cloud.delays, create=create)
                    _SlowAgent.seconds = login
                    began = time.perf_counter()
                    body = {
                        "credentials": {"username": f"ib{number}", "password": "s"},
                        "environment": "demo",
                    }
                    made = (await client.post(f"{BASE}/connect", json=body)).json()
                    while True:
                        status = await client.get(f"{BASE}/accounts/{made['account_id']}/status")
                        if status.json()["status"] == "running":
                            break
                        await asyncio.sleep(0.02)
                    whole.append(time.perf_counter() - began)
                    added.append(whole[-1] - create - login)
            finally:
                await asyncio.to_thread(agents.close)
    return (
        f"from POST /connect to running: {statistics.median(whole):.1f} s, of which "
        f"{statistics.median(added):.2f} s ({min(added):.2f} to {max(added):.2f}, {count} connects) aren't "
        "the droplet's create or the gateway's login; wanted: under 2 s"
    )


async def _ask(app: FastAPI, path: str, token: bytes) -> float:
    """Seconds of one request inside the app, without a client around it."""
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": b"", "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1),
        "server": ("service", 80), "headers": [(b"host", b"service"), (b"authorization", b"Bearer " + token)],
    }  # fmt: skip
    told: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    began = time.perf_counter()
    await app(scope, receive, send)
    seconds = time.perf_counter() - began
    assert told[0]["status"] == 200, told
    return seconds


async def _statuses(app: FastAPI, issuer: Issuer, count: int) -> str:
    """A status from memory and an empty endpoint with the same authentication, in turns."""

    async def empty() -> Response:
        return Response(b"{}", media_type="application/json")

    app.add_api_route("/api/v1/empty", empty, dependencies=[Depends(require("user", "trader", "operator"))])
    async with _client(app, issuer) as client:
        account = (await client.get(f"{BASE}/accounts")).json()["accounts"][0]["account_id"]
    token = issuer.token("user", sub="ada").encode()
    paths = {"status": f"{BASE}/accounts/{account}/status", "empty": "/api/v1/empty"}
    taken: dict[str, list[float]] = {name: [] for name in paths}
    for measured in range(-20, count):
        for name in list(paths) if measured % 2 else reversed(list(paths)):
            seconds = await _ask(app, paths[name], token)
            if measured >= 0:
                taken[name].append(seconds)
    ours, floor = (statistics.median(taken[name]) for name in paths)
    pairs = statistics.median(a / b for a, b in zip(taken["status"], taken["empty"], strict=True))
    return (
        f"an account's status from memory: {ours * 1e6:.0f} us, an empty endpoint {floor * 1e6:.0f} us, "
        f"ratio {ours / floor:.2f} (of pairs {pairs:.2f}, {count} pairs); wanted: at most 1.3"
    )


async def _measure(connects: int, statuses: int) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="ibkr-bench-") as folder, postgres() as server:
        async with _service(Path(folder), server) as (app, cloud, issuer):
            connecting = await _connects(app, cloud, issuer, connects)
            return [connecting, await _statuses(app, issuer, statuses)]


def measure(connects: int = CONNECTS, statuses: int = STATUSES) -> Iterator[str]:
    """Both figures. The service logs what it always does, to nowhere."""
    with Path(os.devnull).open("w") as nowhere:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        try:
            lines = asyncio.run(_measure(connects, statuses))
        finally:
            structlog.reset_defaults()
    yield from lines
