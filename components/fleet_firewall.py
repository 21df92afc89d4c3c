"""The DigitalOcean firewall around a stack's IBeam droplets, declared ones and those made at run time.

It is attached by the stack's tag: a firewall lists at most ten droplets by id, and the ones that the
service makes aren't known here. Only the NAT's address may reach the gateway's port; there is no SSH. A
firewall without outbound rules denies all egress, so what a droplet needs is listed.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as digitalocean

from components.options import child_options

EVERYWHERE = ["0.0.0.0/0", "::/0"]
# What a droplet reaches, by protocol and port: packages, container image and IBKR's web gateway over HTTP(S),
# IBKR's own ports, names, and the time, without which TLS fails.
EGRESS = (("tcp", "80"), ("tcp", "443"), ("tcp", "4000-4001"), ("tcp", "53"), ("udp", "53"), ("udp", "123"))


@dataclass(frozen=True, slots=True)
class FleetFirewallArgs:
    """`stack_tag` is on every droplet of the stack; `client_ip` is the one address that may connect.

    `service_port` is where droplets find the service, to enrol.
    """

    stack_tag: str
    client_ip: pulumi.Input[str]
    port: int = 5000
    service_port: int = 443


class FleetFirewall(pulumi.ComponentResource):
    """The stack's tag and its firewall."""

    tag_name: pulumi.Output[str]
    firewall: pulumi.Resource

    def __init__(
        self, name: str, args: FleetFirewallArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ibkr:ibeam:FleetFirewall", name, None, opts)
        child = child_options(self, opts)

        own = ("tcp", str(args.service_port))
        tag = digitalocean.Tag(f"{name}-tag", name=args.stack_tag, opts=child)
        firewall = digitalocean.Firewall(
            f"{name}-firewall",
            name=name,
            tags=[tag.name],
            inbound_rules=[
                digitalocean.FirewallInboundRuleArgs(
                    protocol="tcp",
                    port_range=str(args.port),
                    source_addresses=[pulumi.Output.from_input(args.client_ip).apply(single_address)],
                )
            ],
            outbound_rules=[
                digitalocean.FirewallOutboundRuleArgs(
                    protocol=protocol, port_range=ports, destination_addresses=EVERYWHERE
                )
                for protocol, ports in (EGRESS if own in EGRESS else (*EGRESS, own))
            ],
            opts=child,
        )

        self.tag_name = tag.name
        self.firewall = firewall
        self.register_outputs({})


def single_address(address: str) -> str:
    """An address as the range that holds it alone."""
    return f"{address}/32"
