"""An environment's subnets, its serverless VPC connector, and its one way out.

Cloud Run enters the VPC through the connector, which has a /28 subnet of its own, so that firewall rules
can tell it from everything else. All egress leaves through Cloud NAT with one reserved address: IBKR ends
sessions whose address changes, and the droplets' firewall admits exactly that address. (Google recommends
connector plus NAT over Direct VPC egress where a static address is needed.)

It leaves out who may reach the gateway (`gateway_firewall`) and the VPC itself (`vpc`).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi
import pulumi_gcp as gcp

from components.options import child_options


@dataclass(frozen=True, slots=True)
class NetworkArgs:
    """The ranges must not overlap; `connector_range` is a /28."""

    network_id: pulumi.Input[str]
    region: str
    subnet_range: IPv4Network
    connector_range: IPv4Network
    connector_name: str


class Network(pulumi.ComponentResource):
    """Subnets, connector, router and NAT."""

    subnet_id: pulumi.Output[str]
    connector_id: pulumi.Output[str]
    nat_ip: pulumi.Output[str]
    nat: pulumi.Resource

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:network:Network", name, None, opts)
        child = child_options(self, opts)

        subnet = gcp.compute.Subnetwork(
            f"{name}-subnet",
            name=f"{name}-subnet",
            network=args.network_id,
            region=args.region,
            ip_cidr_range=str(args.subnet_range),
            private_ip_google_access=True,
            opts=child,
        )
        connector_subnet = gcp.compute.Subnetwork(
            f"{name}-connector-subnet",
            name=f"{name}-connector-subnet",
            network=args.network_id,
            region=args.region,
            ip_cidr_range=str(args.connector_range),
            private_ip_google_access=True,
            opts=child,
        )
        connector = gcp.vpcaccess.Connector(
            f"{name}-connector",
            name=args.connector_name,
            region=args.region,
            subnet=gcp.vpcaccess.ConnectorSubnetArgs(name=connector_subnet.name),
            # The smallest that Google offers, about 14 dollars a month; a broker's traffic is small.
            machine_type="e2-micro",
            min_instances=2,
            max_instances=3,
            opts=child,
        )
        nat_address = gcp.compute.Address(
            f"{name}-nat-address",
            name=f"{name}-nat",
            region=args.region,
            address_type="EXTERNAL",
            opts=child,
        )
        router = gcp.compute.Router(
            f"{name}-router",
            name=f"{name}-router",
            network=args.network_id,
            region=args.region,
            opts=child,
        )
        nat = gcp.compute.RouterNat(
            f"{name}-nat",
            name=f"{name}-nat",
            router=router.name,
            region=args.region,
            nat_ip_allocate_option="MANUAL_ONLY",
            nat_ips=[nat_address.self_link],
            source_subnetwork_ip_ranges_to_nat="LIST_OF_SUBNETWORKS",
            subnetworks=[
                gcp.compute.RouterNatSubnetworkArgs(name=part.id, source_ip_ranges_to_nats=["ALL_IP_RANGES"])
                for part in (subnet, connector_subnet)
            ],
            log_config=gcp.compute.RouterNatLogConfigArgs(enable=True, filter="ERRORS_ONLY"),
            opts=child,
        )

        self.subnet_id = subnet.id
        self.connector_id = connector.id
        self.nat_ip = nat_address.address
        self.nat = nat
        self.register_outputs({"nat_ip": self.nat_ip})
