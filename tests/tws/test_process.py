"""The gateway as the program that a machine starts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from .conftest import PASSWORD, exchange_at, ib


def config(folder: Path, password: str) -> Path:
    """A config.ini with the password escaped as Java wants it."""
    path = folder / "config.ini"
    escaped = password.replace("\\", "\\\\")
    path.write_text(f"IbLoginId=demo\nIbPassword={escaped}\nTradingMode=paper\n")
    return path


async def start(ini: Path, server: str, socket: Path) -> asyncio.subprocess.Process:
    arguments = ("--ibc-ini", str(ini), "--mode", "paper", "--socket", str(socket))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "localcloud.gateways.tws",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "IBKR_SERVERS": server},
    )


async def log_until(process: asyncio.subprocess.Process, words: str) -> str:
    """What the process wrote up to the line that holds `words`."""
    assert process.stdout is not None
    text = ""
    async with asyncio.timeout(20):
        while words not in text:
            line = await process.stdout.readline()
            assert line, f"the gateway ended; it wrote:\n{text}"
            text += line.decode()
    return text


async def until_it_accepts(socket: Path) -> None:
    """The API port opens a moment after the login; until then there is nothing, or a socket that refuses."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_unix_connection(socket)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


async def stop(process: asyncio.subprocess.Process) -> int:
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        return await process.wait()


async def test_the_program_logs_in_serves_its_socket_and_stops(tmp_path: Path) -> None:
    with TemporaryDirectory(prefix="gw") as run:
        socket = Path(run, "api")
        async with exchange_at(tmp_path / "exchange") as (admin, address):
            account = (await admin.add_user("demo", PASSWORD))["accounts"][0]
            process = await start(config(tmp_path, PASSWORD), address, socket)
            log = await log_until(process, "IBC: Login has completed")
            assert PASSWORD not in log
            await until_it_accepts(socket)
            client = await connect_through(socket)
            assert client.managedAccounts() == [account]
            client.disconnect()
            assert await stop(process) == 0


async def connect_through(socket: Path) -> ib.IB:
    """A client of the library over a TCP port that leads to the socket, as on a machine."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(socket)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = await asyncio.start_server(pipe, "127.0.0.1", 0)
    client = ib.IB()
    await client.connectAsync("127.0.0.1", server.sockets[0].getsockname()[1], clientId=3)
    server.close()
    return client


async def test_a_refused_login_stays_at_the_dialog_without_a_port(tmp_path: Path) -> None:
    with TemporaryDirectory(prefix="gw") as run:
        socket = Path(run, "api")
        async with exchange_at(tmp_path / "exchange") as (admin, address):
            await admin.add_user("demo", PASSWORD)
            process = await start(config(tmp_path, "wrong"), address, socket)
            await log_until(process, "IBC: Login failed: Unrecognized Username or Password")
            assert process.returncode is None
            assert not socket.exists()  # noqa: ASYNC240
            assert await stop(process) == 0
