"""Virtual machines."""

from __future__ import annotations

from typing import Any

from localcloud.cloud import CloudError
from localcloud.providers.gcp.addressing import ADDRESS_PATTERN, verify_member
from localcloud.providers.gcp.base import (
    ACCOUNT,
    ADDRESS,
    DISK,
    INSTANCE,
    GcpHandler,
    fingerprint,
    invalid,
    plain,
    reference,
    self_link,
)
from localcloud.providers.gcp.catalog import (
    DISK_TYPES,
    IMAGE_SIZE_GB,
    find_image,
    has_machine_type,
    region_of,
)
from localcloud.providers.gcp.disks import DISK_PATTERN, attached_to, disk_folder
from localcloud.providers.resource import not_found, now, number
from localcloud.secrets import PROJECT_NUMBER
from localcloud.state import Resource

# What gcloud and the provider let stand for a scope's URL.
SCOPES = {
    "cloud-platform": "https://www.googleapis.com/auth/cloud-platform",
    "logging-write": "https://www.googleapis.com/auth/logging.write",
    "monitoring": "https://www.googleapis.com/auth/monitoring",
    "monitoring-write": "https://www.googleapis.com/auth/monitoring.write",
    "compute-ro": "https://www.googleapis.com/auth/compute.readonly",
    "compute-rw": "https://www.googleapis.com/auth/compute",
    "storage-ro": "https://www.googleapis.com/auth/devstorage.read_only",
    "storage-rw": "https://www.googleapis.com/auth/devstorage.read_write",
    "userinfo-email": "https://www.googleapis.com/auth/userinfo.email",
}
# Changes that a running machine can't take (the provider's resource_compute_instance.go).
NEED_A_STOP = ("machineType", "minCpuPlatform", "serviceAccount", "enableDisplay", "shieldedInstanceConfig")
METADATA_LIMIT_BYTES = 256 * 1024


def machine_name(name: str) -> str:
    """The machine of an instance."""
    return f"gce/{name}"


