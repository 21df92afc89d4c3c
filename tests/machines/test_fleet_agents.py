"""The service's client of agents (broker.fleet.agents) against the very agent that droplets run."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from broker.fleet.agents import (
    AgentUnreachable,
    Endpoint,
    Login,
    PushRefused,
    TlsAgents,
    read_log,
)
from broker.fleet.decide import LogSays, Probe, Readiness
from broker.fleet.pinned import CertificateChanged
from tests.machines.droplet import ACCOUNT, GATEWAY_TOKEN, PASSWORD, USER, Droplet, Surroundings
from tests.machines.exchange import Exchange
from tests.machines.laptop import LaptopHost


@dataclass
class Service:
    """The client, and where it finds the droplet. Its calls block, so each runs in a thread."""

    droplet: Droplet
    agents: TlsAgents
    endpoint: Endpoint
    received: list[bytes]
    port: int

    async def __call__(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(method, *arguments)

    async def probe(self) -> Probe:
        found = await asyncio.to_thread(self.agents.probe, self.endpoint)
        assert isinstance(found, Probe)
        return found

    async def push(self, password: str = PASSWORD, sequence: int = 1) -> None:
        login = Login(USER, password, GATEWAY_TOKEN, paper=True)
        now = int(time.time())
        await self(self.agents.push, self.endpoint, ACCOUNT, login, sequence, now)

    async def until(self, readiness: Readiness, log: LogSays = LogSays.NOTHING) -> None:
        deadline = time.monotonic() + 40
        while (found := await self.probe()) != Probe(readiness, log):
            assert time.monotonic() < deadline, f"{found}\n{self.droplet.host.text}"
            await asyncio.sleep(0.1)


@pytest.fixture
async def service(host: LaptopHost, surroundings: Surroundings) -> AsyncIterator[Service]:
    """Of a droplet that has enrolled and has no login yet."""
    droplet = Droplet(host, surroundings).enrolling()
    await droplet.boot()
    await host.until_said("enrolled:")
    received: list[bytes] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(str(host.ports[5000]))

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, kept: list[bytes]) -> None:
            try:
                while data := await source.read(65536):
                    kept.append(data)
                    target.write(data)
                    await target.drain()
            except ConnectionError:
                pass
            target.close()

        await asyncio.gather(pump(reader, forth, received), pump(back, writer, []))

    bridge = await asyncio.start_server(carry, "127.0.0.1", 0)
    port = bridge.sockets[0].getsockname()[1]
    agents = TlsAgents(droplet.key.sign, timeout=20, port=port)
    yield Service(droplet, agents, Endpoint("127.0.0.1", droplet.fingerprint, GATEWAY_TOKEN), received, port)
    bridge.close()
    await droplet.power_off()


async def test_the_certificate_at_an_address_is_the_droplets(service: Service) -> None:
    assert await service(service.agents.certificate, "127.0.0.1") == service.droplet.fingerprint
    with pytest.raises(AgentUnreachable):
        await service(TlsAgents(service.droplet.key.sign, port=9).certificate, "127.0.0.1")


async def test_no_session_tickets_are_sent(service: Service) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port, ssl=context)
    writer.write(b"GET /agent/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"has_credentials" in await reader.read()
    assert not writer.get_extra_info("ssl_object").session.has_ticket
    writer.close()


async def test_from_a_push_to_ready(service: Service, exchange: Exchange) -> None:
    await exchange.add_user(USER, PASSWORD)
    assert await service.probe() == Probe(Readiness.NO_CREDENTIALS)
    await service.push()
    await service.until(Readiness.READY)
    await service.push(sequence=2)  # a repeated push begins no second login
    assert service.droplet.host.text.count("Starting ibeam.service") == 1
    lines = await service(service.agents.logs, service.endpoint, 50)
    assert any("authenticated" in line for line in lines)
    assert not any(PASSWORD in line or GATEWAY_TOKEN in line for line in lines)
    found = [await service(service.agents.working_orders, service.endpoint) for _ in range(2)]
    assert found == [None, None], "the first answer isn't a snapshot, and a second one comes too soon"
    await asyncio.sleep(6.1)
    assert await service(service.agents.working_orders, service.endpoint) is False
    await service(service.agents.restart, service.endpoint, ACCOUNT, 3, int(time.time()))
    await service.droplet.host.until(lambda: service.droplet.host.text.count("Starting ibeam.service") == 2)
    await service.until(Readiness.READY)


async def test_a_gateway_that_takes_no_request_now_says_nothing_about_its_login(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut_out = (429, "application/json", {"error": "Too Many Requests"})
    monkeypatch.setattr(service.agents, "_call", lambda *_given, **_more: shut_out)
    assert await service.probe() == Probe(Readiness.PACED)


async def test_a_refused_login_is_told_apart(service: Service, exchange: Exchange) -> None:
    await exchange.add_user(USER, "another-password")
    await service.push()
    await service.until(Readiness.NOT_LOGGED_IN, LogSays.REFUSED)


async def test_an_old_number_another_account_or_a_wrong_clock_is_refused(service: Service) -> None:
    await service.push(sequence=5)
    login = Login(USER, PASSWORD, GATEWAY_TOKEN, paper=True)
    now = int(time.time())
    for account, sequence, moment in ((ACCOUNT, 5, now), ("ib-demo-0", 6, now), (ACCOUNT, 7, now - 301)):
        with pytest.raises(PushRefused):
            await service(service.agents.push, service.endpoint, account, login, sequence, moment)
    with pytest.raises(PushRefused):
        await service(
            TlsAgents(lambda _message: b"0" * 64, port=service.port).push,
            service.endpoint, ACCOUNT, login, 8, now,
        )  # fmt: skip


async def test_another_certificate_gets_nothing(service: Service) -> None:
    del service.received[:]
    wrong = Endpoint("127.0.0.1", "0" * 64, GATEWAY_TOKEN)
    assert await service(service.agents.probe, wrong) == Probe(Readiness.CERTIFICATE_CHANGED)
    login = Login(USER, PASSWORD, GATEWAY_TOKEN, paper=True)
    with pytest.raises(CertificateChanged):
        await service(service.agents.push, wrong, ACCOUNT, login, 1, int(time.time()))
    assert (await service.droplet.health())["has_credentials"] is False


async def test_who_isnt_there_is_unreachable(service: Service) -> None:
    await service.droplet.power_off()
    assert await service.probe() == Probe(Readiness.UNREACHABLE)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], LogSays.NOTHING),
        (["Logging in failed: credentials"], LogSays.REFUSED),
        (["IBEAM_MAX_FAILED_AUTH reached: giving up after 3 failed logins"], LogSays.REFUSED),
        (["Credentials correct, but Gateway requires two-factor authentication."], LogSays.SECOND_FACTOR),
        (
            ["Logging in failed: credentials", "Logging in succeeded, running and authenticated"],
            LogSays.NOTHING,
        ),
        (["Login failed", "waiting for 2FA"], LogSays.SECOND_FACTOR),
    ],
)
def test_what_the_log_says(lines: list[str], says: LogSays) -> None:
    assert read_log(lines) is says
