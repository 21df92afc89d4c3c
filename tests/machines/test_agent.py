"""The agent of a run-time droplet: enrolment, pushes, the proxy. Real TLS, signatures and processes.

The droplet is booted from the user data that `droplet_spec` makes; the container behind is the paper gateway.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import ssl
import stat
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fleet.values import NASTY_PASSWORDS
from tests.machines.droplet import (
    ACCOUNT,
    ADDRESS,
    ENROLMENT_TOKEN,
    GATEWAY_TOKEN,
    PASSWORD,
    USER,
    Droplet,
    Surroundings,
)
from tests.machines.exchange import Exchange
from tests.machines.laptop import LaptopHost

TICKLE = ("POST", "/v1/api/tickle")


@pytest.fixture
async def droplet(host: LaptopHost, surroundings: Surroundings) -> AsyncIterator[Droplet]:
    """Not booted yet."""
    droplet = Droplet(host, surroundings).enrolling()
    yield droplet
    await droplet.power_off()


@pytest.fixture
async def enrolled(droplet: Droplet) -> Droplet:
    """Known to the service, without a login."""
    await droplet.boot()
    await droplet.host.until_said("enrolled:")
    return droplet


@pytest.fixture
async def running(enrolled: Droplet, exchange: Exchange) -> Droplet:
    """With a login, and a gateway that is logged in with it."""
    await exchange.add_user(USER, PASSWORD)
    assert await enrolled.push(enrolled.message()) == 204
    await enrolled.authenticated()
    return enrolled


def login_of(droplet: Droplet) -> tuple[bytes, bytes]:
    folder = droplet.host.run / "ibeam/secrets"
    return (folder / "account").read_bytes(), (folder / "password").read_bytes()


def starts(droplet: Droplet) -> int:
    return droplet.host.text.count("Starting ibeam.service")


# -- enrolment --


async def test_it_enrols_once_with_its_own_certificate(enrolled: Droplet, surroundings: Surroundings) -> None:
    assert surroundings.enrolments == [
        {"account_id": ACCOUNT, "token": ENROLMENT_TOKEN, "certificate": enrolled.certificate}
    ]
    await enrolled.power_off()
    await enrolled.boot()
    await enrolled.host.until_said("accepted at an earlier start")
    assert len(surroundings.enrolments) == 1, "a token that is used twice is an alarm"


async def test_it_listens_before_it_enrols(droplet: Droplet) -> None:
    await droplet.boot()
    await droplet.host.until_said("enrolled:")
    said = droplet.host.text
    assert said.index("listening with") < said.index("enrolled:"), "the service looks at the certificate then"


async def test_enrolment_is_tried_again_while_the_service_is_in_trouble(
    droplet: Droplet, surroundings: Surroundings
) -> None:
    surroundings.answers = [500, 429]
    await droplet.boot()
    await droplet.host.until_said("enrolled:")
    assert len(surroundings.enrolments) == 3
    assert "it answered 500; again in 1 s" in droplet.host.text
    assert "it answered 429; again in 2 s" in droplet.host.text


@pytest.mark.parametrize("status", [403, 307])
async def test_a_refused_enrolment_is_final_and_says_so_on_the_console(
    droplet: Droplet, surroundings: Surroundings, status: int
) -> None:
    surroundings.answers = [status] * 3
    await droplet.boot()
    await droplet.host.until_said(f"ENROLMENT REFUSED: it answered {status}")
    await droplet.power_off()
    await droplet.boot()
    await droplet.host.until_said("refused at an earlier start")
    assert len(surroundings.enrolments) == 1
    assert droplet.guest.status()["failed"] == []


async def test_the_address_is_asked_for_until_the_metadata_answers(
    droplet: Droplet, surroundings: Surroundings
) -> None:
    surroundings.metadata_refusals = 1
    await droplet.boot()
    await droplet.host.until_said("enrolled:")
    assert "the droplet's address isn't known yet" in droplet.host.text


async def test_key_and_certificate_are_its_own_and_outlive_a_reboot(enrolled: Droplet) -> None:
    folder = enrolled.host.root / "var/lib/ibeam/tls"
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    certificate = x509.load_pem_x509_certificate(enrolled.certificate.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == [ADDRESS]
    before, key = enrolled.fingerprint, (folder / "key.pem").read_bytes()
    await enrolled.power_off()
    await enrolled.listening()
    assert (enrolled.fingerprint, (folder / "key.pem").read_bytes()) == (before, key)
    assert f"listening with the certificate {before}" in enrolled.host.text


async def test_neither_user_data_nor_console_nor_arguments_hold_what_is_pushed(running: Droplet) -> None:
    shown = [running.user_data, running.host.text, *(" ".join(words) for words in running.host.spawned)]
    shown += [f"{env}" for env in running.host.environments]
    for secret in (PASSWORD, USER, GATEWAY_TOKEN, ENROLMENT_TOKEN):
        for text in shown[1:] if secret == ENROLMENT_TOKEN else shown:
            assert secret not in text


# -- pushes --


async def test_a_push_logs_the_gateway_in(running: Droplet, exchange: Exchange) -> None:
    assert login_of(running) == (USER.encode(), PASSWORD.encode())
    assert (await exchange.user(USER))["logged_in"]
    assert (await running.tickle())["iserver"]["authStatus"]["authenticated"]
    assert (await running.health())["has_credentials"] is True


async def test_the_login_is_in_memory_for_the_containers_user_alone(running: Droplet) -> None:
    folder = running.host.run / "ibeam/secrets"
    for name in ("account", "password"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o400
    assert running.guest.owners["/run/ibeam/secrets/password.part"] == "1000:1000"
    on_disk = [path for path in running.host.root.rglob("*") if path.is_file()]
    assert not any(GATEWAY_TOKEN.encode() in path.read_bytes() for path in on_disk)
    in_memory = [path for path in (running.host.run / "ibeam").rglob("*") if path.is_file()]
    assert not any(GATEWAY_TOKEN.encode() in path.read_bytes() for path in in_memory), "its hash is enough"


NOT_MEANT: list[tuple[dict[str, Any], str]] = [
    ({"account_id": "ib-paper-ffffffff"}, "another account"),
    ({"certificate_sha256": "0" * 64}, "another certificate"),
    ({"issued_at": int(time.time()) - 400}, "wasn't issued now"),
    ({"issued_at": int(time.time()) + 4000}, "wasn't issued now"),
    ({"sequence": 0}, "number was used before"),
    ({"sequence": 2**63}, "number was used before"),
    ({"paper": False}, "paper trading"),
    ({"password": ""}, "is empty"),
    ({"password": None}, "isn't one of this kind"),
    ({"password": 7}, "isn't one of this kind"),
    ({"password": "\ud800"}, "isn't one of this kind"),
    ({"sequence": True}, "isn't one of this kind"),
    ({"sequence": 1.0}, "isn't one of this kind"),
    ({"more": 1}, "isn't one of this kind"),
]


async def test_a_push_that_is_not_meant_for_it_changes_nothing(enrolled: Droplet) -> None:
    for changes, reason in NOT_MEANT:
        enrolled.host.console.clear()
        assert await enrolled.push(enrolled.message(**changes)) == 403, changes
        await enrolled.host.until_said(reason)
        assert not (await enrolled.health())["has_credentials"]
        assert starts(enrolled) == 0
        assert PASSWORD not in enrolled.host.text
    assert await enrolled.push(enrolled.message()) == 204, "or the test shows nothing"


async def test_a_push_that_the_service_did_not_sign_changes_nothing(enrolled: Droplet) -> None:
    message = enrolled.message()
    assert await enrolled.push(message, Ed25519PrivateKey.generate()) == 403
    body = json.dumps(message).encode()
    bare = base64.b64encode(enrolled.key.sign(body)).decode()
    for header in ({}, {"X-Signature": ""}, {"X-Signature": "x"}, {"X-Signature": bare}):
        answer = await enrolled.ask("PUT", "/agent/credentials", "", content=body, headers=header)
        assert (answer.status_code, answer.json()) == (403, {"title": "Forbidden", "status": 403})
    assert not (await enrolled.health())["has_credentials"]
    assert await enrolled.push(message) == 204, "or the test shows nothing"


async def test_a_push_works_once_also_after_a_reboot(running: Droplet) -> None:
    last = running.message(sequence=10)
    running.sequence = 10
    assert await running.push(last) == 204
    assert await running.push(last) == 403
    assert await running.push(last | {"sequence": 9}) == 403
    await running.power_off()
    await running.listening()
    assert await running.push(last) == 403
    assert await running.push(running.message()) == 204


async def test_one_kind_of_message_is_not_taken_for_another(running: Droplet) -> None:
    assert await running.send("POST", "/agent/restart", running.message()) == 403
    restart = {k: v for k, v in running.message().items() if k in ("account_id", "issued_at", "sequence")}
    restart |= {"certificate_sha256": running.fingerprint, "action": "restart"}
    assert await running.send("PUT", "/agent/credentials", restart) == 403
    assert await running.restart(action="stop") == 403


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1, max_size=60))
@example("".join(NASTY_PASSWORDS))
def test_any_password_arrives_unchanged(pushing: PushAndRead, password: str) -> None:
    assert pushing(password) == password.encode()


class PushAndRead:
    """Pushes a password and reads what is there for the container; from code that isn't in a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, droplet: Droplet) -> None:
        self._loop, self._droplet = loop, droplet

    def __call__(self, password: str) -> bytes:
        assert self._loop.run_until_complete(self._push(password)) == 204
        return login_of(self._droplet)[1]

    async def _push(self, password: str) -> int:
        return await self._droplet.push(self._droplet.message(password=password))


