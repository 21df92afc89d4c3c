"""A run-time droplet in the local cloud: its agent, its metadata, and who the network lets reach it."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator

import pytest

from broker.fleet.spec import DropletSettings, Enrolment, droplet_spec
from localcloud.apis.app import api_server, listening_socket
from localcloud.cloud import Cloud
from localcloud.machines.host import MachineHost
from tests.localcloud.playground import Network
from tests.machines.droplet import ACCOUNT, ENROLMENT_TOKEN, Surroundings

ADDRESS_PATH = "/droplet/metadata/v1/interfaces/public/0/ipv4/address"
HEALTH = """
import ssl, sys, urllib.request
trusting = ssl.create_default_context()
trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
try:
    url = f"https://{sys.argv[1]}:5000/agent/health"
    with urllib.request.urlopen(url, timeout=20, context=trusting) as answer:
        print(answer.read().decode(), flush=True)
except OSError as error:
    print(f"refused: {error}", flush=True)
"""
READ = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"


@pytest.fixture
async def apis(cloud: Cloud) -> AsyncIterator[Cloud]:
    """The cloud with its API server running."""
    server = api_server(cloud)
    task = asyncio.create_task(server.serve(sockets=[listening_socket(cloud)]))
    while not server.started:  # noqa: ASYNC110 -- uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield cloud
    server.should_exit = True
    await task


async def printed(cloud: Cloud, owner: str, *argv: str) -> str:
    """What a program of a machine, or of nobody, prints."""
    lines: list[str] = []
    process = await cloud.processes.spawn([sys.executable, "-c", *argv], owner=owner, log=lines.append)
    await process.wait()
    return "".join(lines)


async def test_the_agent_enrols_and_answers_the_nat_only(
    apis: Cloud, network: Network, surroundings: Surroundings
) -> None:
    nat, address = f"{network.prefix}.200.1", f"{network.prefix}.128.7"
    push_key = base64.b64encode(b"k" * 32).decode()
    enrolment = Enrolment(surroundings.url, ENROLMENT_TOKEN, ACCOUNT, push_key)
    settings = DropletSettings(client_address=nat)
    spec = droplet_spec("local", "ann", "paper", 1, settings, enrolment, "service")
    inside = network.vm("inside", f"{network.prefix}.1.6", external_address=nat)
    outside = network.vm("outside", f"{network.prefix}.1.7", external_address=f"{network.prefix}.200.2")
    network.declare(
        "digitalocean:index/firewall:Firewall",
        "fleet",
        tags=["stack:local"],
        inboundRules=[{"protocol": "tcp", "portRange": "5000", "sourceAddresses": [f"{nat}/32"]}],
        outboundRules=[{"protocol": "tcp", "portRange": "all", "destinationAddresses": ["0.0.0.0/0"]}],
    )
    machine = {"address": address, "user_data": spec.user_data, "tags": list(spec.tags), "image": spec.image}
    await apis.machines.boot("droplet/7", "droplet", machine)
    while not surroundings.enrolments:  # noqa: ASYNC110 -- another process, no event
        await asyncio.sleep(0.05)
    assert surroundings.enrolments[0]["token"] == ENROLMENT_TOKEN
    assert apis.machines.describe("droplet/7")["ports"] == [5000]
    assert json.loads(await printed(apis, inside.name, HEALTH, address))["has_credentials"] is False
    for stranger in (outside.name, "nobody"):
        assert (await printed(apis, stranger, HEALTH, address)).startswith("refused")
    await apis.machines.power_off("droplet/7")
    assert (await printed(apis, inside.name, HEALTH, address)).startswith("refused")


async def test_a_droplet_is_told_its_own_address_and_others_are_told_nothing(
    apis: Cloud, network: Network
) -> None:
    vm = network.vm("vm", f"{network.prefix}.1.6")
    spec = {"address": f"{network.prefix}.128.9"}
    apis.store.note("machines", "droplet/9", {"kind": "droplet", "spec": spec, "wanted": "running"})
    droplet = MachineHost(apis, "droplet/9", "droplet", spec["address"])
    url = droplet.environment["DROPLET_METADATA"] + ADDRESS_PATH.removeprefix("/droplet")
    assert await printed(apis, droplet.name, READ, url) == spec["address"]
    assert "DROPLET_METADATA" not in vm.environment
    assert "404" in await printed(apis, vm.name, READ, url)
