"""The key that encrypts the secrets in the environments' Pulumi state.

It lies in a multi-region: with the region of the rest lost, the stacks' secrets can still be read
(docs/runbooks.md). Google never deletes a key ring, and a destroyed key can't be made again under its name,
so both are protected here: to lose this key is to lose the stacks' secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.options import child_options


@dataclass(frozen=True, slots=True)
class StateKeyArgs:
    """`users` maps a role ("deploy") to the IAM member that may encrypt and decrypt."""

    location: str
    users: Mapping[str, pulumi.Input[str]]
    labels: Mapping[str, str]


class StateKey(pulumi.ComponentResource):
    """A key ring with one key. `url` is what `pulumi stack init --secrets-provider` takes."""

    url: pulumi.Output[str]

    def __init__(self, name: str, args: StateKeyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:foundation:StateKey", name, None, opts)
        child = child_options(self, opts)
        kept = child.merge(pulumi.ResourceOptions(protect=True))

        ring = gcp.kms.KeyRing(f"{name}-ring", name=name, location=args.location, opts=kept)
        key = gcp.kms.CryptoKey(
            f"{name}-key",
            name="pulumi-state",
            key_ring=ring.id,
            purpose="ENCRYPT_DECRYPT",
            rotation_period="7776000s",  # 90 days; older versions still decrypt
            labels=args.labels,
            opts=kept,
        )
        for role, member in args.users.items():
            gcp.kms.CryptoKeyIAMMember(
                f"{name}-{role}-use",
                crypto_key_id=key.id,
                role="roles/cloudkms.cryptoKeyEncrypterDecrypter",
                member=member,
                opts=child,
            )

        self.url = key.id.apply(secrets_provider)
        self.register_outputs({"url": self.url})


def secrets_provider(key_id: str) -> str:
    """A key's id as Pulumi names a secrets provider."""
    return f"gcpkms://{key_id}"