@pytest.fixture
def pushing(tmp_path: Path, run_folder: Path) -> Iterator[PushAndRead]:
    """An enrolled droplet whose loop only runs while something is asked of it."""
    root = tmp_path / "disk"
    root.mkdir()
    host = LaptopHost(root, run_folder)
    host.environment["IBKR_SERVERS"] = "127.0.0.1:1"
    loop = asyncio.new_event_loop()
    with Surroundings() as surroundings:
        droplet = Droplet(host, surroundings).enrolling()

        async def boot() -> None:
            await droplet.boot()
            await host.until_said("enrolled:")

        loop.run_until_complete(boot())
        yield PushAndRead(loop, droplet)
        loop.run_until_complete(droplet.power_off())
    loop.close()


async def test_the_same_push_again_leaves_the_session_alone(running: Droplet) -> None:
    assert await running.push(running.message()) == 204
    assert starts(running) == 1, "a start is a login, and IBKR counts those"
    assert await running.push(running.message(gateway_token="n" * 43)) == 204
    assert starts(running) == 1, "a new token concerns the proxy only"
    assert (await running.ask(*TICKLE)).status_code == 401
    assert (await running.ask(*TICKLE, token="n" * 43)).status_code == 200


async def test_a_changed_password_is_another_login(running: Droplet, exchange: Exchange) -> None:
    await exchange.add_user("another", "new password")
    assert await running.push(running.message(username="another", password="new password")) == 204
    await running.host.until(lambda: starts(running) == 2)
    await running.host.until(lambda: running.host.text.count("Logging in succeeded") == 2)
    assert (await exchange.user("another"))["logged_in"]
    assert not (await exchange.user(USER))["logged_in"]


