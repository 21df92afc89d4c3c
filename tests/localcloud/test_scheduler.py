"""The scheduler: calls at their time, with a token that the called one can check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from localcloud.apis import oidc
from localcloud.cloud import Cloud
from localcloud.machines import cloudrun
from localcloud.scheduler import JOB, Scheduler
from localcloud.state import Resource
from tests.localcloud.playground import Network
from tests.localcloud.test_cloudrun import checkout as checkout
from tests.localcloud.test_cloudrun import declared as declared_service

EMAIL = "clock@local.iam.gserviceaccount.com"
NAME = "projects/local/locations/us-west1/jobs/tick"


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 10, 0, 30, tzinfo=UTC)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)
        await asyncio.sleep(0)


class Called:
    """A server that keeps what it was asked, and answers as told."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answers: list[int] = []
        self.uri = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        status = self.answers.pop(0) if self.answers else 204
        writer.write(f"HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()

    async def until(self, count: int) -> None:
        while len(self.requests) < count:  # noqa: ASYNC110 - the test's time limit ends the wait
            await asyncio.sleep(0.01)


@pytest.fixture
async def called() -> AsyncIterator[Called]:
    made = Called()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.uri = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/work"
    yield made
    server.close()


def job(uri: str, **more: Any) -> dict[str, Any]:
    target = {"uri": uri, "oidcToken": {"serviceAccountEmail": EMAIL, "audience": "https://api.test"}}
    return {"schedule": "*/5 * * * *", "httpTarget": target, **more}


async def test_a_job_is_called_at_its_times_with_a_token_of_its_account(cloud: Cloud, called: Called) -> None:
    clock = Clock()
    scheduler = Scheduler(cloud, lambda: clock.now, clock.sleep)
    scheduler.declare(NAME, job(called.uri))
    await called.until(2)
    await scheduler.close()
    assert clock.slept[:2] == [270.0, 300.0], "10:05, then 10:10"
    request = called.requests[0]
    assert request.startswith("POST /work HTTP/1.1")
    token = next(line for line in request.splitlines() if line.lower().startswith("authorization:")).split()[
        2
    ]
    key = jwt.PyJWK(oidc._public(cloud))
    claims = jwt.decode(
        token, key, algorithms=["ES256"], audience="https://api.test", issuer=oidc.issuer(cloud)
    )
    assert (claims["email"], claims["email_verified"]) == (EMAIL, True)


async def test_a_failed_call_is_repeated_as_declared_and_then_left(cloud: Cloud, called: Called) -> None:
    clock = Clock()
    called.answers = [500, 503, 500]
    scheduler = Scheduler(cloud, lambda: clock.now, clock.sleep)
    scheduler.declare(NAME, job(called.uri, retryConfig={"retryCount": 2, "minBackoffDuration": "3s"}))
    await called.until(4)
    await scheduler.close()
    assert clock.slept[:3] == [270.0, 3.0, 6.0]
    assert clock.slept[3] == 291.0, "the next run is the schedule's"


async def test_a_paused_or_removed_job_is_not_called(cloud: Cloud, called: Called) -> None:
    clock = Clock()
    scheduler = Scheduler(cloud, lambda: clock.now, clock.sleep)
    scheduler.declare(NAME, job(called.uri, paused=True))
    scheduler.declare("other", job(called.uri))
    scheduler.remove("other")
    await asyncio.sleep(0.05)
    assert clock.slept == []
    cloud.store.put(Resource(JOB, NAME, {}, job(called.uri)))
    scheduler.resume()
    await called.until(1)
    await scheduler.close()


async def test_nobody_there_is_said(cloud: Cloud) -> None:
    assert await Scheduler(cloud).attempt(job("http://127.0.0.1:1/")) == "no answer: ConnectError"
    assert await Scheduler(cloud).attempt(job("http://127.0.0.1:x/")) == "no answer: InvalidURL"


async def test_a_private_service_admits_the_account_that_may_invoke_it(
    cloud: Cloud, checkout: Path, network: Network
) -> None:
    declared = declared_service(service={"invokerIamDisabled": False})
    uri = (await cloudrun.deploy(cloud, "api", declared))["uri"]
    call = job(f"{uri}/")
    call["httpTarget"]["httpMethod"] = "GET"
    assert (await Scheduler(cloud).attempt(call)).startswith("403")
    network.declare(
        "gcp:cloudrunv2/serviceIamMember:ServiceIamMember",
        "api",
        role="roles/run.invoker",
        member=f"serviceAccount:{EMAIL}",
    )
    assert (await Scheduler(cloud).attempt(call)).startswith("200")
