"""The listeners in action, with real processes: the same port, and who is let in depends on who asks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from localcloud import sockets
from localcloud.cloud import Cloud, CloudError
from localcloud.machines.host import MachineHost
from tests.localcloud.playground import Network, said, visitor


async def test_a_machine_is_let_in_where_a_shell_is_refused(network: Network, greeter: MachineHost) -> None:
    network.allow("from-client", 4001, sourceTags=["client"])
    client = network.vm("client", f"{network.prefix}.1.6", tags=["client"])
    await client.spawn(visitor(greeter.address, 4001), log="visitor")
    await said(client, "hello")
    shell = await asyncio.create_subprocess_exec(*visitor(greeter.address, 4001), stdout=subprocess.PIPE)
    out, _ = await shell.communicate()
    assert out.decode().strip() == "ConnectionResetError", "a process of no machine is the internet"
    refused = network.cloud.network.refused
    assert refused["internet", "gce/gateway", 4001] == 1


async def test_a_machine_that_no_rule_admits_is_refused(network: Network, greeter: MachineHost) -> None:
    network.allow("from-client", 4001, sourceTags=["client"])
    other = network.vm("other", f"{network.prefix}.1.7")
    await (await other.spawn(visitor(greeter.address, 4001), log="visitor")).wait()
    await said(other, "ConnectionResetError")


async def test_what_a_machines_program_starts_belongs_to_the_machine(
    network: Network, greeter: MachineHost
) -> None:
    network.allow("from-client", 4001, sourceTags=["client"])
    client = network.vm("client", f"{network.prefix}.1.6", tags=["client"])
    argv = [sys.executable, "-c", f"import subprocess; subprocess.run({visitor(greeter.address, 4001)!r})"]
    await client.spawn(["setsid", "--wait", *argv], log="visitor")
    await said(client, "hello")


async def test_taking_the_rule_away_cuts_the_connection_and_putting_it_back_opens_the_port(
    network: Network, greeter: MachineHost
) -> None:
    network.allow("from-client", 4001, sourceTags=["client"])
    client = network.vm("client", f"{network.prefix}.1.6", tags=["client"])
    process = await client.spawn(visitor(greeter.address, 4001), log="visitor")
    await said(client, "hello")
    network.undeclare("gcp:compute/firewall:Firewall", "from-client")
    await process.wait()
    await said(client, "ConnectionResetError")
    assert network.cloud.network.connections() == []
    network.allow("from-client", 4001, sourceTags=["client"])
    await client.spawn(visitor(greeter.address, 4001), log="again")
    await said(client, "again: hello")


async def test_an_allowed_connection_survives_a_change_that_leaves_it_allowed(
    network: Network, greeter: MachineHost
) -> None:
    network.allow("from-client", 4001, sourceTags=["client"])
    client = network.vm("client", f"{network.prefix}.1.6", tags=["client"])
    await client.spawn(visitor(greeter.address, 4001), log="visitor")
    await said(client, "hello")
    network.allow("something-else", 22, sourceTags=["admin"])
    await asyncio.sleep(0)  # the review is due in the loop's next turn
    assert len(network.cloud.network.connections()) == 1


async def test_a_port_with_nothing_behind_it_is_closed(network: Network) -> None:
    network.allow("from-client", 4001, sourceTags=["client"])
    gateway = network.vm("gateway", f"{network.prefix}.1.5")
    gateway.listen(4001, gateway.run / "nobody.sock")
    client = network.vm("client", f"{network.prefix}.1.6", tags=["client"])
    await (await client.spawn(visitor(gateway.address, 4001), log="visitor")).wait()
    await said(client, "ConnectionResetError")


async def test_bytes_arrive_whole_in_both_directions_and_the_ends_close_one_by_one(
    network: Network, greeter: MachineHost
) -> None:
    network.allow("from-client", 4001, sourceTags=["client"])
    client = network.vm("client", f"{network.prefix}.1.6", tags=["client"])
    code = f"""
import socket
connection = socket.create_connection(("{greeter.address}", 4001))
text = (b"x" * 99 + b"\\n") * 20_000
received = b""
import threading
sender = threading.Thread(target=lambda: (connection.sendall(text), connection.shutdown(socket.SHUT_WR)))
sender.start()
while part := connection.recv(65536):
    received += part
print("whole" if received == b"hello\\n" + text else f"broken {{len(received)}}")
"""
    assert await (await client.spawn([sys.executable, "-c", code], log="echo")).wait() == 0
    await said(client, "whole")


async def test_a_port_that_another_program_has_is_refused_by_name(cloud: Cloud, network: Network) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), f"{network.prefix}.1.5", 4001)
    async with server:
        gateway = network.vm("gateway", f"{network.prefix}.1.5")
        with pytest.raises(CloudError, match=r"gce/gateway can't listen on .*:4001"):
            gateway.listen(4001, gateway.run / "x.sock")


async def test_the_slow_way_to_find_a_socket_agrees_with_the_quick_one(prefix: str) -> None:
    async with await asyncio.start_server(lambda _reader, _writer: None, f"{prefix}.1.5", 4005) as server:
        _, writer = await asyncio.open_connection(f"{prefix}.1.5", 4005)
        local, remote = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        inode = sockets.inode(local, remote)
        assert inode is not None
        assert inode == sockets._read_table(local, remote)
        assert sockets.owner(inode, [os.getpid()]) == os.getpid()
        writer.close()
        server.close()
    assert sockets.inode(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
