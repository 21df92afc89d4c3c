"""Cloud firewalls: who may reach a droplet, and whom it may reach.

They apply to the droplets that they list (ten at most) and to every droplet with one of their tags. Once
one applies, what no rule admits is denied, in both directions: without outbound rules, all egress is.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from localcloud.cloud import Cloud, CloudError
from localcloud.digitalocean import wire
from localcloud.digitalocean.actions import timestamp
from localcloud.digitalocean.checks import check_firewall, not_found, unprocessable
from localcloud.digitalocean.parts import FIREWALL, Delays, Json, delays_of
from localcloud.state import Resource


class Firewalls:
    """The firewalls of the local account."""

    def __init__(self, cloud: Cloud, delays: Delays, now: Callable[[], float] = time.time) -> None:
        self._cloud = cloud
        self._delays = delays
        self._now = now
        self._changed_at: dict[str, float] = {}

    def create(self, request: Json) -> Json:
        """Raises CloudError 422, and 409 when the name is taken."""
        self._check(request, None)
        firewall_id = str(uuid.uuid4())
        return self._save(firewall_id, request, timestamp(self._now()))

    def update(self, firewall_id: str, request: Json) -> Json:
        """Replaces the firewall's rules, droplets and tags. Raises CloudError 404, 409 and 422."""
        created = self.resource(firewall_id).outputs["createdAt"]
        self._check(request, firewall_id)
        return self._save(firewall_id, request, created)

    def _check(self, request: Json, own_id: str | None) -> None:
        check_firewall(self._cloud, request)
        if any(
            other.inputs["name"] == request["name"] and other.id != own_id
            for other in self._cloud.store.all(FIREWALL)
        ):
            raise CloudError(409, "duplicate name", "conflict")

    def _save(self, firewall_id: str, request: Json, created: str) -> Json:
        inputs = wire.firewall_inputs(request)
        self._changed_at[firewall_id] = self._now()
        self._cloud.store.put(
            Resource(
                FIREWALL,
                firewall_id,
                inputs,
                {**inputs, "createdAt": created, "status": "succeeded", "pendingChanges": []},
            )
        )
        self._cloud.network.changed()
        return self.get(firewall_id)

    def resource(self, firewall_id: str) -> Resource:
        """The firewall as it is stored. Raises CloudError 404."""
        firewall = self._cloud.store.get(FIREWALL, firewall_id)
        if firewall is None:
            raise not_found()
        return firewall

    def get(self, firewall_id: str) -> Json:
        """Raises CloudError 404. `waiting` for a moment after each change."""
        firewall = self.resource(firewall_id)
        settles = self._changed_at.get(firewall_id, 0.0) + delays_of(self._cloud, self._delays).firewall
        return wire.firewall_document(firewall, "waiting" if self._now() < settles else "succeeded")

    def all(self) -> list[Json]:
        """Every firewall, oldest first."""
        return [self.get(firewall.id) for firewall in self._cloud.store.all(FIREWALL)]

    def delete(self, firewall_id: str) -> None:
        """Raises CloudError 404."""
        self._cloud.store.delete(FIREWALL, self.resource(firewall_id).id)
        self._changed_at.pop(firewall_id, None)
        self._cloud.network.changed()

    def edit(self, firewall_id: str, part: str, values: list[object], present: bool) -> None:
        """Adds to `droplet_ids`, `tags`, `inbound_rules` or `outbound_rules`, or takes from them.

        Raises CloudError 404 and 422.
        """
        request = wire.firewall_request(self.resource(firewall_id).inputs)
        if not values:
            raise unprocessable(f"{part} is needed")
        others = [value for value in request[part] if value not in values]
        self.update(firewall_id, {**request, part: [*others, *values] if present else others})
