"""The people who may reach the gateway VM: a tunnel through IAP, and a login by OS Login.

Two grants that are easily mixed up: the *tunnel* lets a person's connection through to the machine, *OS
Login* lets them in as a user. A login also needs the right to act as the machine's service account, since
who is on the machine can get its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.options import child_options


@dataclass(frozen=True, slots=True)
class OperatorAccessArgs:
    """`member` is an IAM member: "user:ann@example.com"."""

    member: str
    instance_name: pulumi.Input[str]
    zone: str
    service_account_name: pulumi.Input[str]


class OperatorAccess(pulumi.ComponentResource):
    """One operator's grants on the gateway VM."""

    def __init__(
        self, name: str, args: OperatorAccessArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ibkr:gateway:OperatorAccess", name, None, opts)
        child = child_options(self, opts)

        gcp.iap.TunnelInstanceIAMMember(
            f"{name}-tunnel",
            instance=args.instance_name,
            zone=args.zone,
            role="roles/iap.tunnelResourceAccessor",
            member=args.member,
            opts=child,
        )
        gcp.compute.InstanceIAMMember(
            f"{name}-login",
            instance_name=args.instance_name,
            zone=args.zone,
            role="roles/compute.osLogin",
            member=args.member,
            opts=child,
        )
        gcp.serviceaccount.IAMMember(
            f"{name}-act-as",
            service_account_id=args.service_account_name,
            role="roles/iam.serviceAccountUser",
            member=args.member,
            opts=child,
        )
        self.register_outputs({})
