"""Virtual machines and disks: what they get, what Google refuses, and what a refresh finds."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import (
    ACCOUNT,
    ADDRESS,
    DISK,
    INSTANCE,
    NETWORK,
    RESOURCE_POLICY,
    SUBNETWORK,
)
from localcloud.providers.gcp.catalog import find_image, has_machine_type, has_zone
from localcloud.providers.gcp.disks import ATTACHMENT, disk_folder
from tests.providers.conftest import Declared, RecordedMachines

NET = "projects/local/global/networks/net"
SUBNET = "projects/local/regions/us-west1/subnetworks/subnet"
DISK_ID = "projects/local/zones/us-west1-b/disks/settings"
EMAIL = "gateway@local.iam.gserviceaccount.com"
VM: dict[str, Any] = {
    "name": "gateway",
    "zone": "us-west1-b",
    "machineType": "e2-small",
    "tags": ["gateway"],
    "bootDisk": {"initializeParams": {"image": "ubuntu-os-cloud/ubuntu-2204-lts", "size": 20}},
    "networkInterfaces": [{"subnetwork": SUBNET}],
    "metadata": {"user-data": "#cloud-config\n"},
    "serviceAccount": {"email": EMAIL, "scopes": ["cloud-platform"]},
}


@pytest.fixture
async def project(declared: Declared) -> Declared:
    """A network, a subnet, a service account and a disk."""
    await declared(NETWORK, name="net", autoCreateSubnetworks=False)
    await declared(SUBNETWORK, name="subnet", network=NET, ipCidrRange="127.57.0.0/24")
    await declared(ACCOUNT, accountId="gateway")
    await declared(DISK, name="settings", size=10, type="pd-balanced")
    return declared


async def test_an_instance_boots_with_all_that_it_declares(
    project: Declared, machines: RecordedMachines
) -> None:
    attached = [{"source": DISK_ID, "deviceName": "settings"}]
    made = await project(INSTANCE, **VM, attachedDisks=attached)
    spec = machines.specs["gce/gateway"]
    assert spec["user_data"] == "#cloud-config\n"
    assert spec["service_account"] == EMAIL
    assert spec["scopes"] == ["https://www.googleapis.com/auth/cloud-platform"]
    assert spec["tags"] == ["gateway"]
    assert spec["address"] == "127.57.0.2" == made.outputs["networkInterfaces"][0]["networkIp"]
    assert spec["disks"][0]["device_name"] == "settings"
    assert spec["disks"][0]["folder"] == str(disk_folder(project.provider.cloud, DISK_ID))
    assert made.outputs["currentStatus"] == "RUNNING"
    assert made.id == "projects/local/zones/us-west1-b/instances/gateway"


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"zone": "us-west1-x"}, 404, "projects/local/zones/us-west1-x' was not found"),
        ({"machineType": "e2-tiny"}, 404, "machineTypes/e2-tiny' was not found"),
        (
            {"bootDisk": {"initializeParams": {"image": "ubuntu-os-cloud/ubuntu-2404-lts"}}},
            404,
            "Could not find image or family ubuntu-os-cloud/ubuntu-2404-lts",
        ),
        ({"bootDisk": {"autoDelete": True}}, 400, "must have a source, an image or a snapshot"),
        (
            {"bootDisk": {"initializeParams": {"image": "debian-cloud/debian-12", "size": 5}}},
            400,
            "cannot be smaller than the image size (10 GB)",
        ),
        ({"networkInterfaces": [{"subnetwork": "nowhere"}]}, 404, "subnetworks/nowhere' was not found"),
        ({"networkInterfaces": [{"network": NET}]}, 400, "Subnetwork should be specified"),
        (
            {"networkInterfaces": [{"subnetwork": SUBNET, "networkIp": "127.57.9.9"}]},
            400,
            "not in the range of subnetwork",
        ),
        (
            {"zone": "us-east1-b", "networkInterfaces": [{"subnetwork": SUBNET}]},
            400,
            "must be in region 'us-east1'",
        ),
        (
            {"serviceAccount": {"email": "nobody@local.iam.gserviceaccount.com", "scopes": []}},
            400,
            "does not have access to service account 'nobody@",
        ),
        ({"attachedDisks": [{"source": "nothing"}]}, 404, "disks/nothing' was not found"),
        ({"metadata": {"user-data": "x" * 262145}}, 413, "metadata.items.user-data"),
    ],
)
async def test_what_compute_engine_would_refuse_is_refused(
    project: Declared, machines: RecordedMachines, change: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(CloudError) as refused:
        await project(INSTANCE, **{**VM, **change})
    assert refused.value.status == status
    assert words in refused.value.message
    assert not machines.specs
    assert "gce/gateway" not in project.provider.cloud.addresses.taken().values()


async def test_a_disk_is_attached_to_one_machine_only(project: Declared) -> None:
    """So a VM with a data disk can't be replaced create-first."""
    await project(INSTANCE, **VM, attachedDisks=[{"source": DISK_ID}])
    with pytest.raises(CloudError) as refused:
        await project(INSTANCE, **{**VM, "name": "second"}, attachedDisks=[{"source": DISK_ID}])
    assert refused.value.reason == "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE"
    with pytest.raises(CloudError, match="already being used"):
        await project.handler(DISK).delete(DISK_ID)


