"""DigitalOcean in the local cloud: the provider `digitalocean`.

Droplets, firewalls and tags are those of `localcloud.digitalocean`, which the REST API serves too; what
else a stack may declare is kept here.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import uuid
from datetime import UTC, datetime
from typing import Any

from localcloud.cloud import Cloud, CloudError
from localcloud.digitalocean import DROPLET, FIREWALL, TAG, account_token, droplet_request, firewall_request
from localcloud.digitalocean import DigitalOcean as Account
from localcloud.digitalocean.catalog import default_region, find_image, has_region, regions, sizes
from localcloud.digitalocean.parts import SSH_KEY, VPC, machine_name, next_id
from localcloud.providers.provider import Provider
from localcloud.providers.resource import Handler, PartlyCreated
from localcloud.providers.schema import Failure
from localcloud.providers.values import UNKNOWN, without_unknown
from localcloud.state import Resource

PROJECT = "digitalocean:index/project:Project"
FIRST_SSH_KEY = 40_000_001


class DigitalOceanHandler(Handler):
    """A DigitalOcean resource."""

    @property
    def account(self) -> Account:
        """The local account."""
        return Account.of(self.cloud)

    def _stored(self, resource_id: str) -> Resource:
        found = self.cloud.store.get(self.token, resource_id)
        if found is None:
            raise CloudError(404, "The resource you requested could not be found.", "not_found")
        return found

    def _merged(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> Resource:
        """What the account stored, with what the program wrote as the inputs."""
        stored = self._stored(resource_id)
        outputs = {**without_unknown(self.outputs(inputs, old)), **stored.outputs}
        resource = Resource(self.token, resource_id, inputs, outputs)
        self.cloud.store.put(resource)
        return resource


class Droplet(DigitalOceanHandler):
    """A droplet. It is `active` when `up` is done; its programs may still be starting."""

    token = DROPLET
    noun = "droplet"

    async def create(self, inputs: dict[str, Any]) -> Resource:
        answer = await self.account.create_droplet(droplet_request(self.complete(inputs)))
        resource_id = str(answer["droplet"]["id"])
        await self.account.settled_droplet(resource_id)
        if self._stored(resource_id).outputs["status"] != "active":
            error = CloudError(500, f"the droplet {resource_id} did not become active", "server_error")
            raise PartlyCreated(error, self._merged(resource_id, inputs, None))
        resource = self._merged(resource_id, inputs, None)
        resource.outputs.update({"ipv4AddressPrivate": "", **resource.outputs})
        self.cloud.store.put(resource)
        return resource

    async def update(self, resource_id: str, inputs: dict[str, Any]) -> Resource:
        old, new = self._stored(resource_id), self.complete(inputs)
        if new["size"] != old.outputs["size"]:
            await self._resize(resource_id, new["size"])
        if new["name"] != old.outputs["name"]:
            await self._act(resource_id, {"type": "rename", "name": new["name"]})
        was, now = set(old.outputs.get("tags") or []), set(new.get("tags") or [])
        for tag in was - now:
            self.account.droplets.tag(resource_id, tag, present=False)
        for tag in now - was:
            self.account.tags.ensure(tag)
            self.account.droplets.tag(resource_id, tag, present=True)
        return self._merged(resource_id, inputs, old)

    async def _resize(self, resource_id: str, size: str) -> None:
        """The provider's way: off, resize, on again."""
        was_on = self._stored(resource_id).outputs["status"] == "active"
        if was_on:
            await self._act(resource_id, {"type": "power_off"})
        await self._act(resource_id, {"type": "resize", "size": size})
        if was_on:
            await self._act(resource_id, {"type": "power_on"})

    async def _act(self, resource_id: str, request: dict[str, Any]) -> None:
        await self.account.act_on_droplet(resource_id, request)
        await self.account.settled_droplet(resource_id)

    async def delete(self, resource_id: str) -> None:
        if self.cloud.store.get(DROPLET, resource_id) is not None:
            await self.account.settled_droplet(resource_id)
            await self.account.delete_droplet(resource_id)

    async def read(self, resource_id: str) -> Resource | None:
        found = self.cloud.store.get(DROPLET, resource_id)
        if found is None:
            return None
        if (
            self.cloud.machines.status(machine_name(resource_id)) == "ABSENT"
            and found.outputs["status"] != "new"
        ):
            await self.delete(resource_id)
            return None
        for name in ("name", "size"):
            if name in found.inputs:
                found.inputs[name] = found.outputs[name]
        if sorted(found.inputs.get("tags") or []) != sorted(found.outputs.get("tags") or []):
            found.inputs["tags"] = found.outputs["tags"]
        return found