async def test_a_container_that_gave_up_is_started_by_a_push_or_a_restart_only(running: Droplet) -> None:
    for again in (lambda: running.push(running.message()), running.restart):
        before = starts(running)
        container = next(iter(running.guest._machine.containers.values()))
        container.kill()
        await running.without_container()
        await running.host.until_said("main process ended")
        assert (await running.ask(*TICKLE)).status_code == 503
        assert starts(running) == before
        assert (await running.health())["has_credentials"]
        assert await again() == 204
        await running.host.until(lambda expected=before + 1: starts(running) == expected)  # type: ignore[misc]
        await running.with_container()
        running.host.console = [line for line in running.host.console if "main process ended" not in line]


async def test_a_push_that_stopped_halfway_is_finished_by_the_same_one_again(
    running: Droplet, exchange: Exchange
) -> None:
    await exchange.add_user("another", "new password")
    systemctl = running.host.run / ".m/bin/systemctl"
    really = systemctl.rename(systemctl.with_name("really"))
    systemctl.write_text("#!/bin/sh\necho no memory\nexit 1\n")
    systemctl.chmod(0o700)
    new = {"username": "another", "password": "new password"}
    assert await running.push(running.message(**new)) == 500
    await running.host.until_said("the container can't be started: no memory")
    really.rename(systemctl)
    assert await running.push(running.message(**new)) == 204
    await running.host.until(lambda: running.host.text.count("Logging in succeeded") == 2)
    assert (await exchange.user("another"))["logged_in"], "and not the one whose container still ran"


