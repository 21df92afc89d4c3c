"""A person's way to a machine: the tunnel through the daemon, as IAP's, and the admin socket's manners."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from localcloud.apis.admin import AdminServer
from localcloud.cloud import Cloud
from localcloud.control import Connection, Daemon, DaemonError
from localcloud.exchange_process import ExchangeProcess
from localcloud.machines.host import MachineHost
from tests.localcloud.playground import Network

ROOT = Path(__file__).resolve().parents[2]
IAP_RANGE = "35.235.240.0/20"


class ThisDaemon(Daemon):
    """Speaks to an admin server in this process; calls it from a thread, since they block."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent)
        self._path = path

    def open(self, method: str, **params: object) -> Connection:
        """Ask the server at the given socket."""
        return Connection(str(self._path), method, params)


@pytest.fixture
async def daemon(cloud: Cloud) -> AsyncIterator[ThisDaemon]:
    """The cloud's admin server, running."""
    server = AdminServer(cloud, ExchangeProcess(cloud), lambda: None)
    server.start()
    yield ThisDaemon(server.path)
    server.close()


async def test_a_person_reaches_what_iap_is_allowed_to(
    network: Network, greeter: MachineHost, daemon: ThisDaemon
) -> None:
    network.allow("iap", 4001, sourceRanges=[IAP_RANGE])
    connection = await asyncio.to_thread(daemon.open, "tunnel", name="gateway", port=4001)
    reader, writer = await asyncio.open_unix_connection(sock=connection.socket)
    assert await reader.readline() == b"hello\n"
    writer.write(b"anybody there?\n")
    assert await reader.readline() == b"anybody there?\n"
    network.undeclare("gcp:compute/firewall:Firewall", "iap")
    assert await reader.read() == b"", "a tunnel ends with the rule that allowed it"
    writer.close()


async def test_without_the_rule_the_refusal_says_why(
    network: Network, greeter: MachineHost, daemon: ThisDaemon
) -> None:
    with pytest.raises(DaemonError, match=r"can't be reached through IAP: implied rule"):
        await asyncio.to_thread(daemon.call, "tunnel", name="gateway", port=4001)
    network.allow("iap", 22, sourceRanges=[IAP_RANGE])
    with pytest.raises(DaemonError, match="nothing listens on port 22 of gce/gateway"):
        await asyncio.to_thread(daemon.call, "tunnel", name="gateway", port=22)


async def test_the_command_carries_connections_to_a_local_port(
    cloud: Cloud, network: Network, greeter: MachineHost, daemon: ThisDaemon
) -> None:
    network.allow("iap", 4001, sourceRanges=[IAP_RANGE])
    about = {"admin_socket": str(cloud.settings.run / "admin.sock")}
    (cloud.settings.home / "daemon.json").write_text(json.dumps(about))
    argv = [sys.executable, "-m", "localcloud", "--home", str(cloud.settings.home), "tunnel"]
    argv += ["gateway", "4001", "--listen", f"{network.prefix}.0.9:4009"]
    command = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stdout=subprocess.PIPE)
    assert command.stdout is not None
    assert b"leads to gce/gateway:4001" in await command.stdout.readline()
    reader, writer = await asyncio.open_connection(f"{network.prefix}.0.9", 4009)
    assert await reader.readline() == b"hello\n"
    writer.write_eof()
    assert await reader.read() == b"", "the far end's end comes back"
    writer.close()
    command.terminate()
    await command.wait()


async def test_logs_are_followed_while_they_are_written(
    network: Network, greeter: MachineHost, daemon: ThisDaemon
) -> None:
    greeter.log("first line")
    connection = await asyncio.to_thread(daemon.open, "logs", name="gateway", follow=True)
    reader, writer = await asyncio.open_unix_connection(sock=connection.socket)
    assert b"first line" in await reader.readline()
    greeter.log("second line")
    assert b"second line" in await reader.readline()
    writer.close()


async def test_a_machine_is_deleted_as_in_the_console(
    cloud: Cloud, network: Network, greeter: MachineHost, daemon: ThisDaemon
) -> None:
    network.declare("gcp:compute/instance:Instance", "gateway")
    assert await asyncio.to_thread(daemon.call, "delete_machine", name="gateway") == {
        "machine": "gce/gateway"
    }
    assert cloud.machines.status("gce/gateway") == "ABSENT"
    assert cloud.store.all("gcp:compute/instance:Instance") == []
    assert not greeter.folder.exists()
