"""One secret, its current value, and one grant per reader.

A grant on the secret lets its reader read this secret and no other; a role on the project would open all
of them. Who uses the secret pins `version`: environment variables resolve when an instance starts, and a
pinned version makes a new value a rollout that can be seen and rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.options import child_options


@dataclass(frozen=True, slots=True)
class SecretArgs:
    """`readers` maps a role ("api", "gateway") to the IAM member that may read the value."""

    value: pulumi.Input[str]
    readers: Mapping[str, pulumi.Input[str]]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SecretReference:
    """How a workload names a secret. `ready` is what must exist before it can read it."""

    secret_id: pulumi.Input[str]
    version: pulumi.Input[str]
    ready: Sequence[pulumi.Resource]


class Secret(pulumi.ComponentResource):
    """A Secret Manager secret with a value."""

    reference: SecretReference
    version_name: pulumi.Output[str]

    def __init__(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:secrets:Secret", name, None, opts)
        child = child_options(self, opts)

        secret = gcp.secretmanager.Secret(
            f"{name}-secret",
            secret_id=name,
            replication=gcp.secretmanager.SecretReplicationArgs(
                auto=gcp.secretmanager.SecretReplicationAutoArgs()
            ),
            labels=args.labels,
            opts=child,
        )
        version = gcp.secretmanager.SecretVersion(
            f"{name}-version",
            secret=secret.id,
            secret_data=pulumi.Output.secret(args.value),
            opts=child,
        )
        grants = [
            grant_access(f"{name}-{role}", secret.id, member, child) for role, member in args.readers.items()
        ]

        self.reference = SecretReference(secret.secret_id, version.version, (version, *grants))
        self.version_name = version.name
        self.register_outputs({"version": version.name})


def grant_access(
    name: str, secret_id: pulumi.Input[str], member: pulumi.Input[str], opts: pulumi.ResourceOptions
) -> pulumi.Resource:
    """Lets one member read one secret."""
    return gcp.secretmanager.SecretIamMember(
        f"{name}-access",
        secret_id=secret_id,
        role="roles/secretmanager.secretAccessor",
        member=member,
        opts=opts,
    )