async def test_a_reserved_address_survives_the_machine_that_uses_it(project: Declared) -> None:
    reserved = await project(
        ADDRESS, name="gateway", addressType="INTERNAL", subnetwork=SUBNET, address="127.57.0.7"
    )
    nic = {"networkInterfaces": [{"subnetwork": SUBNET, "networkIp": "127.57.0.7"}]}
    made = await project(INSTANCE, **{**VM, **nic})
    with pytest.raises(CloudError, match="already being used"):
        await project.handler(ADDRESS).delete(reserved.id)
    with pytest.raises(CloudError) as refused:
        await project(INSTANCE, **{**VM, **nic, "name": "second"})
    assert refused.value.reason == "IP_IN_USE_BY_ANOTHER_RESOURCE"
    await project.handler(INSTANCE).delete(made.id)
    again = await project(INSTANCE, **{**VM, **nic})
    assert again.outputs["networkInterfaces"][0]["networkIp"] == "127.57.0.7"


async def test_metadata_is_updated_without_another_boot(
    project: Declared, machines: RecordedMachines
) -> None:
    """As in life: cloud-init does not run again, so a program has to ask for a replacement."""
    made = await project(INSTANCE, **VM)
    await project.handler(INSTANCE).update(made.id, {**VM, "metadata": {"user-data": "new"}})
    assert machines.specs["gce/gateway"]["user_data"] == "new"
    assert machines.boots == ["gce/gateway"]


async def test_a_new_machine_type_needs_leave_to_stop_the_machine(
    project: Declared, machines: RecordedMachines
) -> None:
    made = await project(INSTANCE, **VM)
    change = {**VM, "machineType": "e2-medium"}
    with pytest.raises(CloudError, match="allow_stopping_for_update"):
        await project.handler(INSTANCE).update(made.id, change)
    await project.handler(INSTANCE).update(made.id, {**change, "allowStoppingForUpdate": True})
    assert machines.specs["gce/gateway"]["machine_type"] == "e2-medium"
    assert machines.boots == ["gce/gateway", "gce/gateway"]
    assert machines.status("gce/gateway") == "RUNNING"


async def test_a_protected_machine_is_not_deleted(project: Declared) -> None:
    made = await project(INSTANCE, **VM, deletionProtection=True)
    with pytest.raises(CloudError, match="Deletion Protection is enabled"):
        await project.handler(INSTANCE).delete(made.id)
    await project.handler(INSTANCE).update(made.id, VM)
    await project.handler(INSTANCE).delete(made.id)


