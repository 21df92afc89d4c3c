"""Who may reach whom, by the rules of the real clouds. Pure: a topology goes in, a verdict comes out.

Rules of Google's network: docs.cloud.google.com/firewall/docs/firewalls (implied rules, priorities,
targets and sources), .../vpc/docs/serverless-vpc-access (the connector's hidden rule), .../nat/docs.
DigitalOcean: docs.digitalocean.com/products/networking/firewalls (nothing is let in or out that no
rule names, once a firewall applies; without a firewall everything is).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

from localcloud.topology import (
    Connector,
    DropletFirewall,
    DropletRule,
    FirewallRule,
    Place,
    Ports,
    Topology,
    in_range,
)

INTERNET = "internet"  # a process of no machine
IAP = "iap"  # a person's tunnel through Identity-Aware Proxy
IAP_ADDRESS = "35.235.240.1"  # of 35.235.240.0/20, the range IAP's TCP forwarding comes from
_INTERNET_ADDRESS = "203.0.113.1"  # TEST-NET-3: somebody, somewhere
_IMPLIED_PRIORITY = 65535
_CONNECTOR_RULE_PRIORITY = 1000


@dataclass(frozen=True)
class Verdict:
    """The answer, and the rule or the lack of one that it rests on."""

    allowed: bool
    why: str


@dataclass(frozen=True)
class _Journey:
    """A packet after it left: who it claims to be on arrival. `network` is empty on the internet."""

    address: str
    network: str = ""
    tags: frozenset[str] = frozenset()
    account: str = ""
    droplet: str = ""
    connector: str = ""


def allowed(topology: Topology, source: str, destination: str, port: int, protocol: str = "tcp") -> Verdict:
    """Whether `source` may open a connection to `destination`:`port`.

    Source: a machine's name, `INTERNET` or `IAP`. Destination: a machine's name or an address; an
    address of no machine is a host on the internet.
    """
    target = topology.place(destination)
    origin = topology.places.get(source)
    if origin and target and origin.name == target.name:
        return Verdict(True, "within one machine")
    if source == IAP:
        return _through_iap(topology, target, port, protocol)
    address = target.address if target else destination
    left: _Journey | Verdict = _Journey(_INTERNET_ADDRESS)
    if origin:
        left = _leave(topology, origin, target, address, port, protocol)
    if isinstance(left, Verdict):
        return left
    return _arrive(topology, left, target, port, protocol)


def reaches_google(topology: Topology, source: str) -> Verdict:
    """Whether a machine reaches Google's APIs: by Private Google Access, or over the internet."""
    origin = topology.places.get(source)
    if origin is None or origin.kind != "gce":
        return Verdict(True, "Google's APIs are public")
    for subnet in topology.subnets:
        if subnet.name == origin.subnetwork and subnet.private_google_access:
            return Verdict(True, f"subnetwork '{subnet.name}' has Private Google Access")
    return allowed(topology, source, "199.36.153.8", 443)  # private.googleapis.com


def why_offline(topology: Topology, source: str) -> str:
    """Why a machine doesn't reach the internet; empty when it does."""
    verdict = allowed(topology, source, "198.51.100.1", 443)  # RFC 5737: any address that is nobody's here
    return "" if verdict.allowed else verdict.why


def _leave(
    topology: Topology, origin: Place, target: Place | None, address: str, port: int, protocol: str
) -> _Journey | Verdict:
    if origin.kind == "droplet":
        return _leave_droplet(topology, origin, target, address, port, protocol)
    if origin.kind == "gce":
        return _leave_network(topology, origin, origin.address, target, address, port, protocol)
    if origin.kind == "run":
        return _leave_run(topology, origin, target, address, port, protocol)
    return Verdict(False, f"{origin.name} opens no connections")


def _leave_droplet(
    topology: Topology, origin: Place, target: Place | None, address: str, port: int, protocol: str
) -> _Journey | Verdict:
    droplet = origin.name.rpartition("/")[2]
    walls = _walls(topology, origin)
    if walls and not any(
        _rule_matches(rule, address, target, port, protocol) for wall in walls for rule in wall.outbound
    ):
        names = ", ".join(sorted(wall.name for wall in walls))
        return Verdict(False, f"no outbound rule of DigitalOcean firewall {names} allows {protocol}:{port}")
    return _Journey(origin.address, tags=origin.tags, droplet=droplet)


