"""What is declared about the network, as plain values: the argument of `network.allowed`.

`read` takes it from the store and the machines; the values themselves know nothing of either.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.state import Resource

IBKR = "internet/ibkr"  # "IBKR's servers": a host on the internet that the local cloud plays
Ports = tuple[tuple[str, int, int], ...]  # protocol ("tcp", "all" ...), first, last


@dataclass(frozen=True)
class Place:
    """A machine as the network sees it. `network` is empty for what is in no VPC."""

    name: str
    kind: str  # gce, droplet, run, sql, or internet for a host outside
    address: str = ""
    network: str = ""
    subnetwork: str = ""
    tags: frozenset[str] = frozenset()
    service_account: str = ""
    external_address: str = ""
    connector: str = ""  # Cloud Run: the serverless connector it leaves through
    egress: str = "PRIVATE_RANGES_ONLY"


@dataclass(frozen=True)
class FirewallRule:
    """One Compute Engine firewall rule; it either allows or denies."""

    name: str
    network: str
    allow: bool
    ports: Ports
    direction: str = "INGRESS"
    priority: int = 1000
    source_ranges: tuple[str, ...] = ()
    source_tags: frozenset[str] = frozenset()
    source_accounts: frozenset[str] = frozenset()
    destination_ranges: tuple[str, ...] = ()
    target_tags: frozenset[str] = frozenset()
    target_accounts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Subnet:
    """A subnetwork and its primary range."""

    name: str
    network: str
    cidr: str
    private_google_access: bool = False


@dataclass(frozen=True)
class Nat:
    """A Cloud NAT. `subnets` None means every subnetwork of the network."""

    name: str
    network: str
    addresses: tuple[str, ...]
    subnets: frozenset[str] | None = None


@dataclass(frozen=True)
class Connector:
    """A serverless VPC connector: its instances have addresses of `cidr`."""

    name: str
    network: str
    cidr: str
    subnet: str = ""


@dataclass(frozen=True)
class DropletRule:
    """A rule of a DigitalOcean firewall: `peers` are sources or destinations."""

    ports: Ports
    peer_addresses: tuple[str, ...] = ()
    peer_tags: frozenset[str] = frozenset()
    peer_droplets: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DropletFirewall:
    """A DigitalOcean firewall, applied to droplets by tag or id."""

    name: str
    tags: frozenset[str]
    droplets: frozenset[str]
    inbound: tuple[DropletRule, ...]
    outbound: tuple[DropletRule, ...]


@dataclass(frozen=True)
class Topology:
    """Everything that decides who reaches whom."""

    places: Mapping[str, Place] = field(default_factory=dict)
    rules: tuple[FirewallRule, ...] = ()
    subnets: tuple[Subnet, ...] = ()
    nats: tuple[Nat, ...] = ()
    connectors: tuple[Connector, ...] = ()
    droplet_firewalls: tuple[DropletFirewall, ...] = ()
    # Networks whose default route to the internet was removed, and networks peered with Google's
    # services (private Cloud SQL addresses are reached through that peering only).
    networks_without_internet: frozenset[str] = frozenset()
    service_networks: frozenset[str] = frozenset()
    private_ranges: tuple[str, ...] = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")

    def place(self, name_or_address: str) -> Place | None:
        """The machine of that name or address; None for what is outside of the cloud."""
        found = self.places.get(name_or_address)
        if found:
            return found
        for place in self.places.values():
            if name_or_address in (place.address, place.external_address) and name_or_address:
                return place
        return None


def short(reference: Any) -> str:
    """The name at the end of a self link, a resource id, or the name itself."""
    return str(reference or "").rstrip("/").rsplit("/", 1)[-1]


def in_range(address: str, ranges: Iterable[str]) -> bool:
    """Whether an address lies in one of these ranges (single addresses count as ranges)."""
    number = ipaddress.ip_address(address)
    for text in ranges:
        network = ipaddress.ip_network(text, strict=False)
        if network.version == number.version and number in network:
            return True
    return False


def read(cloud: Cloud) -> Topology:
    """The topology as it is declared at this moment."""
    store = cloud.store
    networks = store.all("gcp:compute/network:Network")
    return Topology(
        places=_places(cloud),
        rules=tuple(
            _firewall(rule)
            for rule in store.all("gcp:compute/firewall:Firewall")
            if not rule.inputs.get("disabled")
        ),
        subnets=tuple(
            Subnet(
                short(found.inputs.get("name") or found.id),
                short(found.inputs.get("network")),
                found.inputs["ipCidrRange"],
                bool(found.inputs.get("privateIpGoogleAccess")),
            )
            for found in store.all("gcp:compute/subnetwork:Subnetwork")
        ),
        nats=_nats(cloud),
        connectors=_connectors(cloud),
        droplet_firewalls=tuple(
            _droplet_firewall(found) for found in store.all("digitalocean:index/firewall:Firewall")
        ),
        networks_without_internet=frozenset(
            short(found.inputs.get("name") or found.id)
            for found in networks
            if found.inputs.get("deleteDefaultRoutesOnCreate")
        ),
        service_networks=frozenset(
            short(found.inputs.get("network"))
            for found in store.all("gcp:servicenetworking/connection:Connection")
        ),
        private_ranges=(*Topology.private_ranges, f"{cloud.settings.network}.0.0/17"),
    )


def _places(cloud: Cloud) -> dict[str, Place]:
    store = cloud.store
    instances = {
        short(found.inputs.get("name") or found.id): found
        for found in store.all("gcp:compute/instance:Instance")
    }
    places = {}
    for name, noted in cloud.machines.specifications().items():
        kind, spec = noted["kind"], noted["spec"]
        if kind == "gce":
            places[name] = _instance(name, spec, instances.get(short(name)))
        elif kind == "droplet":
            declared = store.get("digitalocean:index/droplet:Droplet", short(name))
            tags = (declared.inputs if declared else spec).get("tags") or spec.get("tags")
            places[name] = Place(name, kind, spec.get("address", ""), tags=frozenset(tags or ()))
        elif kind == "sql":
            places[name] = Place(name, kind, spec.get("address", ""), network=short(spec.get("network")))
        elif kind == "run":
            places[name] = run_place(name, spec.get("vpc_access") or {}, spec.get("service_account", ""))
    for service, note in store.notes("run.services").items():
        name = f"run/{service}"
        place = run_place(name, note.get("vpc_access") or {}, note.get("service_account", ""))
        places[name] = Place(**{**vars(place), "address": note.get("address", "")})
    for execution, note in store.notes("run.executions").items():
        name = f"job/{execution}"
        places[name] = run_place(name, note.get("vpc_access") or {}, note.get("service_account", ""))
    exchange = cloud.settings.exchange_address.partition(":")[0]
    places[IBKR] = Place(IBKR, "internet", exchange)
    return places


def run_place(name: str, vpc_access: Mapping[str, Any], service_account: str) -> Place:
    """A Cloud Run instance or job. With a network interface it sits in the VPC directly."""
    interface = (vpc_access.get("networkInterfaces") or [{}])[0]
    return Place(
        name,
        "run",
        network=short(interface.get("network")),
        subnetwork=short(interface.get("subnetwork")),
        tags=frozenset(interface.get("tags") or ()),
        service_account=service_account,
        connector=short(vpc_access.get("connector")),
        egress=vpc_access.get("egress") or "PRIVATE_RANGES_ONLY",
    )


def _instance(name: str, spec: Mapping[str, Any], declared: Resource | None) -> Place:
    inputs = declared.inputs if declared else {}
    account = inputs.get("serviceAccount") or {}
    interface = (inputs.get("networkInterfaces") or [{}])[0]
    outside = (interface.get("accessConfigs") or [{}])[0]
    return Place(
        name,
        "gce",
        address=spec.get("address", ""),
        network=short(interface.get("network") or spec.get("network")),
        subnetwork=short(interface.get("subnetwork") or spec.get("subnetwork")),
        tags=frozenset((inputs.get("tags") if declared else spec.get("tags")) or ()),
        service_account=account.get("email") or spec.get("service_account") or "",
        external_address=outside.get("natIp") or spec.get("external_address") or "",
    )


def _firewall(found: Resource) -> FirewallRule:
    inputs = found.inputs
    parts = inputs.get("allows") or inputs.get("denies") or []
    return FirewallRule(
        name=short(inputs.get("name") or found.id),
        network=short(inputs.get("network")),
        allow=bool(inputs.get("allows")),
        ports=tuple(
            port for part in parts for port in _ports(part.get("protocol"), part.get("ports") or ["0-65535"])
        ),
        direction=inputs.get("direction") or "INGRESS",
        priority=int(inputs.get("priority", 1000)),
        source_ranges=tuple(inputs.get("sourceRanges") or ()),
        source_tags=frozenset(inputs.get("sourceTags") or ()),
        source_accounts=frozenset(inputs.get("sourceServiceAccounts") or ()),
        destination_ranges=tuple(inputs.get("destinationRanges") or ()),
        target_tags=frozenset(inputs.get("targetTags") or ()),
        target_accounts=frozenset(inputs.get("targetServiceAccounts") or ()),
    )


def _ports(protocol: Any, ranges: Iterable[Any]) -> Ports:
    """Port ranges as both clouds write them: "4001", "4001-4002", "all" and "0" for every port."""
    name = {"6": "tcp", "17": "udp"}.get(str(protocol).lower(), str(protocol).lower())
    found = []
    for text in ranges:
        first, _, last = str(text).partition("-")
        if first in ("all", "0", "") and not last:
            first, last = "0", "65535"
        found.append((name, int(first), int(last or first)))
    return tuple(found)


def _nats(cloud: Cloud) -> tuple[Nat, ...]:
    store = cloud.store
    routers = {
        short(found.inputs.get("name") or found.id): short(found.inputs.get("network"))
        for found in store.all("gcp:compute/router:Router")
    }
    reserved = {
        short(found.inputs.get("name") or found.id): found.outputs.get("address")
        or found.inputs.get("address", "")
        for found in store.all("gcp:compute/address:Address")
    }
    nats = []
    for found in store.all("gcp:compute/routerNat:RouterNat"):
        name = short(found.inputs.get("name") or found.id)
        declared = [reserved.get(short(link), short(link)) for link in found.inputs.get("natIps") or []]
        addresses = declared or [cloud.addresses.allocate_public(f"nat/{name}")]
        listed = found.inputs.get("sourceSubnetworkIpRangesToNat") == "LIST_OF_SUBNETWORKS"
        subnets = frozenset(short(part.get("name")) for part in found.inputs.get("subnetworks") or [])
        network = routers.get(short(found.inputs.get("router")), "")
        nats.append(Nat(name, network, tuple(addresses), subnets if listed else None))
    return tuple(nats)


def _connectors(cloud: Cloud) -> tuple[Connector, ...]:
    subnets = {
        short(found.inputs.get("name") or found.id): found.inputs
        for found in cloud.store.all("gcp:compute/subnetwork:Subnetwork")
    }
    connectors = []
    for found in cloud.store.all("gcp:vpcaccess/connector:Connector"):
        inputs = found.inputs
        subnet = short((inputs.get("subnet") or {}).get("name"))
        own = subnets.get(subnet, {})
        cidr = inputs.get("ipCidrRange") or own.get("ipCidrRange")
        if cidr:
            network = short(inputs.get("network") or own.get("network"))
            connectors.append(Connector(short(inputs.get("name") or found.id), network, cidr, subnet))
    return tuple(connectors)


def _droplet_firewall(found: Resource) -> DropletFirewall:
    def rules(listed: Any, peers: str) -> tuple[DropletRule, ...]:
        return tuple(
            DropletRule(
                ports=_ports(rule.get("protocol"), [rule.get("portRange") or "all"]),
                peer_addresses=tuple(rule.get(f"{peers}Addresses") or ()),
                peer_tags=frozenset(rule.get(f"{peers}Tags") or ()),
                peer_droplets=frozenset(str(int(one)) for one in rule.get(f"{peers}DropletIds") or ()),
            )
            for rule in listed or []
        )

    return DropletFirewall(
        name=str(found.inputs.get("name") or found.id),
        tags=frozenset(found.inputs.get("tags") or ()),
        droplets=frozenset(str(int(one)) for one in found.inputs.get("dropletIds") or ()),
        inbound=rules(found.inputs.get("inboundRules"), "source"),
        outbound=rules(found.inputs.get("outboundRules"), "destination"),
    )
