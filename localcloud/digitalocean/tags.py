"""Tags: made by themselves when a droplet names them, and a firewall applies to whatever carries them."""

from __future__ import annotations

from localcloud.cloud import Cloud
from localcloud.digitalocean.checks import check_tag, not_found
from localcloud.digitalocean.parts import DROPLET, FIREWALL, TAG, Json, retag
from localcloud.state import Resource


class Tags:
    """The tags of the local account."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def ensure(self, name: object) -> Json:
        """Makes the tag unless it is there. Raises CloudError 422 for a name that can't be one."""
        tag = check_tag(name)
        if self._cloud.store.get(TAG, tag) is None:
            self._cloud.store.put(Resource(TAG, tag, {"name": tag}, {"name": tag}))
        return self.get(tag)

    def get(self, name: str) -> Json:
        """Raises CloudError 404."""
        if self._cloud.store.get(TAG, name) is None:
            raise not_found()
        tagged = [droplet.id for droplet in self._cloud.store.all(DROPLET) if name in droplet.outputs["tags"]]
        last = {"last_tagged_uri": f"/v2/droplets/{tagged[-1]}"} if tagged else {}
        droplets = {"count": len(tagged), **last}
        nothing: Json = {"count": 0}
        return {
            "name": name,
            "resources": {
                **droplets,
                "droplets": droplets,
                "images": nothing,
                "volumes": nothing,
                "volume_snapshots": nothing,
                "databases": nothing,
            },
        }

    def all(self) -> list[Json]:
        """Every tag, by name."""
        return [self.get(tag.id) for tag in sorted(self._cloud.store.all(TAG), key=lambda one: one.id)]

    def delete(self, name: str) -> None:
        """Takes the tag off everything, then removes it. Raises CloudError 404."""
        self.get(name)
        for droplet in self._cloud.store.all(DROPLET):
            if name in droplet.outputs["tags"]:
                retag(self._cloud, droplet, [tag for tag in droplet.outputs["tags"] if tag != name])
        for firewall in self._cloud.store.all(FIREWALL):
            left = [tag for tag in firewall.outputs.get("tags") or [] if tag != name]
            firewall.inputs["tags"] = firewall.outputs["tags"] = left
            self._cloud.store.put(firewall)
        self._cloud.store.delete(TAG, name)
        self._cloud.network.changed()
