"""The gateway as the process that a droplet starts: command line, environment, mounted files, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import string
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

PROGRAM = [sys.executable, "-m", "localcloud.gateways.client_portal"]
ROOT = Path(__file__).parents[2]
PASSWORD = string.ascii_letters + string.digits + string.punctuation


@asynccontextmanager
async def gateway(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    surroundings = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **environment}
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, cwd=ROOT, env=surroundings,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def output_until(process: asyncio.subprocess.Process, words: str) -> str:
    seen = ""
    async with asyncio.timeout(30):
        while words not in seen:
            line = await process.stdout.readline()
            assert line, f"the gateway ended: {seen}"
            seen += line.decode()
    return seen


async def test_it_logs_in_from_mounted_files_and_out_at_the_end(exchange, folder):
    exchange.exchange.add_user("mounted", PASSWORD)
    (folder / "account").write_text("mounted")
    (folder / "password").write_text(PASSWORD)
    arguments = ["--socket", str(folder / "api"), "--health-socket", str(folder / "health"),
                 "--servers", f"unix:{folder / 'exchange'}", "--mount", f"/srv/secrets={folder}"]  # fmt: skip
    environment = {"IBEAM_SECRETS_SOURCE": "fs", "IBEAM_ACCOUNT": "/srv/secrets/account",
                   "IBEAM_PASSWORD": "/srv/secrets/password", "IBEAM_USE_PAPER_ACCOUNT": "True"}  # fmt: skip
    async with gateway(*arguments, **environment) as process:
        seen = await output_until(process, "Logging in succeeded")
        over_tls = httpx.AsyncHTTPTransport(uds=str(folder / "api"), verify=False)
        async with httpx.AsyncClient(transport=over_tls, base_url="https://gateway") as client:
            status = (await client.post("/v1/api/iserver/auth/status")).json()
        assert status["authenticated"] is True
        over_socket = httpx.AsyncHTTPTransport(uds=str(folder / "health"))
        async with httpx.AsyncClient(transport=over_socket, base_url="http://gateway") as client:
            assert (await client.get("/readyz")).text == "OK"
        process.send_signal(signal.SIGTERM)
        rest, _ = await process.communicate()
        assert process.returncode == 0
        assert "mounted" not in exchange.sessions, "the session is given back"
        assert PASSWORD not in seen + rest.decode()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--socket", "/nowhere"], "--servers or IBKR_SERVERS"),
        (["--servers", "127.0.0.1:1"], "--socket or --listen"),
        (["--servers", "127.0.0.1:1", "--listen", "5000"], "is not HOST:PORT"),
        (["--servers", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--cert", "x"], "belong together"),
    ],
)
async def test_what_is_missing_is_said_at_once(arguments, words):
    async with gateway(*arguments) as process:
        said, _ = await process.communicate()
        assert process.returncode == 2
        assert words in said.decode()
