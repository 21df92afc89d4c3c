"""One declared user's IBeam droplet at DigitalOcean.

What it is (name, size, image, tags, user data) comes from `broker.fleet.spec`, which the service calls too:
one spec, two callers. The credentials reach the machine in its user data, injected by cloud-init, so that
is a secret here and in the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_digitalocean as digitalocean

from broker.fleet.spec import (
    Credentials,
    DropletSettings,
    DropletSpec,
    Environment,
    droplet_spec,
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
    """Whose droplet, and the IBKR login that it gets."""

    fleet: FleetSettings
    user: str
    environment: Environment
    index: int
    credentials: Credentials
    firewall: pulumi.Resource


class IBeamDroplet(pulumi.ComponentResource):
    """The droplet. `droplet_name` is its name at DigitalOcean, and `address` its public one."""

    droplet_name: str
    address: pulumi.Output[str]

    def __init__(self, name: str, args: IBeamDropletArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:ibeam:IBeamDroplet", name, None, opts)
        # All but the user data is known before the NAT's address is, and a preview shows it.
        known = self._spec(args, "192.0.2.1")
        client_ip: pulumi.Output[str] = pulumi.Output.secret(args.fleet.client_ip)
        user_data = client_ip.apply(lambda address: self._spec(args, address).user_data)

        droplet = digitalocean.Droplet(
            f"{name}-droplet",
            name=known.name,
            region=known.region,
            size=known.size,
            image=known.image,
            tags=list(known.tags),
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

        self.droplet_name = known.name
        self.address = droplet.ipv4_address
        self.register_outputs({"address": self.address})

    @staticmethod
    def _spec(args: IBeamDropletArgs, client_ip: str) -> DropletSpec:
        return droplet_spec(
            args.fleet.stack,
            args.user,
            args.environment,
            args.index,
            args.fleet.resolved(client_ip),
            args.credentials,
            "pulumi",
        )
