"""The key that the declared droplets' gateway tokens are made from: 256 random bits a stack.

Made once, by a command, and kept in the state as a secret, so that it is the same at every `up`. A token for
each droplet comes of it (broker.fleet.spec.gateway_token); a droplet learns the hash of its own only.
"""

from __future__ import annotations

import pulumi
import pulumi_command as command


class FleetTokens(pulumi.ComponentResource):
    """`key`: a secret of 64 hexadecimal digits."""

    key: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:ibeam:FleetTokens", name, None, opts)

        made = command.local.Command(
            f"{name}-command",
            create="python3 -c 'import secrets; print(secrets.token_hex(32))'",
            logging=command.local.Logging.NONE,
            opts=pulumi.ResourceOptions(parent=self, additional_secret_outputs=["stdout"]),
        )

        self.key = pulumi.Output.secret(made.stdout)
        self.register_outputs({})
