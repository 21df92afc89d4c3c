"""The policy pack under the real engine: a program that breaks rules is refused before anything is made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pulumi
import pulumi_digitalocean as digitalocean
import pulumi_gcp as gcp
import pytest
from pulumi import automation

from localcloud.cloud import Cloud
from localcloud.providers.gcp.base import FIREWALL
from localcloud.providers.server import serve_providers, stop_providers
from tests.providers.test_engine import Engine

KEY = "-----BEGIN RSA PRIVATE KEY-----"
PACK = [str(Path(__file__).resolve().parents[2] / "policy")]
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.timeout(300)]


@pytest.fixture
async def run(cloud: Cloud, tmp_path: Path) -> AsyncIterator[Engine]:
    folder = tmp_path / "state"
    folder.mkdir()
    ports = await serve_providers(cloud)
    yield Engine(folder, ports)
    await stop_providers(cloud)


def program(source: str, marked: bool) -> Callable[[], None]:
    """A firewall rule for the gateway's port, and a droplet with a key, marked as a secret or not."""

    def declare() -> None:
        network = gcp.compute.Network("net", auto_create_subnetworks=False)
        gcp.compute.Firewall(
            "door",
            network=network.id,
            source_ranges=[source],
            allows=[gcp.compute.FirewallAllowArgs(protocol="tcp", ports=["4002"])],
        )
        digitalocean.Droplet(
            "droplet",
            image="ubuntu-24-04-x64",
            size="s-1vcpu-1gb",
            region="nyc1",
            tags=["stack:test"],
            user_data=pulumi.Output.secret(KEY) if marked else KEY,
        )

    return declare


async def test_the_engine_refuses_what_breaks_a_rule_and_says_the_remedy(run: Engine, cloud: Cloud) -> None:
    with pytest.raises(automation.CommandError):
        await run("preview", program("0.0.0.0/0", marked=False), policy_packs=PACK)
    said = "\n".join(run.said)
    assert "[mandatory]  no-open-ingress" in said, said
    assert "door admits 0.0.0.0/0, which is the internet. Admit the connector's /28" in said
    assert "door admits 0.0.0.0/0 to the gateway's port" in said
    assert "droplet has what looks like a key, a token or a password in userData in plain text" in said
    assert KEY not in said
    with pytest.raises(automation.CommandError):
        await run("up", program("0.0.0.0/0", marked=False), policy_packs=PACK)
    assert not cloud.store.all(FIREWALL), "what is refused must not be made"


async def test_the_engine_lets_pass_what_keeps_the_rules(run: Engine) -> None:
    """At preview, where the network's id isn't known yet, and at `up`."""
    for operation in ("preview", "up"):
        await run(operation, program("10.10.1.0/28", marked=True), policy_packs=PACK)
    assert "mandatory" not in "\n".join(run.said)