async def test_a_restart_without_a_login_is_refused(enrolled: Droplet) -> None:
    assert await enrolled.restart() == 409
    assert starts(enrolled) == 0


async def test_a_restart_that_comes_again_because_its_answer_was_lost_is_one(running: Droplet) -> None:
    assert await running.restart(sequence=50) == 204
    assert starts(running) == 2
    assert await running.restart(sequence=50) == 204
    assert starts(running) == 2, "each may be a push to somebody's phone"
    assert await running.restart(sequence=49) == 403
    assert await running.restart(sequence=51) == 204
    assert starts(running) == 3


async def test_a_restart_that_failed_is_done_when_it_comes_again(running: Droplet) -> None:
    systemctl = running.host.run / ".m/bin/systemctl"
    really = systemctl.rename(systemctl.with_name("really"))
    systemctl.write_text("#!/bin/sh\necho no memory\nexit 1\n")
    systemctl.chmod(0o700)
    assert await running.restart(sequence=50) == 500
    really.rename(systemctl)
    assert await running.restart(sequence=50) == 204
    assert starts(running) == 2


async def test_a_reboot_loses_the_login_and_says_so(running: Droplet) -> None:
    before = await running.health()
    await running.power_off()
    await running.listening()
    after = await running.health()
    assert after["has_credentials"] is False
    assert after["boot_id"] != before["boot_id"]
    assert set(after) == {"boot_id", "has_credentials"}
    assert starts(running) == 0
    assert (await running.ask(*TICKLE)).status_code == 401, "the token went with it"
    assert await running.push(running.message()) == 204
    await running.authenticated()


# -- the proxy --


async def test_only_the_token_admits_to_the_api(running: Droplet) -> None:
    for token in ("", "x", GATEWAY_TOKEN[:-1], GATEWAY_TOKEN.upper()):
        for method, path in (TICKLE, ("GET", "/v1/api/ws"), ("GET", "/v1/api"), ("GET", "/agent/logs")):
            answer = await running.ask(method, path, token=token)
            assert (answer.status_code, answer.json()["title"]) == (401, "Unauthorized")
    both = [("X-Gateway-Token", "x"), ("X-Gateway-Token", GATEWAY_TOKEN)]
    assert (await running.ask(*TICKLE, token="", headers=both)).status_code == 401


ELSEWHERE = [
    *("/", "/sso/Login", "/deactivate", "/livez", "/v1", "/v1/apis", "/agent", "/agent/health/"),
    *("/v1/api/../../sso/Login", "/v1/api/..", "/v1/api/%2e%2e/sso", "/v1/api/a%2fb", "/v1/api/%252e"),
    *(
        "//v1/api/tickle",
        "/V1/api/tickle",
        "/v1/api/a\\b",
        "/v1/api/;/../..",
        "https://127.0.0.1/v1/api/tickle",
    ),
]


