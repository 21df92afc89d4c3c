"""Where a login goes, and where it doesn't.

The service runs as a process that logs all it can. What it wrote and said is searched for its secrets.
"""

from __future__ import annotations

import base64
import importlib.machinery
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.broker.alert_receiver import Receiver, listening
from tests.broker.paper_gateway import ROOT, eventually
from tests.fleet.local_digitalocean import LocalDigitalOcean
from tests.service.conftest import Issuer
from tests.service.fleet_agents import Agent, Agents
from tests.service.fleet_fixtures import BASE, cloud, fleet_changes, fleet_environment
from tests.service.test_process import Serve, Served, serve

__all__ = ["cloud", "fleet_changes", "fleet_environment", "serve"]

#: no escaping changes these words, so they are found however they are written
PASSWORD, OTHER_PASSWORD, USER = "Zq9xMarkerPasswordOne", "Zq9xMarkerPasswordTwo", "Zq9xMarkerUser"
CHANNEL_TOKEN = "Zq9xMarkerChannelTokenAbcdefghijklm"


def forms(secret: str) -> list[bytes]:
    """The secret as it stands, in hexadecimal, and in base64 at each of its three offsets."""
    raw = secret.encode()
    found = [raw, raw.hex().encode()]
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + raw)
        found.append(coded[4 if offset else 0 : len(coded) - 4])
    return found


def finds(secret: str, where: bytes) -> bool:
    return any(form in where for form in forms(secret))


class World:
    """A served fleet with agents on its droplets, and all the places where a secret could have been left."""

    def __init__(self, served: Served, cloud: LocalDigitalOcean, folder: Path, issuer: Issuer) -> None:
        self.served, self.cloud, self.folder = served, cloud, folder
        token = issuer.token("user", "operator", "monitor", exp=4_000_000_000)
        headers = {"authorization": f"Bearer {token}"}
        self.client = httpx.Client(base_url=served.client.base_url, headers=headers, timeout=60)
        self.said: list[bytes] = []
        self.agents = Agents(cloud, self._enrol, folder)
        self.agents.start()

    def _enrol(self, body: dict[str, str]) -> int:
        return httpx.post(
            f"http://127.0.0.1:{self.served.port}/api/v1/enrolments", json=body, timeout=60
        ).status_code

    def ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        answer = self.client.request(method, path if path.startswith("/") else f"{BASE}/{path}", **body)
        self.said.append(repr(answer.headers).encode() + answer.content)
        return answer

    def account(self, password: str = PASSWORD) -> str:
        login = {"username": USER, "password": password}
        made = self.ask("POST", "connect", json={"credentials": login, "environment": "live"}).json()
        self.until(made["account_id"], "running")
        return str(made["account_id"])

    def until(self, account: str, *statuses: str) -> None:
        eventually(
            lambda: self.ask("GET", f"accounts/{account}/status").json()["status"] in statuses,
            f"{account} comes to {statuses}", 90,
        )  # fmt: skip

    def close(self) -> None:
        self.agents.close()
        self.client.close()


@pytest.fixture
def world(
    serve: Serve, cloud: LocalDigitalOcean, tmp_path: Path, issuer: Issuer, fleet_environment: dict[str, str]
) -> Iterator[Callable[..., World]]:
    """Starts one; `changes` are variables."""
    made: list[World] = []

    def start(**changes: str) -> World:
        made.append(World(serve(**fleet_environment, **changes), cloud, tmp_path, issuer))
        return made[-1]

    yield start
    for one in made:
        one.close()


def dump(url: str) -> bytes:
    """Every row of every table, as text; binary columns in hexadecimal."""
    found = []
    with psycopg.connect(url.replace("+psycopg", "")) as db:
        names = db.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
        for (name,) in names:
            query = sql.SQL("select t::text from {} t").format(sql.Identifier(name))
            found += [f"{name}: {row[0]}" for row in db.execute(query)]
    return "\n".join(found).encode()


def processes(served: Served) -> bytes:
    """Arguments and environments of the service's processes."""
    first = psutil.Process(served.process.pid)
    found = b""
    for process in (first, *first.children(recursive=True)):
        for name in ("cmdline", "environ"):
            found += Path(f"/proc/{process.pid}/{name}").read_bytes() + b"\n"
    return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as made:
        yield made


