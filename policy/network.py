"""Rules on who reaches what: no public address, no open door, the gateway's ports for the connector alone."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from policy.model import Resource, Stack

FIREWALL = "compute/firewall:Firewall"
DROPLET_FIREWALL = "index/firewall:Firewall"
# What Identity-Aware Proxy's TCP forwarding comes from (cloud.google.com/iap/docs/using-tcp-forwarding).
IAP_RANGE = ip_network("35.235.240.0/20")
# IB Gateway's API, live and paper, and the same behind the usual socat of container images.
GATEWAY_PORTS = range(4001, 4005)
# Two halves are the whole internet too: a range this wide isn't anybody's own network.
WIDEST = {4: 8, 6: 16}
Range = IPv4Network | IPv6Network


def public_address(resource: Resource, stack: Stack) -> Iterator[str]:
    """No machine and no database has an address on the internet. (Droplets have one, and a firewall.)"""
    if resource.is_a("compute/instance:Instance"):
        for interface in resource.objects("networkInterfaces"):
            if interface.get("accessConfigs") or interface.get("ipv6AccessConfigs"):
                yield (
                    "has a public IP address. Take access_configs off its network interface: it reaches the "
                    "internet through Cloud NAT, people reach it through IAP (make tunnel)."
                )
    if resource.is_a("sql/databaseInstance:DatabaseInstance"):
        settings = resource.known("settings") or {}
        if (settings.get("ipConfiguration") or {}).get("ipv4Enabled", True):
            yield (
                "has a public IP address, which is Google's default. Set "
                "settings.ip_configuration.ipv4_enabled to false, and private_network."
            )


def open_ingress(resource: Resource, stack: Stack) -> Iterator[str]:
    """Nothing lets the whole internet in."""
    if resource.is_a(FIREWALL) and _admits(resource):
        sources = resource.known("sourceRanges")
        named = resource.inputs.get("sourceTags") or resource.inputs.get("sourceServiceAccounts")
        if not named and "sourceRanges" not in resource.inputs:
            yield "names no source, and Google then takes 0.0.0.0/0. Set source_ranges: the connector's /28."
        for source in _ranges(sources):
            if _is_open(source):
                yield (
                    f"admits {source}, which is the internet. Admit the connector's /28, or IAP's "
                    f"{IAP_RANGE} for people."
                )
    if resource.is_a(DROPLET_FIREWALL):
        for rule in resource.objects("inboundRules"):
            for source in _ranges(rule.get("sourceAddresses")):
                if _is_open(source):
                    yield (
                        f"admits {source} on port {rule.get('portRange')}, which is the internet. Admit the "
                        "NAT's address alone, as <nat_ip>/32."
                    )


def gateway_ports(resource: Resource, stack: Stack) -> Iterator[str]:
    """IB Gateway's ports: from the service's connector, and from IAP for people. It has no password."""
    if not (resource.is_a(FIREWALL) and _admits(resource) and _reaches(resource, GATEWAY_PORTS)):
        return
    if resource.inputs.get("sourceTags") or resource.inputs.get("sourceServiceAccounts"):
        yield "admits machines by tag or account to the gateway's port. Admit the connector's /28 alone."
    connector = stack.section("network").get("connectorRange", "10.10.1.0/28")
    for source in _ranges(resource.known("sourceRanges")):
        if source != ip_network(connector) and source != IAP_RANGE:
            yield (
                f"admits {source} to the gateway's port, and whoever reaches that port can trade. Admit "
                f"{connector} (ibkr:network.connectorRange), or IAP's {IAP_RANGE} for people."
            )


def _admits(resource: Resource) -> bool:
    ingress = (resource.known("direction") or "INGRESS") == "INGRESS"
    return ingress and bool(resource.inputs.get("allows")) and not resource.known("disabled")


def _reaches(resource: Resource, ports: range) -> bool:
    """Whether a rule's allowed ports (all of them, where it names none) include one of these."""
    for allowed in resource.objects("allows"):
        if str(allowed.get("protocol")).lower() in ("tcp", "6", "all"):
            named = allowed.get("ports") or ["0-65535"]
            if any(_overlaps(str(port), ports) for port in named if port is not None):
                return True
    return False


def _overlaps(port: str, ports: range) -> bool:
    first, _, last = port.partition("-")
    return int(first) < ports.stop and int(last or first) >= ports.start


def _ranges(values: Any) -> Iterator[Range]:
    """What is a range among these; a firewall may also name tags and droplets, which are no ranges."""
    for value in values if isinstance(values, list) else []:
        try:
            yield ip_network(str(value), strict=False)
        except ValueError:
            continue


def _is_open(source: Range) -> bool:
    return source.prefixlen < WIDEST[source.version]
