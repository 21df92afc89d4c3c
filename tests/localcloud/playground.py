"""What tests build clouds with: declared networks, machines, and programs for machines to run."""

from __future__ import annotations

import asyncio
import sys

from localcloud.cloud import Cloud
from localcloud.machines.host import MachineHost
from localcloud.state import Resource


class Network:
    """Declares things as the stack would, and puts machines into them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.prefix = cloud.settings.network

    def declare(self, type_: str, name: str, **inputs: object) -> None:
        """Put a resource as its handler would, and tell the network."""
        self.cloud.store.put(Resource(type_, name, {"name": name, **inputs}))
        self.cloud.network.changed()

    def undeclare(self, type_: str, name: str) -> None:
        """Take a resource away again."""
        self.cloud.store.delete(type_, name)
        self.cloud.network.changed()

    def vm(self, name: str, address: str, **spec: object) -> MachineHost:
        """A virtual machine with power and an empty disk; the test starts its programs."""
        machine = f"gce/{name}"
        whole = {"address": address, "network": "vpc", "subnetwork": "subnet", **spec}
        self.cloud.store.note("machines", machine, {"kind": "gce", "spec": whole, "wanted": "running"})
        host = MachineHost(self.cloud, machine, "gce", address)
        host.power_on()
        return host

    def allow(self, name: str, port: int, **inputs: object) -> None:
        """An ingress rule that allows one TCP port."""
        ports = [{"protocol": "tcp", "ports": [str(port)]}]
        self.declare("gcp:compute/firewall:Firewall", name, network="vpc", allows=ports, **inputs)


def visitor(address: str, port: int) -> list[str]:
    """A program that connects, prints what it is told or why not, and stays until it is cut off."""
    code = f"""
import socket
try:
    connection = socket.create_connection(("{address}", {port}), timeout=10)
    print(connection.recv(100).decode().strip(), flush=True)
    connection.settimeout(None)
    connection.recv(100)
except OSError as error:
    print(type(error).__name__, flush=True)
else:
    print("ended", flush=True)
"""
    return [sys.executable, "-c", code]


async def said(host: MachineHost, word: str) -> None:
    """Wait until the machine's log holds this word; the test's time limit ends the wait."""
    while word not in _log(host):  # noqa: ASYNC110 -- a file has no event
        await asyncio.sleep(0.01)


def _log(host: MachineHost) -> str:
    path = host.log_file.path
    return path.read_text() if path.exists() else ""
