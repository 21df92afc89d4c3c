"""Deleting a machine as a person does in a cloud's console: behind Pulumi's back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localcloud.cloud import CloudError
from localcloud.machines import cloudrun
from localcloud.topology import short

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_INSTANCE = "gcp:compute/instance:Instance"
_SERVICE = "gcp:cloudrunv2/service:Service"
_DATABASE = "gcp:sql/databaseInstance:DatabaseInstance"
_WITHIN_DATABASE = ("gcp:sql/database:Database", "gcp:sql/user:User")
DROPLET = "digitalocean:index/droplet:Droplet"


async def delete_as_a_person(cloud: Cloud, machine: str) -> None:
    """Delete a machine and what the cloud knows of it, so that a refresh finds it missing.

    Raises `CloudError` 400 for what can't be deleted so ("IBKR's servers").
    """
    kind, _, name = machine.partition("/")
    if kind == "gce":
        await cloud.machines.delete(machine)
        _forget(cloud, _INSTANCE, name)
    elif kind == "droplet":
        await cloud.machines.delete(machine)
        cloud.store.delete(DROPLET, name)
    elif kind == "run":
        service = name.partition("/")[0]
        await cloudrun.remove(cloud, service)
        _forget(cloud, _SERVICE, service)
    elif kind == "sql":
        await cloud.machines.delete(machine)
        _forget(cloud, _DATABASE, name)
        for type_ in _WITHIN_DATABASE:
            for found in cloud.store.find(type_, instance=name):
                cloud.store.delete(type_, found.id)
    else:
        raise CloudError(400, f"{machine} is not a machine of this cloud")
    cloud.network.changed()


def _forget(cloud: Cloud, type_: str, name: str) -> None:
    for found in cloud.store.all(type_):
        if short(found.inputs.get("name") or found.id) == name:
            cloud.store.delete(type_, found.id)
