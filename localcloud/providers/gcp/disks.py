"""Persistent disks, and when they are snapshotted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from localcloud.cloud import Cloud, CloudError
from localcloud.providers.gcp.base import (
    DISK,
    INSTANCE,
    RESOURCE_POLICY,
    GcpHandler,
    in_use,
    invalid,
    plain,
    reference,
    self_link,
)
from localcloud.providers.gcp.catalog import DISK_TYPES, find_image
from localcloud.providers.resource import now, number
from localcloud.providers.values import UNKNOWN
from localcloud.state import Resource

DISK_PATTERN = "projects/{project}/zones/{zone}/disks/{name}"
DEFAULT_SIZE_GB = {"pd-standard": 500, "pd-balanced": 100, "pd-ssd": 100, "pd-extreme": 1000}
ATTACHMENT = "gcp:compute/diskResourcePolicyAttachment:DiskResourcePolicyAttachment"


def disk_folder(cloud: Cloud, resource_id: str) -> Path:
    """Where a persistent disk's contents are kept; it outlives the machines that mount it."""
    return cloud.settings.home / "disks" / resource_id.replace("/", "_")


def attached_to(cloud: Cloud, disk: str) -> str | None:
    """The id of the instance that a disk is attached to."""
    for instance in cloud.store.all(INSTANCE):
        places = {"project": instance.outputs["project"], "zone": instance.outputs["zone"]}
        boot = (instance.outputs.get("bootDisk") or {}).get("source")
        sources = [d.get("source") for d in instance.outputs.get("attachedDisks") or []]
        if any(s and reference(s, DISK_PATTERN, places) == disk for s in (boot, *sources)):
            return instance.id
    return None


class Disk(GcpHandler):
    """A persistent disk: a folder that outlives machines."""

    token = DISK
    id_format = DISK_PATTERN
    noun = "Disk"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_place(inputs)
        if plain(inputs["type"]) not in DISK_TYPES:
            raise CloudError(
                404,
                f"The resource 'projects/{inputs['project']}/zones/{inputs['zone']}/diskTypes/"
                f"{plain(inputs['type'])}' was not found",
                "notFound",
            )
        if inputs.get("image") and find_image(inputs["image"]) is None:
            raise CloudError(404, f"Could not find image or family {inputs['image']}", "notFound")
        size = inputs.get("size")
        if size is not None and not 10 <= size <= 65536:
            raise invalid("sizeGb", size, "Disk size must be between 10 GB and 65536 GB")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "size": inputs.get("size") or DEFAULT_SIZE_GB.get(plain(inputs["type"]), 100),
            "selfLink": self_link(resource_id),
        }
        if not old:
            found |= {
                "creationTimestamp": now(),
                "diskId": number(resource_id),
                "labelFingerprint": "42WmSpB8rSM=",
                "lastAttachTimestamp": "",
                "lastDetachTimestamp": "",
                "physicalBlockSizeBytes": inputs.get("physicalBlockSizeBytes") or 4096,
                "sourceDiskId": "",
                "sourceImageId": "",
                "sourceInstantSnapshotId": "",
                "sourceSnapshotId": "",
                "users": [],
            }
        return found

    async def started(self, resource: Resource) -> None:
        disk_folder(self.cloud, resource.id).mkdir(parents=True, exist_ok=True, mode=0o700)

    def replacing(self, old: dict[str, Any], new: dict[str, Any]) -> set[str]:
        """A disk can grow in place, not shrink."""
        was, wanted = old.get("size"), new.get("size")
        if UNKNOWN in (was, wanted) or was is None or wanted is None:
            return set()
        return {"size"} if wanted < was else set()

    def verify_delete(self, resource: Resource) -> None:
        user = attached_to(self.cloud, resource.id)
        if user is not None:
            raise in_use("disk", resource.id, user)

    async def stopped(self, resource: Resource) -> None:
        shutil.rmtree(disk_folder(self.cloud, resource.id), ignore_errors=True)


class ResourcePolicy(GcpHandler):
    """A snapshot schedule. The local cloud keeps it and takes no snapshots: nothing here reads one."""

    token = RESOURCE_POLICY
    id_format = "projects/{project}/regions/{region}/resourcePolicies/{name}"
    noun = "ResourcePolicy"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_place(inputs)

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {"selfLink": self_link(resource_id)}

    def verify_delete(self, resource: Resource) -> None:
        for attachment in self.cloud.store.all(ATTACHMENT):
            if attachment.outputs["name"] == resource.outputs["name"]:
                out = attachment.outputs
                disk = DISK_PATTERN.format(project=out["project"], zone=out["zone"], name=plain(out["disk"]))
                raise in_use("resourcePolicy", resource.id, disk)


class DiskResourcePolicyAttachment(GcpHandler):
    """A schedule on a disk. `name` is the policy's name."""

    token = ATTACHMENT
    id_format = "{project}/{zone}/{disk}/{name}"
    noun = "DiskResourcePolicyAttachment"

    def identify(self, inputs: dict[str, Any]) -> str:
        return self.id_format.format_map({**inputs, "disk": plain(inputs["disk"])})

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_place(inputs)
        self.find(DISK, inputs["disk"], DISK_PATTERN, inputs)
        region = plain(inputs["zone"]).rpartition("-")[0]
        pattern = ResourcePolicy.id_format
        policy = self.find(RESOURCE_POLICY, inputs["name"], pattern, {**inputs, "region": region})
        if policy.outputs["region"] != region:
            raise invalid("resourcePolicies", policy.id, "The policy isn't in the disk's region")


HANDLERS = (Disk, ResourcePolicy, DiskResourcePolicyAttachment)