async def test_a_machine_deleted_by_somebody_is_found_gone_and_can_be_made_again(
    project: Declared, machines: RecordedMachines
) -> None:
    made = await project(INSTANCE, **VM)
    await machines.delete("gce/gateway")
    assert await project.handler(INSTANCE).read(made.id) is None
    again = await project(INSTANCE, **VM)
    assert again.outputs["networkInterfaces"][0]["networkIp"] == "127.57.0.2"


async def test_a_machine_stopped_by_somebody_is_found_and_started_again(
    project: Declared, machines: RecordedMachines
) -> None:
    made = await project(INSTANCE, **VM, desiredStatus="RUNNING")
    await machines.power_off("gce/gateway")
    found = await project.handler(INSTANCE).read(made.id)
    assert found is not None
    assert found.outputs["currentStatus"] == "TERMINATED"
    assert found.inputs["desiredStatus"] == "TERMINATED", "the next `up` must see the difference"
    await project.handler(INSTANCE).update(made.id, {**VM, "desiredStatus": "RUNNING"})
    assert machines.status("gce/gateway") == "RUNNING"


async def test_a_machine_that_does_not_boot_leaves_nothing_behind(
    project: Declared, machines: RecordedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(name: str, kind: str, spec: dict[str, Any]) -> None:
        raise CloudError(500, "no power")

    monkeypatch.setattr(machines, "boot", fails)
    with pytest.raises(CloudError, match="no power"):
        await project(INSTANCE, **VM)
    cloud = project.provider.cloud
    assert not cloud.store.all(INSTANCE)
    assert "gce/gateway" not in cloud.addresses.taken().values()


async def test_a_disk_grows_in_place_and_shrinks_by_replacement(project: Declared) -> None:
    replacing = project.handler(DISK).replacing
    assert replacing({"size": 10}, {"size": 20}) == set()
    assert replacing({"size": 20}, {"size": 10}) == {"size"}


async def test_a_disk_of_an_unknown_type_is_refused(project: Declared) -> None:
    with pytest.raises(CloudError, match="diskTypes/pd-fast' was not found"):
        await project(DISK, name="d", type="pd-fast")


async def test_a_snapshot_schedule_in_use_is_not_deleted(project: Declared) -> None:
    policy = await project(RESOURCE_POLICY, name="daily")
    attachment = await project(ATTACHMENT, disk="settings", name="daily")
    with pytest.raises(CloudError, match="already being used"):
        await project.handler(RESOURCE_POLICY).delete(policy.id)
    await project.handler(ATTACHMENT).delete(attachment.id)
    await project.handler(RESOURCE_POLICY).delete(policy.id)


@pytest.mark.parametrize(
    "written",
    [
        "ubuntu-2204-lts",
        "ubuntu-os-cloud/ubuntu-2204-lts",
        "projects/ubuntu-os-cloud/global/images/family/ubuntu-2204-lts",
        "https://www.googleapis.com/compute/v1/projects/ubuntu-os-cloud/global/images/family/ubuntu-2204-lts",
        "ubuntu-os-cloud/ubuntu-2204-jammy-v20251015",
    ],
)
def test_an_image_may_be_written_in_any_of_the_providers_ways(written: str) -> None:
    assert find_image(written)


@pytest.mark.parametrize("written", ["ubuntu", "debian-cloud/ubuntu-2204-lts", "ubuntu-2404-lts", ""])
def test_an_image_that_nobody_publishes_is_not_found(written: str) -> None:
    assert find_image(written) is None


def test_zones_and_machine_types_are_those_of_google() -> None:
    assert has_zone("us-west1-b")
    assert not has_zone("us-west1-d")
    assert not has_zone("us-east1-a"), "us-east1 begins at b"
    assert has_machine_type("e2-small")
    assert has_machine_type("n2-custom-4-8192")
    assert not has_machine_type("e2-huge")
