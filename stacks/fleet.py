"""The IBeam part of an environment: the fleet's firewall, the declared droplets, and the sweep.

Imported only where a stack uses DigitalOcean: its SDK takes over a second to load.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pulumi

from broker.fleet.spec import Credentials, gateway_token
from components.fleet_firewall import FleetFirewall, FleetFirewallArgs
from components.fleet_sweep import FleetSweep, FleetSweepArgs
from components.fleet_tokens import FleetTokens
from components.ibeam_droplet import FleetSettings, IBeamDroplet, IBeamDropletArgs
from stacks.settings import Settings

HTTPS_PORT = 443
GATEWAY_PORT = 5000


@dataclass(frozen=True, slots=True)
class Gateway:
    """How the service reaches the droplet that its default connection trades through."""

    url: pulumi.Output[str]
    token: pulumi.Output[str]


@dataclass(slots=True)
class Droplets:
    """The declared droplets' addresses by name, and what must outlive the service."""

    addresses: dict[str, pulumi.Output[str]] = field(default_factory=dict)
    kept: list[pulumi.Resource] = field(default_factory=list)
    default: Gateway | None = None


def declare_droplets(settings: Settings, nat_ip: pulumi.Output[str]) -> Droplets:
    """Declares the firewall, the droplets, and what removes run-time ones at `destroy`."""
    prefix, ibeam = settings.name_prefix, settings.ibeam
    firewall = FleetFirewall(
        f"{prefix}-{settings.stack}-fleet",
        FleetFirewallArgs(f"stack:{settings.stack}", nat_ip, service_port=_service_port(settings)),
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
    declared = Droplets()
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
        declared.addresses[droplet.droplet_name] = droplet.address
        if settings.broker_type == "ibeam" and user is settings.default_user:
            declared.default = _gateway(droplet, token_key)
    if settings.runs_fleet:
        sweep = FleetSweep(f"{prefix}-fleet-sweep", FleetSweepArgs(settings.stack, firewall.firewall))
        declared.kept.append(sweep.command)
    return declared


def _gateway(droplet: IBeamDroplet, token_key: pulumi.Output[str]) -> Gateway:
    name = droplet.droplet_name
    return Gateway(
        droplet.address.apply(lambda address: f"https://{address}:{GATEWAY_PORT}"),
        pulumi.Output.secret(token_key.apply(lambda key: gateway_token(key, name))),
    )


def _service_port(settings: Settings) -> int:
    """The port at which run-time droplets enrol."""
    url = settings.fleet.service_url if settings.runs_fleet else None
    return (urlsplit(url).port if url else None) or HTTPS_PORT
