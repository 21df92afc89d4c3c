"""VPC networks, subnetworks and firewall rules."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from localcloud.cloud import Cloud, CloudError
from localcloud.providers.gcp.base import (
    ADDRESS,
    CONNECTION,
    CONNECTOR,
    FIREWALL,
    GLOBAL_ADDRESS,
    INSTANCE,
    NETWORK,
    ROUTER,
    ROUTER_NAT,
    SUBNETWORK,
    GcpHandler,
    fingerprint,
    in_use,
    invalid,
    plain,
    reference,
    self_link,
)
from localcloud.providers.resource import now, number
from localcloud.providers.schema import Failure
from localcloud.providers.values import UNKNOWN
from localcloud.state import Resource

NETWORK_PATTERN = "projects/{project}/global/networks/{name}"
PROTOCOLS = frozenset({"tcp", "udp", "icmp", "esp", "ah", "sctp", "ipip", "all"})
_TAG = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


class Network(GcpHandler):
    """A VPC. Auto mode isn't built: its subnets lie in 10.128.0.0/9, which no laptop has."""

    token = NETWORK
    id_format = NETWORK_PATTERN
    noun = "Network"
    shapes_network = True

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        yield from super().check(inputs)
        if inputs.get("autoCreateSubnetworks", True) is True:
            yield Failure(
                "autoCreateSubnetworks",
                "the local cloud has custom-mode networks only: set autoCreateSubnetworks to false",
            )

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {
            "gatewayIpv4": "",
            "networkId": number(resource_id),
            "numericId": number(resource_id),
            "selfLink": self_link(resource_id),
            "routingMode": inputs.get("routingMode") or "REGIONAL",
            "mtu": inputs.get("mtu") or 0,
        }

    def verify_delete(self, resource: Resource) -> None:
        for token in (SUBNETWORK, FIREWALL, ROUTER, INSTANCE, GLOBAL_ADDRESS, CONNECTOR):
            for user in self.cloud.store.all(token):
                if uses_network(user, resource.id):
                    raise in_use("network", resource.id, user.id)
        for user in self.cloud.store.all(CONNECTION):
            if uses_network(user, resource.id):
                peering = f"{resource.id}/networkPeerings/{user.outputs['peering']}"
                raise in_use("network", resource.id, peering)


def uses_network(resource: Resource, network: str) -> bool:
    """Whether a resource's outputs refer to a network."""
    written = [resource.outputs.get("network")]
    written += [nic.get("network") for nic in resource.outputs.get("networkInterfaces") or []]
    project = {"project": resource.outputs.get("project") or network.split("/")[1]}
    return any(w and reference(w, NETWORK_PATTERN, project) == network for w in written)


class Subnetwork(GcpHandler):
    """A subnet. Its addresses are real ones of the laptop, so it lies in the cloud's own range."""

    token = SUBNETWORK
    id_format = "projects/{project}/regions/{region}/subnetworks/{name}"
    noun = "Subnetwork"
    shapes_network = True

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_place(inputs)
        network = self.network(inputs["network"], inputs)
        written = inputs.get("ipCidrRange")
        if written is None:
            raise invalid("ipCidrRange", "", "A subnetwork needs a range")
        cidr = ipaddress.ip_network(written)
        verify_local_range(self.cloud, written)
        if cidr.prefixlen > 29:
            raise invalid("ipCidrRange", written, "The range must be /29 or larger")
        own = old.id if old else self.identify(inputs)
        verify_free_range(self.cloud, network.id, written, own)

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        cidr = ipaddress.ip_network(inputs["ipCidrRange"])
        network = self.network(inputs["network"], inputs)
        return {
            "network": network.outputs["selfLink"],
            "creationTimestamp": old.outputs["creationTimestamp"] if old else now(),
            "fingerprint": fingerprint(inputs),
            "gatewayAddress": str(cidr[1]),
            "ipv6CidrRange": "",
            "selfLink": self_link(resource_id),
            "subnetworkId": int(number(resource_id)) // 10**4,
            "purpose": inputs.get("purpose") or "PRIVATE",
            "privateIpGoogleAccess": bool(inputs.get("privateIpGoogleAccess")),
            "stackType": inputs.get("stackType") or "IPV4_ONLY",
        }

    def replacing(self, old: dict[str, Any], new: dict[str, Any]) -> set[str]:
        """A range can be widened in place, not narrowed or moved (the provider's IsShrinkageIpCidr)."""
        was, now_ = old.get("ipCidrRange"), new.get("ipCidrRange")
        if not was or not now_ or UNKNOWN in (was, now_) or was == now_:
            return set()
        return set() if _contains(now_, was) else {"ipCidrRange"}

    def verify_delete(self, resource: Resource) -> None:
        for token in (INSTANCE, ADDRESS, ROUTER_NAT, CONNECTOR):
            for user in self.cloud.store.all(token):
                if uses_subnetwork(user, resource):
                    raise in_use("subnetwork", resource.id, _user_name(user))


def uses_subnetwork(resource: Resource, subnetwork: Resource) -> bool:
    """Whether a resource's outputs refer to a subnetwork."""
    out = resource.outputs
    written = [out.get("subnetwork"), *(n.get("subnetwork") for n in out.get("networkInterfaces") or [])]
    written += [s.get("name") for s in out.get("subnetworks") or []]
    if isinstance(out.get("subnet"), dict):
        written.append(out["subnet"].get("name"))
    places = {"project": "local", "region": subnetwork.outputs["region"]}
    return any(w and reference(w, Subnetwork.id_format, places) == subnetwork.id for w in written)


