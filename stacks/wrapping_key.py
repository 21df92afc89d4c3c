"""The key that the fleet's stored logins are encrypted under: the foundation's, for the service's use.

It must live as long as the database, which may outlive an environment. In the local cloud it is a key file,
elsewhere a key of Cloud KMS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from components.secret import SecretReference
from components.wrapping_key import KmsWrappingKey, KmsWrappingKeyArgs, LocalWrappingKey
from stacks.database import labels
from stacks.settings import Settings

_MISSING = (
    "The foundation stack {} has no wrapping key for the fleet. Set `ibkr:fleet.enabled` to true in its "
    "configuration too, bring it up, then repeat this."
)


@dataclass(frozen=True, slots=True)
class WrappingKey:
    """One of the two: a KMS key's id, or the secret that holds a key file."""

    kms_key: pulumi.Input[str] | None = None
    file: SecretReference | None = None


def declare_wrapping_key(
    settings: Settings, managers: Mapping[str, pulumi.Input[str]], opts: pulumi.ResourceOptions
) -> tuple[WrappingKey, dict[str, Any]]:
    """The key, and the outputs by which an environment in another stack finds it."""
    name = f"{settings.name_prefix}-fleet-key"
    if settings.local:
        file = LocalWrappingKey(name, labels(settings), opts).reference
        return WrappingKey(file=file), {
            "fleet_key_secret": file.secret_id,
            "fleet_key_version": file.version,
        }
    key = KmsWrappingKey(name, KmsWrappingKeyArgs(settings.region, managers, labels(settings)), opts)
    return WrappingKey(kms_key=key.key_id), {"fleet_key": key.key_id}


def referenced_wrapping_key(settings: Settings, stack: pulumi.StackReference) -> WrappingKey:
    """The key that the foundation's stack declares. Where it has none, `up` ends with what to do."""

    def required(output: str) -> pulumi.Output[str]:
        return stack.get_output(output).apply(present)

    def present(value: str | None) -> str:
        if value is None:
            raise pulumi.RunError(_MISSING.format(settings.foundation_stack))
        return value

    if settings.local:
        return WrappingKey(
            file=SecretReference(required("fleet_key_secret"), required("fleet_key_version"), ())
        )
    return WrappingKey(kms_key=required("fleet_key"))
