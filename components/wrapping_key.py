"""The key that wraps the keys of the users' IBKR logins in the database (broker.fleet.vault).

In a Google project it is a key of Cloud KMS, which never leaves it. Google deletes neither a key ring nor a
key's name, so both names are left to Pulumi, which adds a random suffix: `up` after a `destroy` makes another
key, and isn't refused. Both are protected all the same: who loses the key loses every stored login.

In the stack `local` it is a file: a key made once by a command, kept in the state as a secret, and read by
the service from a secret that Cloud Run mounts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_command as command
import pulumi_gcp as gcp

from components.options import child_options
from components.secret import Secret, SecretArgs, SecretReference

# One line as broker.fleet.vault.LocalKeyWrapper reads it: a name, and 256 random bits.
_MAKE = (
    "python3 -c 'import base64, secrets; "
    'print("k" + secrets.token_hex(4) + ":" + base64.b64encode(secrets.token_bytes(32)).decode())\''
)


@dataclass(frozen=True, slots=True)
class KmsWrappingKeyArgs:
    """`managers` maps a role ("deploy") to the IAM member that may say who uses the key."""

    location: str
    managers: Mapping[str, pulumi.Input[str]]
    labels: Mapping[str, str]


class KmsWrappingKey(pulumi.ComponentResource):
    """A key ring with one key. `key_id` is projects/P/locations/L/keyRings/R/cryptoKeys/K."""

    key_id: pulumi.Output[str]

    def __init__(
        self, name: str, args: KmsWrappingKeyArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ibkr:foundation:KmsWrappingKey", name, None, opts)
        child = child_options(self, opts)
        kept = child.merge(pulumi.ResourceOptions(protect=True))

        ring = gcp.kms.KeyRing(f"{name}-ring", location=args.location, opts=kept)
        key = gcp.kms.CryptoKey(
            f"{name}-key",
            key_ring=ring.id,
            purpose="ENCRYPT_DECRYPT",
            rotation_period="7776000s",  # 90 days; older versions still decrypt
            labels=args.labels,
            opts=kept,
        )
        for role, member in args.managers.items():
            gcp.kms.CryptoKeyIAMMember(
                f"{name}-{role}-manage",
                crypto_key_id=key.id,
                role="roles/cloudkms.admin",
                member=member,
                opts=child,
            )

        self.key_id = key.id
        self.register_outputs({"key_id": self.key_id})


def grant_use(
    name: str, key_id: pulumi.Input[str], member: pulumi.Input[str], opts: pulumi.ResourceOptions
) -> list[pulumi.Resource]:
    """Lets one member wrap and unwrap with a key, and see which version is the current one."""
    return [
        gcp.kms.CryptoKeyIAMMember(
            f"{name}-{purpose}", crypto_key_id=key_id, role=f"roles/{role}", member=member, opts=opts
        )
        for purpose, role in (("use", "cloudkms.cryptoKeyEncrypterDecrypter"), ("view", "cloudkms.viewer"))
    ]


class LocalWrappingKey(pulumi.ComponentResource):
    """A key in a secret. Whoever reads it belongs to the environment, which grants itself access."""

    reference: SecretReference

    def __init__(
        self, name: str, labels: Mapping[str, str], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ibkr:foundation:LocalWrappingKey", name, None, opts)
        child = child_options(self, opts)

        made = command.local.Command(
            f"{name}-command",
            create=_MAKE,
            logging=command.local.Logging.NONE,
            opts=child.merge(pulumi.ResourceOptions(additional_secret_outputs=["stdout"])),
        )
        secret = Secret(name, SecretArgs(pulumi.Output.secret(made.stdout), {}, labels), child)

        self.reference = secret.reference
        self.register_outputs({})