async def test_nothing_else_is_there(running: Droplet) -> None:
    for path in ELSEWHERE:
        reader, writer = await opened(running)
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Gateway-Token: {GATEWAY_TOKEN}\r\nConnection: close"
        writer.write(f"{head}\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        assert answer.split(b"\r\n")[0].split()[1] in (b"404", b"400"), path


async def opened(droplet: Droplet) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    pinned = ssl.create_default_context(cadata=droplet.certificate)
    return await asyncio.open_unix_connection(
        str(droplet.host.ports[5000]), ssl=pinned, server_hostname=ADDRESS
    )


async def test_only_the_agents_port_is_open(running: Droplet) -> None:
    assert list(running.host.ports) == [5000], "5001 can switch the gateway off, and 5000 of it has no token"
    assert str(running.host.ports[5000]).endswith("port-5000")


async def test_requests_and_answers_pass_unchanged(running: Droplet) -> None:
    accounts = (await running.ask("GET", "/v1/api/iserver/accounts")).json()["accounts"]
    await running.ask("GET", "/v1/api/portfolio/accounts")
    order = {"conid": 265598, "side": "BUY", "orderType": "MKT", "quantity": 1, "tif": "DAY", "cOID": "x"}
    placed = await running.ask(
        "POST", f"/v1/api/iserver/account/{accounts[0]}/orders", json={"orders": [order]}
    )
    assert placed.status_code == 200, placed.text
    assert placed.headers["content-type"] == "application/json"
    found = await running.ask("GET", "/v1/api/trsrv/stocks?symbols=AAPL")
    assert found.json()["AAPL"]
    missing = await running.ask("GET", "/v1/api/no/such/path")
    assert missing.status_code == 404
    assert missing.json()["error"] == "Not Found", "the gateway's own answer"
    assert (await running.ask("PATCH", "/v1/api/tickle")).status_code == 405


async def test_tickles_that_come_together_are_one_at_the_gateway(running: Droplet) -> None:
    """IBKR takes one a second; the fleet's probe and the trading connection don't know of each other."""
    callers = (("POST", {}), ("GET", {"Accept-Encoding": "gzip"}), ("POST", {"Accept-Encoding": "identity"}))
    answers = await asyncio.gather(
        *(running.ask(method, "/v1/api/tickle", headers=headers) for method, headers in callers * 3)
    )
    assert [answer.status_code for answer in answers] == [200] * 9
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}
    assert len({answer.text for answer in answers}) == 1


async def test_the_token_never_reaches_the_gateway(running: Droplet) -> None:
    seen: list[bytes] = []
    done = asyncio.Event()

    async def gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: x\r\nX-Odd: 1\r\n\r\n{}")
        await writer.drain()
        writer.close()
        done.set()

    port = running.host.run / ".m/port-5010"
    port.unlink()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = running.host.root / "var/lib/ibeam/tls"
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    async with await asyncio.start_unix_server(gateway, str(port), ssl=context):
        answer = await running.ask(
            "GET", "/v1/api/tickle?a=1", headers={"Cookie": "c=1", "X-Forwarded-For": "1.2.3.4"}
        )
        await done.wait()
    assert answer.status_code == 200
    assert "x-odd" not in answer.headers
    assert seen[0].startswith(b"GET /v1/api/tickle?a=1 HTTP/1.1\r\n")
    assert b"Cookie: c=1\r\n" in seen[0]
    assert GATEWAY_TOKEN.encode() not in seen[0]
    assert b"forwarded" not in seen[0].lower()


async def test_an_answer_that_breaks_off_is_not_asked_for_again(running: Droplet) -> None:
    asked: list[bytes] = []

    async def gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.transport.abort()

    port = running.host.run / ".m/port-5010"
    port.unlink()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = running.host.root / "var/lib/ibeam/tls"
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    async with await asyncio.start_unix_server(gateway, str(port), ssl=context):
        assert (await running.ask("POST", "/v1/api/iserver/x")).status_code == 502
    assert len(asked) == 1, "an order that is sent twice may be filled twice"