def test_a_login_is_on_its_droplet_and_nowhere_else(
    world: Callable[..., World], database_url: str, receiver: Receiver
) -> None:
    it = world(LOG_LEVEL="DEBUG", ALERT_URLS=receiver.url)
    account = it.account()
    agent = it.agents.of(account)
    assert (agent.pushed["username"], agent.pushed["password"]) == (USER, PASSWORD), "it arrives"
    seen = [processes(it.served), dump(database_url)]
    trouble(it, account, agent)
    it.ask("PUT", f"accounts/{account}/credentials", json={"username": USER, "password": OTHER_PASSWORD})
    eventually(lambda: agent.pushed.get("password") == OTHER_PASSWORD, "the other one arrives")
    wrong_requests(it, account)
    it.ask("PUT", f"accounts/{account}/alerts", json={"url": f"tgram://123456789:{CHANNEL_TOKEN}/1?x=y"})
    for path in ("", "/history", "/logs?lines=100", "/status", "/alerts"):
        it.ask("GET", f"accounts/{account}{path}")
    for path in ("/api/v1/fleet", "/api/v1/fleet/accounts", "/metrics", "/openapi.json"):
        assert it.ask("GET", path).status_code == 200
    seen += [processes(it.served), dump(database_url)]
    gateway_token, enrolment_token = agent.pushed["gateway_token"], agent.settings["enrolment_token"]
    state = repr(it.cloud.do(lambda: it.cloud.cloud.machines.specs)).encode()
    it.ask("DELETE", f"accounts/{account}")
    it.until(account, "deleted")
    assert it.served.end() == 0
    log = it.served.log.read_bytes()
    told = repr(receiver.received).encode()
    assert b"account moved" in log, "the log is the service's"
    assert b"broker_accounts: " in seen[1], "and the dump the database's"
    assert finds(enrolment_token, state), "a droplet's user data is searched"
    everywhere = {"log": log, "answers": b"\n".join(it.said), "alerts": told}
    everywhere |= {f"process or database {n}": text for n, text in enumerate([*seen, dump(database_url)])}
    for where, text in {**everywhere, "DigitalOcean": state}.items():
        for secret in (PASSWORD, OTHER_PASSWORD, gateway_token, CHANNEL_TOKEN):
            assert not finds(secret, text), f"{secret} in {where}"
    for where, text in everywhere.items():
        assert not finds(enrolment_token, text), f"the enrolment token in {where}"
        if "process" not in where:
            assert not finds(it.cloud.token, text), f"DigitalOcean's token in {where}"
    for where in ("log", "alerts"):
        assert not finds(USER, everywhere[where]), f"the user name in {where}"


