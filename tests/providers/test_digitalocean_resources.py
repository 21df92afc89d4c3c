"""Droplets, firewalls, tags and what else a stack declares at DigitalOcean, over the local account."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.cloud import Cloud, CloudError
from localcloud.digitalocean import DROPLET, FIREWALL, TAG, account_token
from localcloud.digitalocean.parts import SSH_KEY, VPC
from localcloud.providers.digitalocean import PROJECT, DigitalOcean
from localcloud.providers.resource import Handler
from tests.providers.conftest import RecordedMachines

WANTED: dict[str, Any] = {
    "name": "ann-ib-paper-1",
    "image": "ubuntu-24-04-x64",
    "size": "s-1vcpu-1gb",
    "region": "nyc1",
    "tags": ["stack:t", "ibeam"],
    "userData": "#cloud-config",
}
RULES: dict[str, Any] = {
    "name": "fleet",
    "tags": ["ibeam"],
    "inboundRules": [{"protocol": "tcp", "portRange": "5000", "sourceAddresses": ["127.57.128.2/32"]}],
}
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB+3oXPGsvG6TWBX9ZGY4aLyTgSDtZ2o1hnHbJzOSLYx a@b"


@pytest.fixture
def provider(cloud: Cloud) -> DigitalOcean:
    return DigitalOcean(cloud)


@pytest.fixture
def droplets(provider: DigitalOcean) -> Handler:
    return provider.handlers[DROPLET]


async def test_a_droplet_is_active_and_has_an_address_when_it_is_made(
    droplets: Handler, machines: RecordedMachines
) -> None:
    made = await droplets.create(WANTED)
    assert made.outputs["status"] == "active"
    assert made.outputs["ipv4Address"].startswith("127.57.128.")
    assert made.outputs["priceMonthly"] == 6.0
    assert machines.specs[f"droplet/{made.id}"]["user_data"] == "#cloud-config"
    found = await droplets.read(made.id)
    assert found is not None
    assert found.outputs == made.outputs, "a refresh right after `up` must find no drift"
    assert found.inputs == WANTED


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": "s-99vcpu"}, "invalid size"),
        ({"region": "moon1"}, "invalid region"),
        ({"image": "ubuntu-1"}, "invalid image"),
        ({"image": "182556282"}, "invalid image"),
        ({"name": "under_score"}, "Only valid hostname characters"),
        ({"userData": "☂"}, "ASCII"),
        ({"vpcUuid": "none"}, "Failed to resolve VPC"),
    ],
)
async def test_what_digitalocean_would_refuse_is_refused(
    droplets: Handler, machines: RecordedMachines, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(CloudError, match=words) as refused:
        await droplets.create({**WANTED, **change})
    assert refused.value.status == 422
    assert not machines.specs


async def test_size_name_and_tags_change_in_place(droplets: Handler, machines: RecordedMachines) -> None:
    made = await droplets.create(WANTED)
    change = {"name": "ann-ib-paper-2", "size": "s-1vcpu-2gb", "tags": ["ibeam", "blue"]}
    changed = await droplets.update(made.id, {**WANTED, **change})
    assert changed.outputs["name"] == "ann-ib-paper-2"
    assert changed.outputs["memory"] == 2048
    assert sorted(changed.outputs["tags"]) == ["blue", "ibeam"]
    assert changed.outputs["status"] == "active"
    assert changed.outputs["ipv4Address"] == made.outputs["ipv4Address"]


async def test_a_droplet_deleted_by_somebody_is_found_gone(
    droplets: Handler, machines: RecordedMachines
) -> None:
    made = await droplets.create(WANTED)
    await machines.delete(f"droplet/{made.id}")
    assert await droplets.read(made.id) is None
    await droplets.delete(made.id)


async def test_a_tag_taken_off_by_somebody_is_found(droplets: Handler, provider: DigitalOcean) -> None:
    made = await droplets.create(WANTED)
    provider.handlers[DROPLET].account.droplets.tag(made.id, "ibeam", present=False)  # type: ignore[attr-defined]
    found = await droplets.read(made.id)
    assert found is not None
    assert found.inputs["tags"] == ["stack:t"]


async def test_a_firewall_applies_by_tag_and_its_name_is_its_own(provider: DigitalOcean) -> None:
    with pytest.raises(CloudError, match="tag ibeam not found"):
        await provider.handlers[FIREWALL].create(RULES)
    await provider.handlers[TAG].create({"name": "ibeam"})
    made = await provider.handlers[FIREWALL].create(RULES)
    assert made.outputs["status"] == "succeeded"
    with pytest.raises(CloudError, match="duplicate name"):
        await provider.handlers[FIREWALL].create(RULES)
    change = {**RULES, "inboundRules": [{"protocol": "icmp", "sourceAddresses": ["0.0.0.0/0"]}]}
    changed = await provider.handlers[FIREWALL].update(made.id, change)
    assert changed.outputs["inboundRules"][0]["protocol"] == "icmp"
    await provider.handlers[FIREWALL].delete(made.id)
    await provider.handlers[FIREWALL].delete(made.id)


async def test_an_existing_tag_is_taken_over(provider: DigitalOcean) -> None:
    assert (await provider.handlers[TAG].create({"name": "t"})).id == "t"
    assert (await provider.handlers[TAG].create({"name": "t"})).id == "t"


async def test_a_public_key_is_added_once(provider: DigitalOcean) -> None:
    keys = provider.handlers[SSH_KEY]
    made = await keys.create({"name": "a", "publicKey": PUBLIC_KEY})
    assert len(made.outputs["fingerprint"].split(":")) == 16
    with pytest.raises(CloudError, match="already in use"):
        await keys.create({"name": "b", "publicKey": PUBLIC_KEY})
    with pytest.raises(CloudError, match="Key invalid"):
        await keys.create({"name": "b", "publicKey": "nonsense"})


async def test_private_networks_do_not_overlap_and_keep_their_members(
    provider: DigitalOcean, droplets: Handler
) -> None:
    vpcs = provider.handlers[VPC]
    vpc = await vpcs.create({"name": "a", "region": "nyc1", "ipRange": "127.57.64.0/24"})
    with pytest.raises(CloudError, match="overlaps"):
        await vpcs.create({"name": "b", "region": "nyc1", "ipRange": "127.57.64.0/28"})
    droplet = await droplets.create({**WANTED, "vpcUuid": vpc.id})
    assert droplet.outputs["ipv4AddressPrivate"].startswith("127.57.64.")
    with pytest.raises(CloudError, match="with members"):
        await vpcs.delete(vpc.id)
    await droplets.delete(droplet.id)
    await vpcs.delete(vpc.id)


async def test_things_are_filed_in_a_project_that_is_there(provider: DigitalOcean) -> None:
    filing = provider.handlers["digitalocean:index/projectResources:ProjectResources"]
    with pytest.raises(CloudError, match="could not be found"):
        await filing.create({"project": "none", "resources": []})
    made = await provider.handlers[PROJECT].create({"name": "p"})
    assert (await filing.create({"project": made.id, "resources": []})).id == made.id


async def test_only_the_local_token_is_taken(provider: DigitalOcean, cloud: Cloud) -> None:
    assert provider.check_config({}) == []
    assert provider.check_config({"token": account_token(cloud)}) == []
    refused = provider.check_config({"token": "dop_v1_real"})
    assert [failure.property for failure in refused] == ["token"]
    assert "dop_v1" not in refused[0].reason


async def test_functions_look_things_up(provider: DigitalOcean) -> None:
    image = await provider.invoke("digitalocean:index/getImage:getImage", {"slug": "ubuntu-24-04-x64"})
    assert image["slug"] == "ubuntu-24-04-x64"
    region = await provider.invoke("digitalocean:index/getRegion:getRegion", {"slug": "nyc1"})
    assert region["available"]
    sizes = await provider.invoke("digitalocean:index/getSizes:getSizes", {})
    assert any(size["slug"] == "s-1vcpu-1gb" for size in sizes["sizes"])
    with pytest.raises(CloudError, match="doesn't have the function digitalocean:index/getVpc:getVpc"):
        await provider.invoke("digitalocean:index/getVpc:getVpc", {})