async def test_the_websocket_passes_with_the_token_and_only_with_it(running: Droplet) -> None:
    from websockets.asyncio.client import unix_connect
    from websockets.exceptions import InvalidStatus

    pinned = ssl.create_default_context(cadata=running.certificate)
    socket, url = str(running.host.ports[5000]), f"wss://{ADDRESS}/v1/api/ws"
    with pytest.raises(InvalidStatus) as refused:
        await unix_connect(socket, url, ssl=pinned)
    assert refused.value.response.status_code == 401
    session = (await running.tickle())["session"]
    headers = {"X-Gateway-Token": GATEWAY_TOKEN, "Cookie": f'api={{"session":"{session}"}}'}
    with pytest.raises(InvalidStatus) as elsewhere:
        await unix_connect(socket, url + "x", ssl=pinned, additional_headers=headers)
    assert elsewhere.value.response.status_code == 404
    async with unix_connect(socket, url, ssl=pinned, additional_headers=headers) as stream:
        topics = set()
        async with asyncio.timeout(20):
            await stream.send("tic")
            while not {"system", "tic"} <= topics:
                topics.add(json.loads(await stream.recv()).get("topic"))
        next(iter(running.guest._machine.containers.values())).kill()
        with contextlib.suppress(Exception):  # how it closes is the library's to say
            async with asyncio.timeout(20):
                while True:
                    await stream.recv()
        assert stream.close_code is not None, "what the gateway ended must not look alive"


async def test_too_much_of_anything_is_refused(running: Droplet) -> None:
    assert (await running.ask("POST", "/v1/api/x", content=b"x" * 1_100_000)).status_code == 413
    assert (await running.ask("PUT", "/agent/credentials", "", content=b"x" * 20_000)).status_code == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(2000):
            yield b"x" * 1000

    with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        assert (await running.ask("POST", "/v1/api/x", content=endless())).status_code == 413
    assert (await running.ask("GET", "/agent/health", headers={"X": "x" * 10_000})).status_code == 400
    assert (await running.health())["has_credentials"]


async def test_a_connection_that_says_nothing_is_closed(enrolled: Droplet) -> None:
    reader, writer = await opened(enrolled)
    writer.write(b"GET /agent/health HTTP/1.1\r\nHost: x\r\n")
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()


async def test_connections_beyond_the_limit_are_closed_and_later_ones_served(enrolled: Droplet) -> None:
    held = [await opened(enrolled) for _ in range(128)]
    with pytest.raises((OSError, httpx.HTTPError)):
        await enrolled.health()
    for _, writer in held:
        writer.close()
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError, httpx.HTTPError):
                assert not (await enrolled.health())["has_credentials"]
                break
            await asyncio.sleep(0.05)


# -- logs --


async def test_the_last_log_lines_are_there_without_the_login(running: Droplet) -> None:
    password = 'a"ü\\second\nthird & line'
    assert await running.push(running.message(password=password)) == 204
    await running.host.until(lambda: starts(running) == 2)
    await running.with_container()
    log = running.host.run / ".m/ibeam.log"
    forms = [password, json.dumps(password), repr(password), httpx.QueryParams(p=password), USER]
    log.write_text(
        "".join(f"said {form}\n" for form in forms) + f"token {GATEWAY_TOKEN}\nthird & line\nend\n"
    )
    lines = (await running.ask("GET", "/agent/logs?lines=200")).json()["lines"]
    assert lines[-1] == "end"
    text = "\n".join(lines)
    for secret in ("second", "third", USER, GATEWAY_TOKEN):
        assert secret not in text
    assert "[redacted]" in text
    assert (await running.ask("GET", "/agent/logs?lines=1")).json() == {"lines": ["end"]}


async def test_the_logs_of_a_container_that_ended_are_still_there(running: Droplet) -> None:
    for lines in ("0", "201", "-1", "x", "9999", "1;2"):
        assert (await running.ask("GET", f"/agent/logs?lines={lines}")).status_code == 400
    next(iter(running.guest._machine.containers.values())).kill()
    await running.without_container()
    lines = (await running.ask("GET", "/agent/logs")).json()["lines"]
    assert any("Logging in succeeded" in line for line in lines)


# -- the program --


async def test_it_ends_cleanly_when_it_is_told_to(enrolled: Droplet) -> None:
    agent = next(
        process
        for process, words in zip(enrolled.host.processes, enrolled.host.spawned, strict=True)
        if any(word.endswith("/opt/ibeam/agent") for word in words)
    )
    os.kill(agent.pid, signal.SIGTERM)
    assert await asyncio.wait_for(agent.wait(), 20) == 0
    assert "Traceback" not in enrolled.host.text
