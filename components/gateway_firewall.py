"""Who reaches the gateway VM: the service on the API port, and people through IAP. Nobody else.

Google lets a connector reach everything in its VPC by a hidden rule at priority 1000. So the API port is
allowed at 900, and all else from the connector is denied at 950, to every machine of the VPC. (The
migration plan's `--source-ranges=10.0.0.0/8` would admit every internal subnet.) Whatever no rule allows
is denied by the VPC itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi
import pulumi_gcp as gcp

from components.options import child_options

# What Identity-Aware Proxy's TCP forwarding comes from (cloud.google.com/iap/docs/using-tcp-forwarding).
IAP_RANGE = "35.235.240.0/20"


@dataclass(frozen=True, slots=True)
class GatewayFirewallArgs:
    """`tag` is the gateway VM's network tag, `api_ports` what it serves."""

    network_id: pulumi.Input[str]
    tag: str
    api_ports: Sequence[int]
    connector_range: IPv4Network
    allow_connector: bool = True
    deny_connector: bool = True


class GatewayFirewall(pulumi.ComponentResource):
    """The firewall rules around the gateway VM."""

    def __init__(
        self, name: str, args: GatewayFirewallArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ibkr:network:GatewayFirewall", name, None, opts)
        child = child_options(self, opts)
        ports = [str(port) for port in args.api_ports]

        if args.allow_connector:
            gcp.compute.Firewall(
                f"{name}-allow-connector",
                name=f"{name}-allow-connector",
                description="The API service, through its connector, to the gateway's API.",
                network=args.network_id,
                direction="INGRESS",
                priority=900,
                source_ranges=[str(args.connector_range)],
                target_tags=[args.tag],
                allows=[gcp.compute.FirewallAllowArgs(protocol="tcp", ports=ports)],
                opts=child,
            )
        if args.deny_connector:
            gcp.compute.Firewall(
                f"{name}-deny-connector",
                name=f"{name}-deny-connector",
                description="Everything else from the connector, before Google's hidden allow at 1000.",
                network=args.network_id,
                direction="INGRESS",
                priority=950,
                source_ranges=[str(args.connector_range)],
                denies=[gcp.compute.FirewallDenyArgs(protocol="all")],
                log_config=gcp.compute.FirewallLogConfigArgs(metadata="EXCLUDE_ALL_METADATA"),
                opts=child,
            )
        gcp.compute.Firewall(
            f"{name}-allow-iap",
            name=f"{name}-allow-iap",
            description="People, through Identity-Aware Proxy: SSH, and a tunnel to the gateway's API.",
            network=args.network_id,
            direction="INGRESS",
            priority=900,
            source_ranges=[IAP_RANGE],
            target_tags=[args.tag],
            allows=[gcp.compute.FirewallAllowArgs(protocol="tcp", ports=["22", *ports])],
            opts=child,
        )
        self.register_outputs({})
