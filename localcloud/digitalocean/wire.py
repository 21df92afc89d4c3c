"""Between the REST API's snake_case documents and the camelCase properties of Pulumi's provider.

Droplets and firewalls are stored as the provider's properties, whoever made them; the API's documents are
derived from these. So one thing declared and one made at run time look the same everywhere.
"""

from __future__ import annotations

from typing import Any

from localcloud.cloud import Cloud
from localcloud.digitalocean import catalog
from localcloud.digitalocean.parts import Json
from localcloud.state import Resource

_DROPLET_REQUEST = {
    "name": "name",
    "region": "region",
    "size": "size",
    "image": "image",
    "tags": "tags",
    "userData": "user_data",
    "sshKeys": "ssh_keys",
    "backups": "backups",
    "ipv6": "ipv6",
    "monitoring": "monitoring",
    "vpcUuid": "vpc_uuid",
}
_PEERS = {
    "Addresses": "addresses",
    "Tags": "tags",
    "DropletIds": "droplet_ids",
    "LoadBalancerUids": "load_balancer_uids",
    "KubernetesIds": "kubernetes_ids",
}


def droplet_request(inputs: Json) -> Json:
    """The body of POST /v2/droplets for declared inputs. A numeric image is a number there."""
    request = {
        theirs: inputs[ours] for ours, theirs in _DROPLET_REQUEST.items() if inputs.get(ours) is not None
    }
    if str(request.get("image", "")).isdigit():
        request["image"] = int(request["image"])
    return request


def droplet_inputs(request: Json) -> Json:
    """The provider's properties for the body of POST /v2/droplets."""
    inputs = {
        ours: request[theirs] for ours, theirs in _DROPLET_REQUEST.items() if request.get(theirs) is not None
    }
    inputs["image"] = str(inputs["image"])
    return inputs


def droplet_document(cloud: Cloud, droplet: Resource) -> Json:
    """A droplet as the API shows it. memory in MB, disk in GB."""
    outputs = droplet.outputs
    size, image = catalog.size(outputs["size"]), catalog.find_image(cloud, outputs["image"])
    v4 = [
        _network(outputs[key], kind)
        for key, kind in (("ipv4AddressPrivate", "private"), ("ipv4Address", "public"))
        if outputs.get(key)
    ]
    features = ["droplet_agent", *(name for name in ("backups", "ipv6", "monitoring") if outputs.get(name))]
    return {
        "id": int(droplet.id),
        "name": outputs["name"],
        "memory": size["memory"],
        "vcpus": size["vcpus"],
        "disk": size["disk"],
        "disk_info": [{"type": "local", "size": {"amount": size["disk"], "unit": "gib"}}],
        "locked": bool(outputs.get("locked")),
        "status": outputs["status"],
        "kernel": None,
        "created_at": outputs["createdAt"],
        "features": features,
        "backup_ids": [],
        "next_backup_window": None,
        "snapshot_ids": [],
        "volume_ids": [],
        "tags": list(outputs.get("tags") or []),
        "image": image
        or {"id": int(outputs["image"]) if outputs["image"].isdigit() else 0, "status": "deleted"},
        "size": size,
        "size_slug": outputs["size"],
        "region": catalog.region(outputs["region"]),
        "networks": {"v4": v4, "v6": []},
        "vpc_uuid": outputs.get("vpcUuid") or "",
    }


def _network(address: str, kind: str) -> Json:
    return {"ip_address": address, "netmask": "255.255.240.0", "gateway": "", "type": kind}


def _rules_to_rest(rules: list[Json], ours: str, theirs: str) -> list[Json]:
    """`[{"protocol": "tcp", "portRange": "5000", "sourceTags": ["a"]}]` ->
    `[{"protocol": "tcp", "ports": "5000", "sources": {"tags": ["a"]}}]`"""
    documents = []
    for rule in rules:
        peers = {rest: rule[ours + name] for name, rest in _PEERS.items() if rule.get(ours + name)}
        document: Json = {"protocol": rule["protocol"], theirs: peers}
        if rule["protocol"] != "icmp":
            document["ports"] = "0" if rule.get("portRange") == "all" else rule.get("portRange")
        documents.append(document)
    return documents


def _rules_from_rest(rules: list[Json], ours: str, theirs: str) -> list[Json]:
    properties = []
    for rule in rules:
        peers = rule.get(theirs) or {}
        found: Json = {
            "protocol": rule["protocol"],
            **{ours + name: peers[rest] for name, rest in _PEERS.items() if peers.get(rest)},
        }
        if rule["protocol"] != "icmp":
            found["portRange"] = "all" if rule.get("ports") in ("0", "all") else str(rule.get("ports"))
        properties.append(found)
    return properties


def firewall_request(inputs: Json) -> Json:
    """The body of POST and PUT /v2/firewalls for declared inputs."""
    return {
        "name": inputs.get("name"),
        "tags": list(inputs.get("tags") or []),
        "droplet_ids": [int(droplet_id) for droplet_id in inputs.get("dropletIds") or []],
        "inbound_rules": _rules_to_rest(inputs.get("inboundRules") or [], "source", "sources"),
        "outbound_rules": _rules_to_rest(inputs.get("outboundRules") or [], "destination", "destinations"),
    }


def firewall_inputs(request: Json) -> Json:
    """The provider's properties for the body of POST or PUT /v2/firewalls."""
    return {
        "name": request["name"],
        "tags": list(request.get("tags") or []),
        "dropletIds": list(request.get("droplet_ids") or []),
        "inboundRules": _rules_from_rest(request.get("inbound_rules") or [], "source", "sources"),
        "outboundRules": _rules_from_rest(request.get("outbound_rules") or [], "destination", "destinations"),
    }


def firewall_document(firewall: Resource, status: str) -> Json:
    """A firewall as the API shows it."""
    waiting: list[Any] = [
        {"droplet_id": droplet_id, "removing": False, "status": "waiting"}
        for droplet_id in firewall.inputs.get("dropletIds") or []
    ]
    return {
        "id": firewall.id,
        **firewall_request(firewall.inputs),
        "status": status,
        "created_at": firewall.outputs["createdAt"],
        "pending_changes": waiting if status == "waiting" else [],
    }