def _user_name(user: Resource) -> str:
    """A NAT is a part of its router, and it is the router that Google names."""
    if user.type != ROUTER_NAT:
        return user.id
    out = user.outputs
    return f"projects/{out['project']}/regions/{out['region']}/routers/{plain(out['router'])}"


def _contains(outer: str, inner: str) -> bool:
    wide, narrow = ipaddress.ip_network(outer), ipaddress.ip_network(inner)
    if isinstance(wide, ipaddress.IPv4Network) and isinstance(narrow, ipaddress.IPv4Network):
        return narrow.subnet_of(wide)
    return False


def verify_local_range(cloud: Cloud, cidr: str) -> None:
    """Refuse a range outside of what the local cloud can really give addresses from."""
    ours = f"{cloud.settings.network}.0.0/17"
    if not _contains(ours, cidr):
        raise CloudError(
            400,
            f"the range {cidr} isn't this local cloud's: declared addresses are real ones here and come from "
            f"{ours} (choose a range in it in the stack's config)",
            "invalid",
        )


def verify_free_range(cloud: Cloud, network: str, cidr: str, own: str) -> None:
    """Refuse a range that overlaps another one of the same network. Raises `CloudError` 400."""
    for other, taken in network_ranges(cloud, network):
        if other.id == own:
            continue
        if ipaddress.ip_network(taken).overlaps(ipaddress.ip_network(cidr)):
            region = other.outputs.get("region", "global")
            raise CloudError(
                400,
                f"Invalid IPCidrRange: {cidr} conflicts with existing subnetwork '{plain(other.id)}' in "
                f"region '{region}'.",
                "invalid",
            )


def network_ranges(cloud: Cloud, network: str) -> Iterator[tuple[Resource, str]]:
    """Every range in use in a network: subnets, reserved ranges for peering, connectors' own."""
    for subnetwork in cloud.store.all(SUBNETWORK):
        if uses_network(subnetwork, network):
            yield subnetwork, subnetwork.outputs["ipCidrRange"]
            for secondary in subnetwork.outputs.get("secondaryIpRanges") or []:
                if secondary.get("ipCidrRange"):
                    yield subnetwork, secondary["ipCidrRange"]
    for reserved in cloud.store.all(GLOBAL_ADDRESS):
        if reserved.outputs.get("purpose") == "VPC_PEERING" and uses_network(reserved, network):
            out = reserved.outputs
            if out.get("address"):
                yield reserved, f"{out['address']}/{out['prefixLength']}"
    for connector in cloud.store.all(CONNECTOR):
        if connector.outputs.get("ipCidrRange") and uses_network(connector, network):
            yield connector, connector.outputs["ipCidrRange"]


class Firewall(GcpHandler):
    """A firewall rule."""

    token = FIREWALL
    id_format = "projects/{project}/global/firewalls/{name}"
    noun = "Firewall"
    shapes_network = True

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        yield from super().check(inputs)
        sources = ("sourceRanges", "sourceTags", "sourceServiceAccounts")
        if inputs.get("direction", "INGRESS") == "INGRESS" and not any(inputs.get(s) for s in sources):
            yield Failure(
                "sourceRanges",
                "one of source_ranges, source_tags, or source_service_accounts must be defined",
            )

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.network(inputs["network"], inputs)
        for field, written in (("allowed", inputs.get("allows")), ("denied", inputs.get("denies"))):
            for i, rule in enumerate(written or []):
                _verify_rule(f"{field}[{i}]", rule)
        for field in ("sourceRanges", "destinationRanges"):
            for i, cidr in enumerate(inputs.get(field) or []):
                _verify_cidr(f"{field}[{i}]", cidr)
        for field in ("sourceTags", "targetTags"):
            for i, tag in enumerate(inputs.get(field) or []):
                if not _TAG.fullmatch(tag):
                    raise invalid(f"{field}[{i}]", tag, f"Must be a match of regex '(?:{_TAG.pattern})'")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {
            "network": self.network(inputs["network"], inputs).outputs["selfLink"],
            "direction": inputs.get("direction") or "INGRESS",
            "creationTimestamp": old.outputs["creationTimestamp"] if old else now(),
            "selfLink": self_link(resource_id),
            "destinationRanges": inputs.get("destinationRanges") or [],
            "enableLogging": bool(inputs.get("enableLogging") or inputs.get("logConfig")),
        }


def _verify_rule(field: str, rule: dict[str, Any]) -> None:
    protocol = str(rule["protocol"]).lower()
    if protocol not in PROTOCOLS and not (protocol.isdigit() and int(protocol) < 256):
        raise invalid(f"{field}.IPProtocol", rule["protocol"], "Must be a known protocol or its number")
    ports = rule.get("ports") or []
    if ports and protocol not in ("tcp", "udp", "sctp", "6", "17", "132"):
        raise invalid(
            f"{field}.ports", ports[0], "Ports may only be specified on rules with TCP, UDP or SCTP"
        )
    for i, port in enumerate(ports):
        match = _PORTS.fullmatch(port)
        if not match or not int(match[1]) <= int(match[2] or match[1]) <= 65535:
            raise invalid(f"{field}.ports[{i}]", port, "Must be a port or a range of ports")


def _verify_cidr(field: str, cidr: str) -> None:
    try:
        ipaddress.ip_network(cidr)
    except ValueError:
        raise invalid(field, cidr, "Must be a valid CIDR address range.") from None


HANDLERS = (Network, Subnetwork, Firewall)
