"""The APIs that machines call, asked by real processes of machines: who asks decides what they get."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from localcloud import secrets
from localcloud.apis.app import api_server, listening_socket
from localcloud.apis.google import access_token, authenticate
from localcloud.apis.secretmanager import crc32c
from localcloud.cloud import Cloud, CloudError
from localcloud.iam import CLOUD_PLATFORM, Identity
from localcloud.machines.host import MachineHost
from localcloud.state import Resource
from tests.localcloud.playground import Network

READER, OTHER = "reader@local.iam.gserviceaccount.com", "other@local.iam.gserviceaccount.com"
PASSWORD = "pa'ss \\ wörd\n"
GET = """
import json, os, sys, urllib.error, urllib.request
for url, headers in json.loads(sys.argv[1]):
    request = urllib.request.Request("http://" + os.environ["GCE_METADATA_HOST"] + url, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            print(json.dumps([answer.status, answer.read().decode()]))
    except urllib.error.HTTPError as error:
        print(json.dumps([error.code, error.read().decode()]))
"""
METADATA = {"Metadata-Flavor": "Google"}
TOKEN = "/computeMetadata/v1/instance/service-accounts/default/token"  # a path


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


@pytest.fixture
def secret(cloud: Cloud, network: Network) -> str:
    """A secret with two versions that READER may read, in a network with access to Google's APIs."""
    access = "gcp:compute/subnetwork:Subnetwork"
    cidr = f"{network.prefix}.1.0/24"
    network.declare(access, "subnet", network="vpc", ipCidrRange=cidr, privateIpGoogleAccess=True)
    for number, text in ((1, "old"), (2, PASSWORD)):
        name = f"projects/local/secrets/login/versions/{number}"
        cloud.store.put(
            Resource(
                "gcp:secretmanager/secretVersion:SecretVersion",
                name,
                {"secret": "projects/local/secrets/login", "secretData": text},
                {"version": str(number), "name": name},
            )
        )
    network.declare(
        "gcp:secretmanager/secretIamMember:SecretIamMember",
        "grant",
        secretId="projects/local/secrets/login",
        role="roles/secretmanager.secretAccessor",
        member=f"serviceAccount:{READER}",
    )
    return "login"


async def ask(host: MachineHost, *requests: tuple[str, dict[str, str]]) -> list[tuple[int, str]]:
    """Have a process of the machine make these requests; status and body of each."""
    printed: list[str] = []
    process = await host.cloud.processes.spawn(
        [sys.executable, "-c", GET, json.dumps(requests)],
        owner=host.name,
        log=printed.append,
        env=host.environment,
    )
    assert await process.wait() == 0, printed
    return [tuple(json.loads(line)) for text in printed for line in text.splitlines()]


def version(number: str, secret: str = "login") -> str:
    """The path that reads a version."""
    return f"/secretmanager/v1/projects/local/secrets/{secret}/versions/{number}:access"


def vm(network: Network, account: str, scopes: tuple[str, ...] = (CLOUD_PLATFORM,)) -> MachineHost:
    """A machine with a service account."""
    address = f"{network.prefix}.1.6"
    return network.vm("vm", address, service_account=account, scopes=scopes, user_data="#cloud-config\n")


async def read_as(host: MachineHost, *paths: str) -> list[tuple[int, dict[str, Any]]]:
    """Get a token from the metadata server, then read these paths with it."""
    [(status, body)] = await ask(host, (TOKEN, METADATA))
    assert status == 200
    headers = {"Authorization": f"Bearer {json.loads(body)['access_token']}"}
    answers = await ask(host, *((path, headers) for path in paths))
    return [(status, json.loads(body)) for status, body in answers]


async def test_a_machine_reads_the_secret_that_its_account_was_granted(
    apis: Cloud, network: Network, secret: str
) -> None:
    latest, first = await read_as(vm(network, READER), version("latest"), version("1"))
    assert latest[0] == 200
    assert latest[1]["name"].endswith("/secrets/login/versions/2"), "latest is answered with its number"
    assert base64.b64decode(latest[1]["payload"]["data"]).decode() == PASSWORD
    assert latest[1]["payload"]["dataCrc32c"] == str(crc32c(PASSWORD.encode()))
    assert base64.b64decode(first[1]["payload"]["data"]) == b"old"


async def test_without_a_grant_there_is_no_difference_between_forbidden_and_absent(
    apis: Cloud, network: Network, secret: str
) -> None:
    there, absent = await read_as(vm(network, OTHER), version("1"), version("1", "nothing"))
    for status, body in (there, absent):
        assert (status, body["error"]["status"]) == (403, "PERMISSION_DENIED")
        assert "(or it may not exist)" in body["error"]["message"]


async def test_taking_the_grant_away_takes_effect_at_once(apis: Cloud, network: Network, secret: str) -> None:
    host = vm(network, READER)
    network.undeclare("gcp:secretmanager/secretIamMember:SecretIamMember", "grant")
    [(status, _)] = await read_as(host, version("1"))
    assert status == 403


async def test_a_machine_without_the_cloud_platform_scope_reads_no_secret(
    apis: Cloud, network: Network, secret: str
) -> None:
    host = vm(network, READER, ("https://www.googleapis.com/auth/logging.write",))
    [(status, body)] = await read_as(host, version("1"))
    assert (status, body["error"]["message"]) == (
        403,
        "Request had insufficient authentication scopes.",
    )


async def test_a_version_that_is_not_there_and_one_that_is_disabled(
    apis: Cloud, cloud: Cloud, network: Network, secret: str
) -> None:
    host = vm(network, READER)
    disabled = cloud.store.get(
        "gcp:secretmanager/secretVersion:SecretVersion", "projects/local/secrets/login/versions/1"
    )
    assert disabled is not None
    disabled.inputs["enabled"] = False
    cloud.store.put(disabled)
    missing, off = await read_as(host, version("9"), version("1"))
    assert (missing[0], missing[1]["error"]["status"]) == (404, "NOT_FOUND")
    assert (off[0], off[1]["error"]["status"]) == (400, "FAILED_PRECONDITION")


async def test_a_network_without_a_way_to_google_reaches_no_secret(
    apis: Cloud, network: Network, secret: str
) -> None:
    host = vm(network, READER)
    network.undeclare("gcp:compute/subnetwork:Subnetwork", "subnet")
    [(status, body)] = await read_as(host, version("1"))
    assert status == 503
    assert "no Cloud NAT" in body["error"]["message"]


async def test_metrics_are_written_by_whom_was_granted_it_and_by_nobody_else(
    apis: Cloud, cloud: Cloud, network: Network
) -> None:
    network.declare(
        "gcp:projects/iAMMember:IAMMember",
        "metrics",
        project="local",
        role="roles/monitoring.metricWriter",
        member=f"serviceAccount:{READER}",
    )
    point = {"interval": {"endTime": "2026-01-02T15:04:05Z"}, "value": {"int64Value": "1"}}
    series = {"metric": {"type": "custom.googleapis.com/x"}, "resource": {"type": "gce_instance"}}

    async def write(account: str, body: object, project: str = "local") -> int:
        token = access_token(cloud, Identity(account, (CLOUD_PLATFORM,)))
        address = f"{cloud.settings.api_url}/monitoring/v3/projects/{project}/timeSeries"
        async with httpx.AsyncClient() as client:
            headers = {"Authorization": f"Bearer {token}"}
            return (await client.post(address, json=body, headers=headers)).status_code

    good = {"timeSeries": [{**series, "points": [point]}]}
    assert await write(READER, good) == 200
    assert await write(OTHER, good) == 403
    assert await write(READER, good, "another") == 403
    assert await write(READER, {"timeSeries": [{**series, "points": [point, point]}]}) == 400
    assert await write(READER, {"timeSeries": []}) == 400


async def test_no_token_and_a_wrong_token_are_401(apis: Cloud, network: Network, secret: str) -> None:
    host = vm(network, READER)
    answers = await ask(host, (version("1"), {}), (version("1"), {"Authorization": "Bearer ya29.local.AAAA"}))
    assert [status for status, _ in answers] == [401, 401]


async def test_the_metadata_server_wants_its_header_and_a_machine(apis: Cloud, network: Network) -> None:
    host = vm(network, READER)
    bare, named, user_data, absent = await ask(
        host,
        (TOKEN, {}),
        ("/computeMetadata/v1/instance/name", METADATA),
        ("/computeMetadata/v1/instance/attributes/user-data", METADATA),
        ("/computeMetadata/v1/instance/attributes/nothing", METADATA),
    )
    assert bare[0] == 403
    assert "Missing Metadata-Flavor:Google header" in bare[1]
    assert (named, user_data[1], absent[0]) == ((200, "vm"), "#cloud-config\n", 404)
    droplet = MachineHost(apis, "droplet/7", "droplet", f"{network.prefix}.128.7")
    droplet.environment["GCE_METADATA_HOST"] = host.environment["GCE_METADATA_HOST"]
    [(status, _)] = await ask(droplet, (TOKEN, METADATA))
    assert status == 404, "a droplet isn't in Google's network"


async def test_a_token_outlives_a_restart_but_not_its_hour(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = access_token(cloud, Identity(READER, (CLOUD_PLATFORM,)))
    assert authenticate(cloud, f"Bearer {token}").email == READER
    monkeypatch.setattr("localcloud.apis.google.time.time", lambda: 1e12)
    with pytest.raises(CloudError, match="invalid authentication credentials"):
        authenticate(cloud, f"Bearer {token}")


def test_a_payload_shows_nothing_of_itself() -> None:
    assert "old" not in repr(secrets.Payload("login", 1, b"old"))


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283, "the check value of CRC-32C"
