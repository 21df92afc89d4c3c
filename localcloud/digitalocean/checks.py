"""What DigitalOcean's API refuses, with its status and, where they are public, its words.

Words seen in public reports: "You specified an invalid ... for Droplet creation." (packer, axiom, scrapoxy),
"Region is not available" (digitalocean/api-v2 41), "creating this/these droplet(s) will exceed your droplet
limit" (axiom 422), "Droplet already has a pending event." (packer 1814), "duplicate name" for firewalls
(harmony-ops 390), "invalid address" (terraform-provider-digitalocean 33). The other sentences are ours.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from localcloud.cloud import Cloud, CloudError
from localcloud.digitalocean import catalog
from localcloud.digitalocean.parts import DROPLET, SSH_KEY, TAG, VPC, Json, settings

USER_DATA_LIMIT = 64 * 1024
FIREWALL_DROPLETS = 10  # more than these are attached by tag
DROPLET_LIMIT = 25  # of an account whose settings say nothing else
NAMES_AT_ONCE = 10

_HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,254}")
_TAG = re.compile(r"[A-Za-z0-9:_-]{1,255}")
_FIREWALL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,254}")


def unprocessable(message: str) -> CloudError:
    """422, the answer to a request that is well formed and wrong."""
    return CloudError(422, message, "unprocessable_entity")


def not_found() -> CloudError:
    """404, also for what exists and isn't this account's."""
    return CloudError(404, "The resource you requested could not be found.", "not_found")


def pending() -> CloudError:
    """422 while an earlier action of the droplet is still running."""
    return unprocessable("Droplet already has a pending event.")


_FORMS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "region", "size", "type", "user_data", "vpc_uuid"), str),
    **dict.fromkeys(("names", "tags", "ssh_keys", "droplet_ids", "inbound_rules", "outbound_rules"), list),
    **dict.fromkeys(("backups", "ipv6", "monitoring"), bool),
    "resources": list,
    "image": (str, int),
}


def check_forms(request: Json) -> None:
    """Refuses a field of another JSON type than the API says. Raises CloudError 422."""
    for name, form in _FORMS.items():
        if request.get(name) is not None and not isinstance(request[name], form):
            raise unprocessable(f"{name} has the wrong type")


def check_tag(name: object) -> str:
    """The name, if a tag may have it. Raises CloudError 422."""
    if not isinstance(name, str) or not _TAG.fullmatch(name):
        raise unprocessable(
            "tags may contain letters, numbers, colons, dashes, and underscores; "
            "there is a limit of 255 characters per tag"
        )
    return name


def check_droplet(cloud: Cloud, request: Json, names: list[str]) -> None:
    """Refuses a create request as POST /v2/droplets does.

    Raises CloudError 422 for the first thing wrong.
    """
    if not names or len(names) > NAMES_AT_ONCE:
        raise unprocessable(f"between 1 and {NAMES_AT_ONCE} names are needed")
    for name in names:
        if not isinstance(name, str) or not _HOSTNAME.fullmatch(name):
            raise unprocessable("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
    _check_place(cloud, request)
    check_user_data(request.get("user_data"))
    for tag in request.get("tags") or []:
        check_tag(tag)
    keys = {
        str(known) for key in cloud.store.all(SSH_KEY) for known in (key.id, key.outputs.get("fingerprint"))
    }
    unknown = [key for key in request.get("ssh_keys") or [] if str(key) not in keys]
    if unknown:
        raise unprocessable(
            f"{', '.join(map(str, unknown))} are invalid key identifiers for Droplet creation."
        )
    if request.get("vpc_uuid") and cloud.store.get(VPC, request["vpc_uuid"]) is None:
        raise unprocessable("Failed to resolve VPC")
    limit = int(settings(cloud).get("droplet_limit", DROPLET_LIMIT))
    if len(cloud.store.all(DROPLET)) + len(names) > limit:
        raise unprocessable("creating this/these droplet(s) will exceed your droplet limit")


def _check_place(cloud: Cloud, request: Json) -> None:
    region = request.get("region") or catalog.default_region()
    if not catalog.has_size(request.get("size")):
        raise unprocessable("You specified an invalid size for Droplet creation.")
    if not catalog.has_region(region):
        raise unprocessable("You specified an invalid region for Droplet creation.")
    if not catalog.region(region)["available"]:
        raise unprocessable("Region is not available")
    image = catalog.find_image(cloud, request.get("image"))
    if image is None:
        raise unprocessable("You specified an invalid image for Droplet creation.")
    if region not in image["regions"]:
        raise unprocessable(
            "The image you specified is not available in the selected region, "
            "you can transfer it to this region from the images pages."
        )
    if catalog.size(request["size"])["disk"] < image["min_disk_size"]:
        raise unprocessable("This size is not available because it has a smaller disk.")


def check_user_data(user_data: object) -> None:
    """At most 64 KiB of ASCII: an emoji made a real creation fail."""
    if user_data is None:
        return
    if not isinstance(user_data, str):
        raise unprocessable("user_data must be a string")
    if len(user_data.encode()) > USER_DATA_LIMIT:
        raise unprocessable("user_data is too large: it may have 64 KiB at most")
    if not user_data.isascii():
        raise unprocessable("user_data may contain ASCII characters only")


def check_firewall(cloud: Cloud, request: Json) -> None:
    """Refuses a firewall as POST and PUT /v2/firewalls do (its name's uniqueness is checked elsewhere).

    A tag must exist before a firewall names it (poseidon/typhoon 709). Raises CloudError 422.
    """
    name = request.get("name")
    if not isinstance(name, str) or not _FIREWALL_NAME.fullmatch(name):
        raise unprocessable("firewall names may contain letters, numbers, dashes and periods only")
    inbound, outbound = request.get("inbound_rules") or [], request.get("outbound_rules") or []
    if not inbound and not outbound:
        raise unprocessable("a firewall must have at least one inbound or outbound rule")
    for rule in inbound:
        _check_rule(cloud, rule, "sources")
    for rule in outbound:
        _check_rule(cloud, rule, "destinations")
    _check_targets(cloud, request)


def _check_targets(cloud: Cloud, request: Json) -> None:
    droplet_ids = request.get("droplet_ids") or []
    if len(droplet_ids) > FIREWALL_DROPLETS:
        raise unprocessable(f"a firewall may list {FIREWALL_DROPLETS} droplets at most: use a tag")
    for droplet_id in droplet_ids:
        if cloud.store.get(DROPLET, str(droplet_id)) is None:
            raise unprocessable(f"droplet {droplet_id} not found")
    check_known_tags(cloud, request.get("tags") or [])


def check_known_tags(cloud: Cloud, tags: list[Any]) -> None:
    """Raises CloudError 422 for a tag that doesn't exist."""
    for tag in tags:
        if cloud.store.get(TAG, check_tag(tag)) is None:
            raise unprocessable(f"tag {tag} not found")


def _check_rule(cloud: Cloud, rule: Any, side: str) -> None:
    if not isinstance(rule, dict) or rule.get("protocol") not in ("tcp", "udp", "icmp"):
        raise unprocessable("a rule's protocol must be tcp, udp or icmp")
    if rule["protocol"] != "icmp":
        _check_ports(rule.get("ports"))
    peers = rule.get(side) or {}
    if not isinstance(peers, dict) or not any(peers.values()):
        raise unprocessable(f"a rule must have {side}")
    if not all(isinstance(listed, list) for listed in peers.values() if listed is not None):
        raise unprocessable(f"{side} must be lists")
    for address in peers.get("addresses") or []:
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError:
            raise unprocessable("invalid address") from None
    check_known_tags(cloud, peers.get("tags") or [])


def _check_ports(ports: Any) -> None:
    if ports in ("0", "all"):
        return
    bounds = str(ports).split("-")
    if (
        len(bounds) > 2
        or not all(bound.isdigit() and 1 <= int(bound) <= 65535 for bound in bounds)
        or int(bounds[0]) > int(bounds[-1])
    ):
        raise unprocessable("invalid ports: a port, a range such as 8000-9000, or all")
