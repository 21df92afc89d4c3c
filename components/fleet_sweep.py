"""Removes, on `destroy`, the droplets that the service made at run time.

Pulumi doesn't know them, and without this they would be billed for ever. The service depends on this
resource, so it is deleted after the service: nobody makes another droplet meanwhile. The token comes from
the process environment (DIGITALOCEAN_TOKEN), so it isn't in the state, and what is deleted carries both
the stack's tag and `manager:service`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_command as command

_SCRIPT = "python3 components/scripts/fleet_sweep.py"


@dataclass(frozen=True, slots=True)
class FleetSweepArgs:
    """`firewall` guards the droplets, and must go after them."""

    stack: str
    firewall: pulumi.Resource


class FleetSweep(pulumi.ComponentResource):
    """A command that does its work when it is deleted."""

    command: pulumi.Resource

    def __init__(self, name: str, args: FleetSweepArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:ibeam:FleetSweep", name, None, opts)

        sweep = command.local.Command(
            f"{name}-command",
            # Says now, not at `destroy`, that the token is missing.
            create=f"{_SCRIPT} check",
            delete=f"{_SCRIPT} sweep",
            environment={"SWEEP_STACK": args.stack},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[args.firewall]),
        )

        self.command = sweep
        self.register_outputs({})
