"""An environment's one way out: Cloud NAT with one reserved address.

IBKR ends sessions whose address changes, and the droplets' firewall admits exactly this address. (Google
recommends connector plus NAT over Direct VPC egress where a static address is needed.) Address and NAT
cost about 5 dollars a month.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.options import child_options


@dataclass(frozen=True, slots=True)
class EgressArgs:
    """`subnet_ids` are the subnets that may leave; no other one of the VPC can."""

    network_id: pulumi.Input[str]
    region: str
    subnet_ids: Sequence[pulumi.Input[str]]


class Egress(pulumi.ComponentResource):
    """The address, the router and its NAT. What needs the internet waits for `nat`."""

    ip: pulumi.Output[str]
    nat: pulumi.Resource

    def __init__(self, name: str, args: EgressArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:network:Egress", name, None, opts)
        child = child_options(self, opts)

        address = gcp.compute.Address(
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
            nat_ips=[address.self_link],
            source_subnetwork_ip_ranges_to_nat="LIST_OF_SUBNETWORKS",
            subnetworks=[
                gcp.compute.RouterNatSubnetworkArgs(name=subnet, source_ip_ranges_to_nats=["ALL_IP_RANGES"])
                for subnet in args.subnet_ids
            ],
            log_config=gcp.compute.RouterNatLogConfigArgs(enable=True, filter="ERRORS_ONLY"),
            opts=child,
        )

        self.ip = address.address
        self.nat = nat
        self.register_outputs({"ip": self.ip})
