"""The VPC and its private service access: what Cloud SQL's private addresses come from.

It owns the network itself and the peering with Google's services. It deliberately leaves out subnets,
routes and firewall rules, which belong to an environment (`network`, `gateway_firewall`): a peering can
outlive the database that used it and then blocks the deletion of its network for days, so both live in
the foundation.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi
import pulumi_gcp as gcp

from components.options import child_options


@dataclass(frozen=True, slots=True)
class VpcArgs:
    """`private_services_range` is kept for Google's services and must overlap no subnet."""

    private_services_range: IPv4Network


class Vpc(pulumi.ComponentResource):
    """A VPC without default subnets, peered with Google's service network."""

    network_id: pulumi.Output[str]
    peering: pulumi.Resource

    def __init__(self, name: str, args: VpcArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:network:Vpc", name, None, opts)
        child = child_options(self, opts)

        network = gcp.compute.Network(
            f"{name}-network",
            name=name,
            auto_create_subnetworks=False,
            routing_mode="REGIONAL",
            opts=child,
        )
        services_range = gcp.compute.GlobalAddress(
            f"{name}-services-range",
            name=f"{name}-services",
            purpose="VPC_PEERING",
            address_type="INTERNAL",
            address=str(args.private_services_range.network_address),
            prefix_length=args.private_services_range.prefixlen,
            network=network.id,
            opts=child,
        )
        peering = gcp.servicenetworking.Connection(
            f"{name}-services-peering",
            network=network.id,
            service="servicenetworking.googleapis.com",
            reserved_peering_ranges=[services_range.name],
            # A peering that an earlier deletion left behind is taken over instead of refused.
            update_on_creation_fail=True,
            opts=child,
        )

        self.network_id = network.id
        self.peering = peering
        self.register_outputs({"network_id": self.network_id})