class Instance(GcpHandler):
    """A VM: applies its cloud-init at the first boot only, as in life."""

    token = INSTANCE
    id_format = "projects/{project}/zones/{zone}/instances/{name}"
    noun = "instance"
    shapes_network = True

    # --- what the API refuses --------------------------------------------------------------

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_place(inputs)
        zone, project = inputs["zone"], inputs["project"]
        if not has_machine_type(plain(inputs["machineType"])):
            kind = plain(inputs["machineType"])
            raise not_found(f"projects/{project}/zones/{zone}/machineTypes/{kind}")
        self._verify_account(inputs)
        self._verify_metadata(inputs)
        if old is not None:
            self._verify_update(inputs, old)
        else:
            self._verify_new(inputs)

    def _verify_new(self, inputs: dict[str, Any]) -> None:
        self._verify_boot_disk(inputs)
        for other in self.cloud.store.find(INSTANCE, name=inputs["name"]):
            if other.id != self.identify(inputs):
                raise CloudError(
                    501, f"the local cloud tells instances apart by name, and '{other.id}' has this one"
                )
        if self.cloud.store.get(INSTANCE, self.identify(inputs)):
            raise self.exists(self.identify(inputs), inputs)
        self._verify_attached(inputs, own="")
        for i, nic in enumerate(inputs["networkInterfaces"]):
            self._verify_interface(i, nic, inputs)

    def _verify_boot_disk(self, inputs: dict[str, Any]) -> None:
        boot = inputs["bootDisk"]
        params = boot.get("initializeParams") or {}
        if boot.get("source"):
            self._verify_disk(boot["source"], inputs, own="")
        elif not params.get("image") and not params.get("snapshot"):
            raise invalid("disks[0]", "", "Boot disk must have a source, an image or a snapshot")
        elif params.get("image") and find_image(params["image"]) is None:
            written = params["image"]
            raise CloudError(
                404,
                f"error retrieving image information: Could not find image or family {written}",
                "notFound",
            )
        if params.get("type") and plain(params["type"]) not in DISK_TYPES:
            kind = plain(params["type"])
            raise not_found(f"projects/{inputs['project']}/zones/{inputs['zone']}/diskTypes/{kind}")
        if params.get("size") is not None and params["size"] < IMAGE_SIZE_GB:
            raise invalid(
                "disks[0].initializeParams.diskSizeGb",
                params["size"],
                f"Requested disk size cannot be smaller than the image size ({IMAGE_SIZE_GB} GB)",
            )

    def _verify_attached(self, inputs: dict[str, Any], own: str) -> None:
        for disk in inputs.get("attachedDisks") or []:
            self._verify_disk(disk["source"], inputs, own)

    def _verify_disk(self, written: str, inputs: dict[str, Any], own: str) -> None:
        disk = self.find(DISK, written, DISK_PATTERN, inputs)
        if plain(disk.outputs["zone"]) != plain(inputs["zone"]):
            raise invalid("disks", written, f"The disk must be in zone '{inputs['zone']}'")
        user = attached_to(self.cloud, disk.id)
        if user not in (None, own):
            raise CloudError(
                400,
                f"The disk resource '{disk.id}' is already being used by '{user}'",
                "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
            )

    def _verify_interface(self, index: int, nic: dict[str, Any], inputs: dict[str, Any]) -> None:
        field = f"networkInterfaces[{index}]"
        places = {**inputs, "region": region_of(inputs["zone"])}
        if not nic.get("subnetwork"):
            if nic.get("network"):
                self.network(nic["network"], inputs)
            raise invalid(
                f"{field}.subnetwork", "", "Subnetwork should be specified for custom subnetmode network"
            )
        subnet = self.subnetwork(nic["subnetwork"], places)
        if subnet.outputs["region"] != places["region"]:
            raise invalid(f"{field}.subnetwork", subnet.id, f"It must be in region '{places['region']}'")
        if nic.get("network"):
            network = self.network(nic["network"], inputs)
            if plain(subnet.outputs["network"]) != network.outputs["name"]:
                raise invalid(f"{field}.subnetwork", subnet.id, f"It must be in network '{network.id}'")
        if nic.get("networkIp"):
            verify_member(nic["networkIp"], subnet, f"{field}.networkIP")
        for config in nic.get("accessConfigs") or []:
            if config.get("natIp") and not self._reservation(config["natIp"]):
                raise invalid(
                    f"{field}.accessConfigs[0].natIP", config["natIp"], "It isn't a reserved address"
                )

    def _verify_account(self, inputs: dict[str, Any]) -> None:
        email = (inputs.get("serviceAccount") or {}).get("email")
        if email and not any(a.outputs["email"] == email for a in self.cloud.store.all(ACCOUNT)):
            raise CloudError(
                400,
                f"The user does not have access to service account '{email}'.  Ask a project owner to "
                "grant you "
                "the iam.serviceAccountUser role on the service account",
                "SERVICE_ACCOUNT_ACCESS_DENIED",
            )

    def _verify_metadata(self, inputs: dict[str, Any]) -> None:
        for key, value in (inputs.get("metadata") or {}).items():
            if len(value.encode()) > METADATA_LIMIT_BYTES:
                raise CloudError(
                    413,
                    f"Value for field 'metadata.items.{key}' is too large: at most 262144 characters",
                    "invalid",
                )

    def _verify_update(self, inputs: dict[str, Any], old: Resource) -> None:
        before = self.complete(old.inputs)
        changed = [n for n in NEED_A_STOP if inputs.get(n) != before.get(n) and inputs.get(n) is not None]
        if changed and not inputs.get("allowStoppingForUpdate") and self._power(old) == "RUNNING":
            raise CloudError(
                400,
                "Changing the machine_type, min_cpu_platform, service_account, enable_display, "
                "shielded_instance_config, scheduling.node_affinities, scheduling.max_run_duration or "
                "network_interface.[#d].(network/subnetwork/subnetwork_project) or "
                "advanced_machine_features on a started instance requires stopping it. To acknowledge "
                "this, please set allow_stopping_for_update = true in your config "
                f"(changed: {', '.join(changed)})",
            )
        self._verify_attached(inputs, own=old.id)

    def verify_delete(self, resource: Resource) -> None:
        if resource.outputs.get("deletionProtection"):
            name = resource.outputs["name"]
            raise CloudError(
                400,
                f"Cannot delete instance {name}: instance Deletion Protection is enabled. Set "
                "deletion_protection to false for this resource before attempting to delete it.",
            )

    # --- what it computes ------------------------------------------------------------------

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "cpuPlatform": "Intel Broadwell",
            "instanceId": number(resource_id),
            "labelFingerprint": fingerprint(inputs.get("labels")),
            "metadataFingerprint": fingerprint(inputs.get("metadata")),
            "selfLink": self_link(resource_id),
            "tagsFingerprint": fingerprint(inputs.get("tags")),
        }
        account = inputs.get("serviceAccount")
        if account:
            email = account.get("email") or f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
            scopes = [SCOPES.get(scope, scope) for scope in account["scopes"]]
            found["serviceAccount"] = {"email": email, "scopes": scopes}
        if old is None:
            found["creationTimestamp"] = now()
            found["currentStatus"] = "RUNNING"
            found["bootDisk"] = self._boot_disk(inputs)
            disks = inputs.get("attachedDisks") or []
            found["attachedDisks"] = [
                {**d, "deviceName": d.get("deviceName") or f"persistent-disk-{i}"}
                for i, d in enumerate(disks, 1)
            ]
        return found

    def _boot_disk(self, inputs: dict[str, Any]) -> dict[str, Any]:
        boot = dict(inputs["bootDisk"])
        params = dict(boot.get("initializeParams") or {})
        params.setdefault("type", "pd-standard")
        params.setdefault("size", IMAGE_SIZE_GB)
        link = DISK_PATTERN.format(project=inputs["project"], zone=inputs["zone"], name=inputs["name"])
        boot.setdefault("source", self_link(link))
        boot.setdefault("deviceName", "persistent-disk-0")
        return {**boot, "initializeParams": params}

    # --- what it starts and stops ----------------------------------------------------------

    async def started(self, resource: Resource) -> None:
        out = resource.outputs
        claimed = machine_name(out["name"])
        try:
            out["networkInterfaces"] = [
                self._interface(i, nic, out, claimed) for i, nic in enumerate(out["networkInterfaces"])
            ]
            # Known with its address before it runs: its first connection must find it declared.
            self._keep(resource)
            if out.get("desiredStatus") != "TERMINATED":
                await self.cloud.machines.boot(claimed, "gce", self._spec(resource))
        except BaseException:
            self.cloud.addresses.release(claimed)
            raise
        out["currentStatus"] = self._power(resource)

    def _interface(self, index: int, nic: dict[str, Any], out: dict[str, Any], owner: str) -> dict[str, Any]:
        subnet = self.subnetwork(nic["subnetwork"], {**out, "region": region_of(out["zone"])})
        address = nic.get("networkIp")
        if not address:
            address = self.cloud.addresses.allocate_in(subnet.outputs["ipCidrRange"], owner)
        elif self._reservation(address) is None:
            self.cloud.addresses.claim(address, owner)
        else:
            self._verify_unused(address, out["name"])
        outside = [
            {
                "networkTier": "PREMIUM",
                **c,
                "natIp": c.get("natIp") or self.cloud.addresses.allocate_public(owner),
            }
            for c in nic.get("accessConfigs") or []
        ]
        return {
            "name": f"nic{index}",
            "stackType": "IPV4_ONLY",
            **nic,
            "network": subnet.outputs["network"],
            "subnetwork": subnet.outputs["selfLink"],
            "subnetworkProject": out["project"],
            "networkIp": address,
            "accessConfigs": outside,
        }

    def _reservation(self, address: str) -> Resource | None:
        for reserved in self.cloud.store.all(ADDRESS):
            if reserved.outputs.get("address") == address:
                return reserved
            if reference(address, ADDRESS_PATTERN, reserved.outputs) == reserved.id:
                return reserved
        return None

    def _verify_unused(self, address: str, name: str) -> None:
        for other in self.cloud.store.all(INSTANCE):
            nics = other.outputs.get("networkInterfaces") or []
            if other.outputs["name"] != name and any(nic.get("networkIp") == address for nic in nics):
                raise CloudError(
                    400,
                    f"IP '{address}' is already being used by another resource.",
                    "IP_IN_USE_BY_ANOTHER_RESOURCE",
                )

    def _spec(self, resource: Resource) -> dict[str, Any]:
        out = resource.outputs
        nic, account = out["networkInterfaces"][0], out.get("serviceAccount") or {}
        metadata = dict(out.get("metadata") or {})
        if out.get("metadataStartupScript"):
            metadata["startup-script"] = out["metadataStartupScript"]
        outside = nic.get("accessConfigs") or [{}]
        return {
            "user_data": metadata.get("user-data", ""),
            "metadata": metadata,
            "address": nic["networkIp"],
            "external_address": outside[0].get("natIp", ""),
            "tags": out.get("tags") or [],
            "service_account": account.get("email", ""),
            "scopes": account.get("scopes", []),
            "disks": [self._disk(disk, out) for disk in out.get("attachedDisks") or []],
            "network": plain(nic["network"]),
            "subnetwork": plain(nic["subnetwork"]),
            "zone": out["zone"],
            "machine_type": plain(out["machineType"]),
            "instance_id": out["instanceId"],
        }

    def _disk(self, attached: dict[str, Any], out: dict[str, Any]) -> dict[str, Any]:
        disk = self.find(DISK, attached["source"], DISK_PATTERN, out)
        return {
            "name": disk.outputs["name"],
            "device_name": attached["deviceName"],
            "mode": attached.get("mode", "READ_WRITE"),
            "size_gb": disk.outputs["size"],
            "folder": str(disk_folder(self.cloud, disk.id)),
        }

    async def changed(self, old: Resource, new: Resource) -> None:
        machine, out = machine_name(old.outputs["name"]), new.outputs
        out["networkInterfaces"] = old.outputs["networkInterfaces"]
        disks = out.get("attachedDisks") or []
        out["attachedDisks"] = [
            {**d, "deviceName": d.get("deviceName") or f"persistent-disk-{i}"} for i, d in enumerate(disks, 1)
        ]
        before = self.complete(old.inputs)
        after = self.complete(new.inputs)
        restarts = any(before.get(name) != after.get(name) for name in NEED_A_STOP)
        running = self._power(old) == "RUNNING"
        if self._power(old) == "ABSENT":
            raise not_found(old.id)
        if running and (restarts or out.get("desiredStatus") == "TERMINATED"):
            await self.cloud.machines.power_off(machine)
        self.cloud.machines.update(machine, **self._spec(new))
        wanted = out.get("desiredStatus") or ("RUNNING" if running else "TERMINATED")
        if wanted == "RUNNING" and self._power(old) != "RUNNING":
            await self.cloud.machines.boot(machine, "gce", self._spec(new))
        out["currentStatus"] = self._power(new)

    async def stopped(self, resource: Resource) -> None:
        machine = machine_name(resource.outputs["name"])
        await self.cloud.machines.delete(machine)
        self.cloud.addresses.release(machine)

    async def observed(self, resource: Resource) -> Resource | None:
        power = self._power(resource)
        if power == "ABSENT":
            return None
        resource.outputs["currentStatus"] = power
        if resource.inputs.get("desiredStatus"):
            resource.inputs["desiredStatus"] = resource.outputs["desiredStatus"] = power
        return resource

    def _power(self, resource: Resource) -> str:
        """The instance's status in Compute Engine's words; ABSENT when the machine is gone."""
        status = self.cloud.machines.status(machine_name(resource.outputs["name"]))
        if status == "ABSENT" and resource.outputs.get("desiredStatus") == "TERMINATED":
            return "TERMINATED"
        return status if status in ("RUNNING", "STAGING", "STOPPING", "ABSENT") else "TERMINATED"


HANDLERS = (Instance,)
