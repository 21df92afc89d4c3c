"""The IBeam part of an environment: the fleet's firewall, the declared droplets, and the sweep.

Imported only where a stack uses DigitalOcean: its SDK takes over a second to load.
"""

from __future__ import annotations

import pulumi

from broker.fleet.spec import Credentials
from components.fleet_firewall import FleetFirewall, FleetFirewallArgs
from components.fleet_sweep import FleetSweep, FleetSweepArgs
from components.fleet_tokens import FleetTokens
from components.ibeam_droplet import FleetSettings, IBeamDroplet, IBeamDropletArgs
from stacks.settings import Settings


def declare_fleet(
    settings: Settings, nat_ip: pulumi.Output[str]
) -> tuple[dict[str, pulumi.Output[str]], list[pulumi.Resource]]:
    """Declares the fleet. Returns the droplets' addresses by name, and what must outlive the service."""
    prefix, ibeam = settings.name_prefix, settings.ibeam
    firewall = FleetFirewall(
        f"{prefix}-{settings.stack}-fleet", FleetFirewallArgs(f"stack:{settings.stack}", nat_ip)
    )
    fleet = FleetSettings(
        stack=settings.stack,
        client_ip=nat_ip,
        region=ibeam.region,
        size=ibeam.size,
        demo_size=ibeam.demo_size,
        image=ibeam.image,
        container=ibeam.container,
    )
    token_key = FleetTokens(f"{prefix}-fleet-tokens").key if ibeam.users else None
    droplets = {}
    for user in ibeam.users:
        assert user.username is not None  # stacks.relations: a declared user has a login
        assert user.password is not None
        assert token_key is not None
        droplet = IBeamDroplet(
            user.droplet_name,
            IBeamDropletArgs(
                fleet=fleet,
                user=user.name,
                environment=user.environment,
                index=user.index,
                credentials=Credentials(user.username.get_secret_value(), user.password.get_secret_value()),
                token_key=token_key,
                firewall=firewall.firewall,
            ),
        )
        droplets[droplet.droplet_name] = droplet.address
    kept: list[pulumi.Resource] = []
    if settings.digitalocean_token:
        sweep = FleetSweep(f"{prefix}-fleet-sweep", FleetSweepArgs(settings.stack, firewall.firewall))
        kept.append(sweep.command)
    return droplets, kept