class Firewall(DigitalOceanHandler):
    """A firewall, by tag or by droplet."""

    token = FIREWALL
    noun = "firewall"

    async def create(self, inputs: dict[str, Any]) -> Resource:
        answer = self.account.firewalls.create(firewall_request(self.complete(inputs)))
        return self._merged(answer["id"], inputs, None)

    async def update(self, resource_id: str, inputs: dict[str, Any]) -> Resource:
        old = self._stored(resource_id)
        self.account.firewalls.update(resource_id, firewall_request(self.complete(inputs)))
        return self._merged(resource_id, inputs, old)

    async def delete(self, resource_id: str) -> None:
        if self.cloud.store.get(FIREWALL, resource_id) is not None:
            self.account.firewalls.delete(resource_id)


class Tag(DigitalOceanHandler):
    """A tag. Creating one that is there already takes it over, as the API does."""

    token = TAG
    noun = "tag"
    adopts = True
    id_format = "{name}"

    async def create(self, inputs: dict[str, Any]) -> Resource:
        self.account.tags.ensure(inputs["name"])
        resource = self._merged(inputs["name"], inputs, None)
        # Counted as they were at creation: they change with every droplet, and no program reads them.
        counts = ("databases", "droplets", "images", "totalResource", "volumeSnapshots", "volumes")
        resource.outputs |= {f"{name}Count": 0 for name in counts}
        self.cloud.store.put(resource)
        return resource

    async def delete(self, resource_id: str) -> None:
        if self.cloud.store.get(TAG, resource_id) is not None:
            self.account.tags.delete(resource_id)


class Project(DigitalOceanHandler):
    """A project: a folder for the console, with no say in anything else."""

    token = PROJECT
    noun = "Project"

    def identify(self, inputs: dict[str, Any]) -> str:
        return str(uuid.uuid4())

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        created = old.outputs["createdAt"] if old else stamp
        return {"createdAt": created, "ownerId": 1, "ownerUuid": str(uuid.UUID(int=1)), "updatedAt": stamp}


class ProjectResources(DigitalOceanHandler):
    """What lies in a project."""

    token = "digitalocean:index/projectResources:ProjectResources"  # noqa: S105 - a type's name
    noun = "ProjectResources"
    id_format = "{project}"
    adopts = True

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if self.cloud.store.get(PROJECT, inputs["project"]) is None:
            raise CloudError(404, "The resource you requested could not be found.", "not_found")


class SshKey(DigitalOceanHandler):
    """A public key. The same key can't be added twice."""

    token = SSH_KEY
    noun = "SSH Key"

    def identify(self, inputs: dict[str, Any]) -> str:
        return str(next_id(self.cloud, "last_ssh_key_id", FIRST_SSH_KEY))

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        fingerprint = _fingerprint(inputs["publicKey"])
        for other in self.cloud.store.all(SSH_KEY):
            if other.outputs["fingerprint"] == fingerprint and (old is None or other.id != old.id):
                raise CloudError(422, "SSH Key is already in use on your account", "unprocessable_entity")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {"fingerprint": _fingerprint(inputs["publicKey"])}


def _fingerprint(key: str) -> str:
    parts = key.split()
    try:
        raw = base64.b64decode(parts[1], validate=True)
    except (IndexError, ValueError):
        raise CloudError(422, "Key invalid, key should be of type ssh-...", "unprocessable_entity") from None
    digits = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))


