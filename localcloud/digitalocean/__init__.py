"""DigitalOcean in the local cloud: droplets, firewalls and tags, for Pulumi's provider and the REST API.

What it owns: the rules and habits of the real service over the local cloud's store, machines, addresses and
network. What it leaves out: projects, volumes, reserved addresses, load balancers, monitoring and billing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from localcloud.cloud import Cloud
from localcloud.digitalocean.droplets import Droplets
from localcloud.digitalocean.firewalls import Firewalls
from localcloud.digitalocean.parts import DROPLET, FIREWALL, TAG, Delays, Json, account_token
from localcloud.digitalocean.tags import Tags
from localcloud.digitalocean.wire import droplet_inputs, droplet_request, firewall_inputs, firewall_request

__all__ = [
    "DROPLET",
    "FIREWALL",
    "TAG",
    "Delays",
    "DigitalOcean",
    "Json",
    "account_token",
    "droplet_inputs",
    "droplet_request",
    "firewall_inputs",
    "firewall_request",
]


class DigitalOcean:
    """One account at the local DigitalOcean. All that must last is in the cloud's store, so that several
    instances over one cloud agree.

    Requests and answers are the REST API's documents; `droplets.resource(id)` and `firewalls.resource(id)`
    have the provider's properties. Everything raises CloudError with the real API's status.
    """

    def __init__(
        self, cloud: Cloud, delays: Delays | None = None, now: Callable[[], float] = time.time
    ) -> None:
        delays = delays or Delays()
        self.cloud = cloud
        self.tags = Tags(cloud)
        self.droplets = Droplets(cloud, self.tags, delays, now)
        self.firewalls = Firewalls(cloud, delays, now)

    @classmethod
    def of(cls, cloud: Cloud) -> DigitalOcean:
        """The one instance of a cloud, made at the first call."""
        found = cloud.extensions.get("digitalocean")
        if not isinstance(found, cls):
            found = cls(cloud)
            cloud.extensions["digitalocean"] = found
            cloud.machines.on_change(found.machine_changed)
        return found

    def machine_changed(self, name: str, status: str) -> None:
        """A droplet's machine that somebody deleted, as in the cloud's console, is a droplet gone."""
        kind, _, droplet_id = name.partition("/")
        if kind == "droplet" and status == "ABSENT":
            self.droplets.lost(droplet_id)

    async def take_up(self) -> None:
        """Goes on with what a former process of the local cloud had begun; once, after a start."""
        await self.droplets.take_up()

    async def create_droplet(self, request: Json) -> Json:
        """See `Droplets.create`."""
        return await self.droplets.create(request)

    async def settled_droplet(self, droplet_id: int | str) -> Json:
        """See `Droplets.settled`."""
        return await self.droplets.settled(droplet_id)

    def get_droplet(self, droplet_id: int | str) -> Json:
        """See `Droplets.get`."""
        return self.droplets.get(droplet_id)

    def list_droplets(self, tag_name: str | None = None, name: str | None = None) -> list[Json]:
        """See `Droplets.all`."""
        return self.droplets.all(tag_name, name)

    async def delete_droplet(self, droplet_id: int | str) -> None:
        """See `Droplets.delete`."""
        await self.droplets.delete(droplet_id)

    async def act_on_droplet(self, droplet_id: int | str, request: Json) -> Json:
        """See `Droplets.act`."""
        return await self.droplets.act(droplet_id, request)
