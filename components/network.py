"""An environment's subnets and its serverless VPC connector.

Cloud Run enters the VPC through the connector, which has a /28 subnet of its own, so that firewall rules
can tell it from everything else.

It leaves out the way to the internet (`egress`), who may reach the gateway (`gateway_firewall`), and the
VPC itself (`vpc`).
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
    """The machines' subnet, and the connector with its own. `subnet_ids` are both."""

    subnet_id: pulumi.Output[str]
    connector_id: pulumi.Output[str]
    subnet_ids: tuple[pulumi.Output[str], ...]

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

        self.subnet_id = subnet.id
        self.connector_id = connector.id
        self.subnet_ids = (subnet.id, connector_subnet.id)
        self.register_outputs({"connector_id": self.connector_id})
