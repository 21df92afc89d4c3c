"""One declared user's IBeam droplet at DigitalOcean.

What it is (name, size, image, tags, user data) comes from `broker.fleet.spec`, which the service calls too:
one spec, two callers. The user data is made by itself, since it alone waits for the NAT's address. The
credentials reach the machine in it, injected by cloud-init, so it is a secret here and in the state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pulumi
import pulumi_digitalocean as digitalocean

from broker.fleet.spec import (
    Credentials,
    DropletSettings,
    Environment,
    droplet_name,
    droplet_size,
    droplet_tags,
    droplet_user_data,
    gateway_token,
)


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What all droplets of a stack have in common. `client_ip` is the one address that they admit."""

    stack: str
    client_ip: pulumi.Input[str]
    region: str
    size: str
    demo_size: str
    image: str
    container: str

    def resolved(self, client_ip: str) -> DropletSettings:
        return DropletSettings(
            client_address=client_ip,
            region=self.region,
            size=self.size,
            demo_size=self.demo_size,
            image=self.image,
            ibeam_image=self.container,
        )


@dataclass(frozen=True, slots=True)
class IBeamDropletArgs:
    """Whose droplet, and the IBKR login that it gets. `token_key` is what its gateway token is made from."""

    fleet: FleetSettings
    user: str
    environment: Environment
    index: int
    credentials: Credentials
    token_key: pulumi.Input[str]
    firewall: pulumi.Resource


class IBeamDroplet(pulumi.ComponentResource):
    """The droplet. `droplet_name` is its name at DigitalOcean, and `address` its public one."""

    droplet_name: str
    address: pulumi.Output[str]

    def __init__(self, name: str, args: IBeamDropletArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:ibeam:IBeamDroplet", name, None, opts)
        fleet, who = args.fleet, (args.user, args.environment, args.index)
        # All but the user data is known before the NAT's address is, so that a preview shows it.
        name_there = droplet_name(*who)
        waits_for: pulumi.Output[list[str]] = pulumi.Output.secret(
            pulumi.Output.all(fleet.client_ip, args.token_key)
        )
        user_data = waits_for.apply(
            lambda known: droplet_user_data(
                args.environment,
                fleet.resolved(known[0]),
                replace(args.credentials, gateway_token=gateway_token(known[1], name_there)),
            )
        )

        droplet = digitalocean.Droplet(
            f"{name}-droplet",
            name=name_there,
            region=fleet.region,
            size=droplet_size(args.environment, fleet.resolved("")),
            image=fleet.image,
            tags=list(droplet_tags(fleet.stack, *who, "pulumi")),
            user_data=user_data,  # a secret, since what it is made from is marked as one
            monitoring=True,
            opts=pulumi.ResourceOptions(
                parent=self,
                # The firewall goes by tag: it guards the droplet from its first second.
                depends_on=[args.firewall],
                # Two droplets with one login would take the session from each other.
                delete_before_replace=True,
                additional_secret_outputs=["user_data"],
            ),
        )

        self.droplet_name = name_there
        self.address = droplet.ipv4_address
        self.register_outputs({"address": self.address})