def _leave_run(
    topology: Topology, origin: Place, target: Place | None, address: str, port: int, protocol: str
) -> _Journey | Verdict:
    private = _is_private(topology, target, address)
    if origin.connector:
        connector = next((one for one in topology.connectors if one.name == origin.connector), None)
        if connector is None:
            return Verdict(False, f"connector '{origin.connector}' is not there")
        if private or origin.egress == "ALL_TRAFFIC":
            inside = _connector_place(connector)
            left = _leave_network(topology, inside, inside.address, target, address, port, protocol)
            return left if isinstance(left, Verdict) else replace(left, connector=connector.name)
    elif origin.network and (private or origin.egress == "ALL_TRAFFIC"):
        subnet = next((one for one in topology.subnets if one.name == origin.subnetwork), None)
        own = str(ipaddress.ip_network(subnet.cidr)[2]) if subnet else _INTERNET_ADDRESS
        return _leave_network(topology, origin, own, target, address, port, protocol)
    if private:
        return Verdict(False, f"{origin.name} has no way into a VPC: no connector, no network interface")
    return _Journey(_INTERNET_ADDRESS)  # an address of Google's pool, not the NAT's


def _leave_network(
    topology: Topology,
    origin: Place,
    own_address: str,
    target: Place | None,
    address: str,
    port: int,
    protocol: str,
) -> _Journey | Verdict:
    """Out of a VPC: egress rules, then a route: inside the network, or by NAT to the internet."""
    denied = _denied_by_egress(topology, origin, address, port, protocol)
    if denied:
        return denied
    if _is_private(topology, target, address):
        if target and target.network == origin.network:
            return _Journey(own_address, origin.network, origin.tags, origin.service_account)
        return Verdict(False, f"no route from network '{origin.network}' to {address}")
    if origin.network in topology.networks_without_internet:
        return Verdict(False, f"network '{origin.network}' has no default route")
    if origin.external_address:
        return _Journey(origin.external_address)
    for nat in topology.nats:
        if nat.network == origin.network and (nat.subnets is None or origin.subnetwork in nat.subnets):
            return _Journey(nat.addresses[0])
    return Verdict(
        False, f"{origin.name} has no external address and no Cloud NAT covers '{origin.subnetwork}'"
    )


def _denied_by_egress(
    topology: Topology, origin: Place, address: str, port: int, protocol: str
) -> Verdict | None:
    rules = [
        rule
        for rule in topology.rules
        if rule.direction == "EGRESS"
        and rule.network == origin.network
        and _targets(rule, origin)
        and _port_matches(rule.ports, port, protocol)
        and in_range(address, rule.destination_ranges or ("0.0.0.0/0",))
    ]
    first = _first(rules)
    if first and not first.allow:
        why = f"egress rule '{first.name}' (priority {first.priority}) denies {protocol}:{port}"
        return Verdict(False, why)
    return None


def _arrive(topology: Topology, journey: _Journey, target: Place | None, port: int, protocol: str) -> Verdict:
    if target is None or target.kind == "internet":
        return Verdict(True, "a host on the internet")
    if target.kind == "run":
        return Verdict(True, "Google's front end takes connections from everywhere; ingress and IAM decide")
    if target.kind == "droplet":
        return _into_droplet(topology, journey, target, port, protocol)
    if target.kind == "sql":
        if journey.network and journey.network == target.network:
            if journey.network in topology.service_networks:
                return Verdict(True, f"private service connection of network '{journey.network}'")
            return Verdict(False, f"network '{journey.network}' has no private service connection")
        return Verdict(False, f"{target.name} has a private address only")
    if journey.network != target.network and not target.external_address:
        return Verdict(False, f"{target.name} has no external address")
    return _ingress(topology, journey, target, port, protocol)