def trouble(it: World, account: str, agent: Agent) -> None:
    """A login that is refused, and an agent that says in its errors what it was sent."""
    agent.lines = ["login failed: invalid username password combination"]
    agent.session["authenticated"] = False
    it.until(account, "error", "initializing")
    answer, broken = agent.answer, {"answer": 0}

    def echo(method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        broken["answer"] += path.startswith("/agent/")
        return 500, {"title": "failed with " + body.decode(errors="replace")}

    agent.answer = echo  # type: ignore[method-assign]
    it.ask("PUT", f"accounts/{account}/credentials", json={"username": USER, "password": PASSWORD})
    it.ask("GET", f"accounts/{account}/logs")
    eventually(lambda: broken["answer"] >= 1, "the agent fails with what it was sent")
    agent.answer = answer  # type: ignore[method-assign]
    agent.session["authenticated"] = True
    agent.lines = ["running and authenticated"]
    it.ask("POST", f"accounts/{account}/restart")


def wrong_requests(it: World, account: str) -> None:
    """Secrets where they don't belong. None of it is carried out."""
    good = {"username": USER, "password": PASSWORD}
    bodies: list[Any] = [
        {"credentials": good | {"password": PASSWORD + "\r"}, "environment": "demo"},
        {"credentials": good | {PASSWORD: 1}, "environment": "demo"},
        {"credentials": good | {"password": [PASSWORD]}, "environment": "demo"},
        {"credentials": good | {"password": PASSWORD * 20}, "environment": "demo"},
        {"credentials": PASSWORD, "environment": "demo"},
        {"credentials": good, "environment": PASSWORD},
        [PASSWORD],
        PASSWORD,
    ]
    for body in bodies:
        assert it.ask("POST", "connect", json=body).status_code == 422
    for content in (f'{{"password": "{PASSWORD}"', f"{{'{PASSWORD}'}}", f'"{PASSWORD}" 1'):
        headers = {"content-type": "application/json"}
        assert it.ask("POST", "connect", content=content, headers=headers).status_code == 400
    assert it.ask("POST", "connect", data=good).status_code == 422
    assert it.ask("PUT", f"accounts/{account}/credentials", json=good | {"x": PASSWORD}).status_code == 422
    refused = {"account_id": account, "token": PASSWORD, "certificate": PASSWORD}
    assert it.ask("POST", "/api/v1/enrolments", json=refused).status_code == 403


@pytest.fixture(scope="session")
def agent_program() -> ModuleType:
    """The very program that droplets run, as a module."""
    loader = importlib.machinery.SourceFileLoader("ibeam_agent", str(ROOT / "cloud-init/files/ibeam/agent"))
    spec = importlib.util.spec_from_loader("ibeam_agent", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def as_ibeam_reads(path: Path) -> str:
    """Voyz/ibeam 0.5.12, secrets_handler.py: text mode, line ends stripped from the right."""
    return path.read_text(encoding="utf-8").rstrip("\r\n")


SPECIAL = st.text(st.sampled_from("\"'\\/&$\n\t `;|<>{}[]()#%=!*?~^@,:ü€漢😀 "), min_size=1, max_size=24)
ANY = st.text(st.characters(exclude_categories=()), min_size=1, max_size=24)


def test_any_password_arrives_unchanged_or_is_refused_with_the_reason(
    world: Callable[..., World],
    agent_program: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    it = world(FLEET_CONNECTS_PER_HOUR="10000")
    account = it.account()
    agent = it.agents.of(account)
    memory = tmp_path_factory.mktemp("agent")
    monkeypatch.setattr(agent_program, "MEMORY", memory)
    if os.geteuid() != 0:
        monkeypatch.setattr(agent_program, "CONTAINER_UID", None)
    kept = agent_program.Login("")
    arrived = []

    @settings(
        max_examples=40, deadline=None, database=None, derandomize=True,
        phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @example("pa\\ss\"w'ord/&$ü\n!")
    @example("${HOME} $(id) `id` %s {0} \\n \\x00")
    @example("line\nanother")
    @example("ends with a newline\n")
    @example("carriage\rreturn")
    @example("nul\0")
    @example("half \ud800 a character")
    @example(" spaces around ")
    @example("-n")
    @example("'; drop table broker_accounts; --")
    @given(st.one_of(SPECIAL, ANY))
    def arrives(password: str) -> None:
        # Python's own writer would refuse half a character; JSON can say it.
        body = json.dumps({"username": "ib-user", "password": password})
        headers = {"content-type": "application/json"}
        answer = it.client.put(f"{BASE}/accounts/{account}/credentials", content=body, headers=headers)
        if answer.status_code == 422:
            [error] = answer.json()["errors"]
            assert "password" in error["field"]
            assert any(word in error["message"] for word in ("half a character", "NUL, a carriage return"))
            assert any(bad in password for bad in "\0\r") or password.endswith("\n") or _half(password)
            return
        assert answer.status_code == 202, answer.text
        deadline = time.monotonic() + 60
        while agent.pushed.get("password") != password:
            assert time.monotonic() < deadline, f"{password!r} never came"
            time.sleep(0.01)
        kept.keep(agent.pushed["username"], agent.pushed["password"], agent.pushed["gateway_token"])
        assert as_ibeam_reads(memory / "secrets" / "password") == password
        assert (memory / "secrets" / "password").stat().st_mode & 0o777 == 0o400
        arrived.append(password)

    arrives()
    assert len(arrived) >= 20


def _half(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