class Vpc(DigitalOceanHandler):
    """A private network of droplets in one region."""

    token = VPC
    noun = "VPC"
    shapes_network = True

    def identify(self, inputs: dict[str, Any]) -> str:
        return str(uuid.uuid4())

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if not has_region(inputs["region"]):
            raise CloudError(422, "Region is not available", "unprocessable_entity")
        own = old.id if old else None
        for other in self.cloud.store.all(VPC):
            if other.id == own:
                continue
            if other.outputs["name"] == inputs["name"]:
                raise CloudError(422, "name is already in use", "unprocessable_entity")
            if inputs.get("ipRange") and ipaddress.ip_network(inputs["ipRange"]).overlaps(
                ipaddress.ip_network(other.outputs["ipRange"])
            ):
                raise CloudError(
                    422,
                    "This range/size overlaps with another VPC network in your account",
                    "unprocessable_entity",
                )
        if not inputs.get("ipRange"):
            raise CloudError(
                422, "the local cloud needs a VPC's ipRange, within its own network", "unprocessable_entity"
            )

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        created = old.outputs["createdAt"] if old else datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"createdAt": created, "default": False, "vpcUrn": f"do:vpc:{resource_id}"}

    def verify_delete(self, resource: Resource) -> None:
        if any(d.outputs.get("vpcUuid") == resource.id for d in self.cloud.store.all(DROPLET)):
            raise CloudError(403, "Can not delete VPC with members", "forbidden")


HANDLERS = (Droplet, Firewall, Tag, Project, ProjectResources, SshKey, Vpc)


class DigitalOcean(Provider):
    """The provider for DigitalOcean."""

    package = "digitalocean"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud, HANDLERS)
        self.functions = {
            "digitalocean:index/getImage:getImage": self._get_image,
            "digitalocean:index/getRegion:getRegion": self._get_region,
            "digitalocean:index/getSizes:getSizes": self._get_sizes,
        }

    def check_config(self, config: dict[str, Any]) -> list[Failure]:
        token = config.get("token")
        if token in (None, UNKNOWN, "", account_token(self.cloud)):
            return []
        return [
            Failure(
                "token",
                "digitalocean:token isn't the local cloud's, which never stands in for a real account; "
                "`python -m localcloud env` prints the local one",
            )
        ]

    def words(self, doing: str, error: CloudError) -> str:
        if error.status == 501:
            return f"{doing}: {error.message}"
        return f"{doing}: {error.status} {error.message}"

    async def _get_image(self, arguments: dict[str, Any]) -> dict[str, Any]:
        wanted = arguments.get("slug") or arguments.get("id") or arguments.get("name")
        image = find_image(self.cloud, wanted)
        if image is None:
            raise CloudError(404, f"no image found for {wanted}", "not_found")
        return {
            "id": image["id"],
            "slug": image["slug"],
            "name": image["name"],
            "distribution": image["distribution"],
            "image": str(image["id"]),
            "private": not image["public"],
            "regions": image["regions"],
            "minDiskSize": image["min_disk_size"],
            "type": image["type"],
            "status": image["status"],
        }

    async def _get_region(self, arguments: dict[str, Any]) -> dict[str, Any]:
        wanted = arguments.get("slug") or default_region()
        for region in regions():
            if region["slug"] == wanted:
                return {"id": wanted, **region}
        raise CloudError(404, f"no region found for {wanted}", "not_found")

    async def _get_sizes(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments.get("filters") or arguments.get("sorts"):
            raise CloudError(501, "the local cloud's getSizes knows neither filters nor sorts")
        listed = [
            {
                "slug": size["slug"],
                "available": size["available"],
                "disk": size["disk"],
                "memory": size["memory"],
                "priceHourly": size["price_hourly"],
                "priceMonthly": size["price_monthly"],
                "regions": size["regions"],
                "transfer": size["transfer"],
                "vcpus": size["vcpus"],
            }
            for size in sizes()
        ]
        return {"id": "sizes", "sizes": listed}