def _ingress(topology: Topology, journey: _Journey, target: Place, port: int, protocol: str) -> Verdict:
    rules = [
        rule
        for rule in topology.rules
        if rule.direction == "INGRESS"
        and rule.network == target.network
        and _targets(rule, target)
        and _port_matches(rule.ports, port, protocol)
        and _comes_from(rule, journey)
    ]
    if journey.connector and journey.network == target.network:
        rules.append(_hidden_rule(target.network, journey.connector))
    first = _first(rules)
    if first is None:
        return Verdict(False, f"implied rule (priority {_IMPLIED_PRIORITY}) denies ingress")
    verb = "allows" if first.allow else "denies"
    return Verdict(
        first.allow,
        f"rule '{first.name}' (priority {first.priority}) {verb} {protocol}:{port} from {journey.address}",
    )


def _into_droplet(topology: Topology, journey: _Journey, target: Place, port: int, protocol: str) -> Verdict:
    walls = _walls(topology, target)
    if not walls:
        return Verdict(True, f"no DigitalOcean firewall applies to {target.name}")
    for wall in walls:
        for rule in wall.inbound:
            known = (
                in_range(journey.address, rule.peer_addresses)
                or (journey.droplet and rule.peer_tags & journey.tags)
                or journey.droplet in rule.peer_droplets
            )
            if known and _port_matches(rule.ports, port, protocol):
                return Verdict(True, f"DigitalOcean firewall '{wall.name}' admits {journey.address}")
    names = ", ".join(sorted(wall.name for wall in walls))
    asked = f"{journey.address} to {protocol}:{port}"
    return Verdict(False, f"no inbound rule of DigitalOcean firewall {names} admits {asked}")


def _through_iap(topology: Topology, target: Place | None, port: int, protocol: str) -> Verdict:
    if target is None or target.kind != "gce":
        return Verdict(False, "IAP's tunnels lead to Compute Engine machines only")
    return _ingress(topology, _Journey(IAP_ADDRESS), target, port, protocol)


def _hidden_rule(network: str, connector: str) -> FirewallRule:
    """Google makes it with the connector, shows it nowhere, and it opens every machine of the VPC."""
    return FirewallRule(
        f"hidden rule of connector {connector}", network, True, (("all", 0, 65535),),
        priority=_CONNECTOR_RULE_PRIORITY,
    )  # fmt: skip


def _connector_place(connector: Connector) -> Place:
    """One of the connector's instances, with the network tags Google gives it."""
    return Place(
        f"connector {connector.name}",
        "gce",
        address=str(ipaddress.ip_network(connector.cidr)[2]),
        network=connector.network,
        subnetwork=connector.subnet,
        tags=frozenset({"vpc-connector"}),
    )


def _first(rules: list[FirewallRule]) -> FirewallRule | None:
    """The rule that decides: lowest number first, and at the same number a denial."""
    return min(rules, key=lambda rule: (rule.priority, rule.allow), default=None)


def _targets(rule: FirewallRule, place: Place) -> bool:
    if not rule.target_tags and not rule.target_accounts:
        return True
    return bool(rule.target_tags & place.tags) or place.service_account in rule.target_accounts


def _comes_from(rule: FirewallRule, journey: _Journey) -> bool:
    """Ranges, tags and accounts widen each other; tags and accounts count inside the VPC only."""
    if not rule.source_ranges and not rule.source_tags and not rule.source_accounts:
        return True
    inside = journey.network == rule.network
    return (
        in_range(journey.address, rule.source_ranges)
        or (inside and bool(rule.source_tags & journey.tags))
        or (inside and bool(journey.account) and journey.account in rule.source_accounts)
    )


def _port_matches(ports: Ports, port: int, protocol: str) -> bool:
    return any(name in (protocol, "all") and first <= port <= last for name, first, last in ports)


def _rule_matches(rule: DropletRule, address: str, target: Place | None, port: int, protocol: str) -> bool:
    if not _port_matches(rule.ports, port, protocol):
        return False
    if in_range(address, rule.peer_addresses):
        return True
    return (
        target is not None
        and target.kind == "droplet"
        and (bool(rule.peer_tags & target.tags) or target.name.rpartition("/")[2] in rule.peer_droplets)
    )


def _walls(topology: Topology, place: Place) -> list[DropletFirewall]:
    droplet = place.name.rpartition("/")[2]
    return [wall for wall in topology.droplet_firewalls if wall.tags & place.tags or droplet in wall.droplets]


def _is_private(topology: Topology, target: Place | None, address: str) -> bool:
    if target is not None:
        return target.kind in ("gce", "sql") and address != target.external_address
    return in_range(address, topology.private_ranges)
