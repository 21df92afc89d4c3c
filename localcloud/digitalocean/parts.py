"""Where the DigitalOcean side keeps things in the local cloud, and how long things take."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.cloud import Cloud, CloudError
from localcloud.state import Resource

Json = dict[str, Any]

DROPLET = "digitalocean:index/droplet:Droplet"
FIREWALL = "digitalocean:index/firewall:Firewall"
TAG = "digitalocean:index/tag:Tag"
VPC = "digitalocean:index/vpc:Vpc"
SSH_KEY = "digitalocean:index/sshKey:SshKey"

# Namespaces of the store's notes: settings of the account, and its private images.
SETTINGS = "digitalocean"
IMAGES = "digitalocean/images"


@dataclass(frozen=True, slots=True)
class Delays:
    """How long things take, in seconds. Small, so that a laptop doesn't wait, and not zero: a program that
    takes a droplet for ready, gettable or listed right after the 202 must notice."""

    visible: float = 0.02  # GET answers 404 until then
    listed: float = 0.04  # lists leave it out until then
    create: float = 0.06  # "new" until then
    action: float = 0.03  # an action is "in-progress" until then
    firewall: float = 0.02  # a firewall's changes are "waiting" until then


def machine_name(droplet_id: int | str) -> str:
    """The name of a droplet's machine in the local cloud."""
    return f"droplet/{droplet_id}"


def droplet_notes(droplet_id: int | str) -> str:
    """The notes' namespace for what the API keeps about a droplet beside its properties."""
    return f"digitalocean/droplet/{droplet_id}"


def action_notes(droplet_id: int | str) -> str:
    """The notes' namespace of a droplet's actions. One for each: reading a few must not copy all."""
    return f"digitalocean/droplet/{droplet_id}/actions"


def retag(cloud: Cloud, droplet: Resource, tags: list[str]) -> None:
    """Gives a droplet these tags, and its machine, which is there unless it was never booted."""
    droplet.inputs["tags"] = droplet.outputs["tags"] = tags
    cloud.store.put(droplet)
    if droplet.outputs.get("ipv4Address"):
        try:
            cloud.machines.update(machine_name(droplet.id), tags=tags)
        except CloudError as error:
            if error.status != 404:
                raise


def settings(cloud: Cloud) -> Mapping[str, Any]:
    """The account's settings: `token`, `droplet_limit`, `delays`, `last_id` ..."""
    return cloud.store.notes(SETTINGS)


def account_token(cloud: Cloud) -> str:
    """The account's API token, made at the first call. In the form of DigitalOcean's personal tokens."""
    token = settings(cloud).get("token")
    if not token:
        token = f"dop_v1_{secrets.token_hex(32)}"
        cloud.store.note(SETTINGS, "token", token)
    return str(token)


def delays_of(cloud: Cloud, default: Delays) -> Delays:
    """The delays in force: those given at construction, overridden by the account's note `delays`."""
    override = settings(cloud).get("delays")
    return Delays(**override) if isinstance(override, dict) else default


def next_id(cloud: Cloud, counter: str, first: int) -> int:
    """A number that this account never gave before."""
    number = int(settings(cloud).get(counter, first - 1)) + 1
    cloud.store.note(SETTINGS, counter, number)
    return number
