"""Droplets: made, listed, switched, removed, with the habits of the real API.

A create is answered before anything exists: 202, `new`, no addresses; the droplet can be read a moment later
and is listed later still; then its machine boots and it is `active`. Names aren't unique. While an action
runs, another one is refused. A droplet that is off keeps its disk and its address (and its bill).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from localcloud.cloud import Cloud
from localcloud.digitalocean import catalog, wire
from localcloud.digitalocean.actions import Actions, timestamp
from localcloud.digitalocean.checks import check_droplet, check_tag, not_found, pending, unprocessable
from localcloud.digitalocean.parts import (
    DROPLET,
    FIREWALL,
    SETTINGS,
    VPC,
    Delays,
    Json,
    delays_of,
    droplet_notes,
    machine_name,
    next_id,
    retag,
)
from localcloud.digitalocean.tags import Tags
from localcloud.state import Resource

FIRST_DROPLET = 512_000_001
FIRST_SNAPSHOT = 190_000_001

# Each needs the droplet in that state; other actions of the real API aren't built.
_NEEDS = {
    "power_on": "off",
    "power_off": "active",
    "shutdown": "active",
    "reboot": "active",
    "power_cycle": "active",
    "resize": "off",
    "snapshot": "",
    "rename": "",
}


class Droplets:
    """The droplets of the local account."""

    def __init__(
        self, cloud: Cloud, tags: Tags, delays: Delays, now: Callable[[], float] = time.time
    ) -> None:
        self._cloud = cloud
        self._tags = tags
        self._delays = delays
        self._now = now
        self.actions = Actions(cloud, now)

    async def create(self, request: Json) -> Json:
        """The answer to POST /v2/droplets, `{"droplet" or "droplets", "links"}`; the work goes on behind it.

        Raises CloudError 422.
        """
        many = "names" in request
        names: list[Any] = list(request["names"] or []) if many else [request.get("name")]
        check_droplet(self._cloud, request, names)
        made, actions = [], []
        for name in names:
            droplet = self._new({**request, "name": name})
            action = self.actions.start(
                droplet.id, "create", droplet.outputs["region"], self._work(droplet.id, "create", {})
            )
            made.append(wire.droplet_document(self._cloud, droplet))
            actions.append({"id": action["id"], "rel": "create", "href": f"/v2/actions/{action['id']}"})
        return {"droplets" if many else "droplet": made if many else made[0], "links": {"actions": actions}}

    def _new(self, request: Json) -> Resource:
        inputs = wire.droplet_inputs({**request, "region": request.get("region") or catalog.default_region()})
        droplet_id, now = str(next_id(self._cloud, "last_droplet_id", FIRST_DROPLET)), self._now()
        droplet = Resource(
            DROPLET,
            droplet_id,
            inputs,
            {
                **inputs,
                "tags": sorted(inputs.get("tags") or []),
                "status": "new",
                "locked": False,
                "createdAt": timestamp(now),
                "dropletUrn": f"do:droplet:{droplet_id}",
                **_size_facts(inputs["size"]),
            },
        )
        for tag in droplet.outputs["tags"]:
            self._tags.ensure(tag)
        delays = delays_of(self._cloud, self._delays)
        self._cloud.store.note(droplet_notes(droplet_id), "visible_at", now + delays.visible)
        self._cloud.store.note(droplet_notes(droplet_id), "listed_at", now + delays.listed)
        self._cloud.store.put(droplet)
        return droplet

    async def _boot(self, droplet_id: str, first: bool = False) -> None:
        delays = delays_of(self._cloud, self._delays)
        await asyncio.sleep(delays.create if first else delays.action)
        droplet = self._stored(droplet_id)
        if droplet is None or self._cloud.store.notes(droplet_notes(droplet_id)).get("deleting"):
            return
        addresses = self._addresses(droplet)
        self._change(droplet, **addresses)
        self._cloud.network.changed()
        outputs = droplet.outputs
        await self._cloud.machines.boot(
            machine_name(droplet_id),
            "droplet",
            {
                "user_data": outputs.get("userData", ""),
                "address": addresses["ipv4Address"],
                "tags": outputs["tags"],
                "region": outputs["region"],
                "size": outputs["size"],
                "image": outputs["image"],
            },
        )
        latest = self._stored(droplet_id)
        if latest is not None:
            self._change(latest, status="active")

    def _addresses(self, droplet: Resource) -> Json:
        name = machine_name(droplet.id)
        found = {"ipv4Address": self._cloud.addresses.allocate_public(name)}
        vpc = self._cloud.store.get(VPC, droplet.inputs.get("vpcUuid") or "")
        if vpc is not None and vpc.outputs.get("ipRange"):
            found["ipv4AddressPrivate"] = self._cloud.addresses.allocate_in(vpc.outputs["ipRange"], name)
        return found

    def _stored(self, droplet_id: str) -> Resource | None:
        return self._cloud.store.get(DROPLET, droplet_id)

    def _change(self, droplet: Resource, **outputs: object) -> None:
        droplet.outputs.update(outputs)
        self._cloud.store.put(droplet)

    def resource(self, droplet_id: int | str) -> Resource:
        """The droplet as it is stored, whether or not the API shows it already. Raises CloudError 404."""
        droplet = self._stored(str(droplet_id))
        if droplet is None:
            raise not_found()
        return droplet

    def get(self, droplet_id: int | str) -> Json:
        """The droplet's document. Raises CloudError 404, also in the moment after its create."""
        droplet = self.resource(droplet_id)
        if not self._shown(droplet.id, "visible_at"):
            raise not_found()
        return wire.droplet_document(self._cloud, droplet)

    def _shown(self, droplet_id: str, since: str) -> bool:
        return self._now() >= float(self._cloud.store.notes(droplet_notes(droplet_id)).get(since, 0))

    def all(self, tag_name: str | None = None, name: str | None = None) -> list[Json]:
        """What lists show by now, oldest first; by one tag, or by one exact name.

        Raises CloudError 422 when both are given.
        """
        if tag_name is not None and name is not None:
            raise unprocessable("name and tag_name cannot be combined")
        return [
            wire.droplet_document(self._cloud, droplet)
            for droplet in sorted(self._cloud.store.all(DROPLET), key=lambda one: int(one.id))
            if (tag_name is None or tag_name in droplet.outputs["tags"])
            and (name is None or name == droplet.outputs["name"])
            and self._shown(droplet.id, "listed_at")
        ]

    async def delete(self, droplet_id: int | str) -> None:
        """Raises CloudError 404, and 422 while an action runs."""
        droplet = self.resource(droplet_id)
        if self.actions.pending(droplet.id):
            raise pending()
        await self._remove(droplet)

    async def delete_by_tag(self, tag_name: str) -> None:
        """Removes every droplet with that tag, those in the making too; none is fine."""
        for droplet in self._cloud.store.all(DROPLET):
            if tag_name in droplet.outputs["tags"]:
                await self._remove(droplet)

    async def _remove(self, droplet: Resource) -> None:
        # Noted first: a restart in between finishes the removal, and a boot that is under way stops.
        self._cloud.store.note(droplet_notes(droplet.id), "deleting", True)
        await self._cloud.machines.delete(machine_name(droplet.id))
        self.lost(droplet.id)

    def lost(self, droplet_id: str) -> None:
        """Its machine is gone: forgets the droplet. Nothing to do is fine."""
        droplet = self._stored(droplet_id)
        if droplet is not None:
            self._forget(droplet)

    def _forget(self, droplet: Resource) -> None:
        self._cloud.store.delete(DROPLET, droplet.id)
        for key in ("visible_at", "listed_at", "deleting"):
            self._cloud.store.forget(droplet_notes(droplet.id), key)
        self.actions.forget(droplet.id)
        for firewall in self._cloud.store.all(FIREWALL):
            ids = firewall.inputs.get("dropletIds") or []
            if int(droplet.id) in ids:
                left = [one for one in ids if one != int(droplet.id)]
                firewall.inputs["dropletIds"] = firewall.outputs["dropletIds"] = left
                self._cloud.store.put(firewall)
        self._cloud.addresses.release(machine_name(droplet.id))
        self._cloud.network.changed()

    async def act(self, droplet_id: int | str, request: Json) -> Json:
        """The answer to POST /v2/droplets/{id}/actions: the action, in progress.

        `request` is `{"type": ...}`, with `size` for a resize and `name` for a rename or a snapshot.
        Raises CloudError 404 and 422.
        """
        droplet, kind = self.resource(droplet_id), request.get("type")
        if kind not in _NEEDS:
            raise unprocessable(f"the action {kind!r} is not available")
        if self.actions.pending(droplet.id):
            raise pending()
        if _NEEDS[kind] and droplet.outputs["status"] != _NEEDS[kind]:
            raise unprocessable(
                "Droplet is currently on. Please power it off to run this event."
                if _NEEDS[kind] == "off"
                else "Droplet is currently off. Please power it on to run this event."
            )
        details = {key: str(request[key]) for key in ("size", "name") if request.get(key)}
        if kind == "resize" and not catalog.has_size(request.get("size")):
            raise unprocessable("You specified an invalid size.")
        if kind == "rename" and "name" not in details:
            raise unprocessable("a name is needed")
        return self.actions.start(
            droplet.id, kind, droplet.outputs["region"], self._work(droplet.id, kind, details), **details
        )

    def _work(self, droplet_id: str, kind: str, details: Json) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            if kind == "create":
                await self._boot(droplet_id, first=True)
                return
            await asyncio.sleep(delays_of(self._cloud, self._delays).action)
            if self._stored(droplet_id) is None:
                return
            if kind in ("power_off", "shutdown", "reboot", "power_cycle"):
                await self._switch_off(droplet_id)
            if kind in ("power_on", "reboot", "power_cycle"):
                await self._boot(droplet_id)
            if kind == "resize":
                self._change(self.resource(droplet_id), size=details["size"], **_size_facts(details["size"]))
            if kind == "rename":
                self._change(self.resource(droplet_id), name=details["name"])
            if kind == "snapshot":
                self._snapshot(self.resource(droplet_id), details.get("name", ""))

        return work

    async def _switch_off(self, droplet_id: str) -> None:
        await self._cloud.machines.power_off(machine_name(droplet_id))
        droplet = self._stored(droplet_id)
        if droplet is not None:
            self._change(droplet, status="off")

    def _snapshot(self, droplet: Resource, name: str) -> None:
        number = next_id(self._cloud, "last_image_id", FIRST_SNAPSHOT)
        now = timestamp(self._now())
        catalog.keep_snapshot(
            self._cloud,
            number,
            name=name or f"{droplet.outputs['name']}-{now}",
            regions=[droplet.outputs["region"]],
            min_disk_size=droplet.outputs["disk"],
            created_at=now,
        )

    async def settled(self, droplet_id: int | str) -> Json:
        """Waits until no action of the droplet is running; its document. Raises CloudError 404."""
        droplet = self.resource(droplet_id)
        while self.actions.pending(droplet.id):
            await asyncio.sleep(0.01)
            droplet = self.resource(droplet_id)
        return wire.droplet_document(self._cloud, droplet)

    def tag(self, droplet_id: int | str, tag: str, present: bool) -> None:
        """Puts a tag on a droplet or takes it off. Raises CloudError 404 and 422."""
        droplet = self.resource(droplet_id)
        others = [one for one in droplet.outputs["tags"] if one != check_tag(tag)]
        tags = sorted([*others, tag]) if present else others
        retag(self._cloud, droplet, tags)
        self._cloud.network.changed()

    async def take_up(self) -> None:
        """After a restart of the local cloud: goes on with the removals and actions that were running."""
        for droplet in self._cloud.store.all(DROPLET):
            if self._cloud.store.notes(droplet_notes(droplet.id)).get("deleting"):
                await self._remove(droplet)
        self.actions.take_up(lambda record: self._work(str(record["resource_id"]), record["type"], record))

    def limit(self, number: int) -> None:
        """Sets how many droplets the account may have."""
        self._cloud.store.note(SETTINGS, "droplet_limit", number)


def _size_facts(slug: str) -> Json:
    facts = catalog.size(slug)
    return {
        "disk": facts["disk"],
        "memory": facts["memory"],
        "vcpus": facts["vcpus"],
        "priceHourly": facts["price_hourly"],
        "priceMonthly": facts["price_monthly"],
    }
