"""What outlives environments: the VPC and its peering, the registry, keys, CI identity, a kept database.

The stack `local` declares this beside its environment; elsewhere it is a stack of its own, which the
environment reads by a StackReference. `Foundation` is what is read, either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

from components.project_services import ProjectServices
from components.registry import Registry, RegistryArgs
from components.secret import SecretReference
from components.turns import engine_turn
from components.vpc import Vpc, VpcArgs
from stacks.database import declare_database, labels
from stacks.settings import Settings
from stacks.wrapping_key import WrappingKey, declare_wrapping_key, referenced_wrapping_key


@dataclass(frozen=True, slots=True)
class Foundation:
    """What an environment reads of its foundation. `peering` is None where another stack declares it."""

    network_id: pulumi.Input[str]
    database_url: SecretReference | None
    database_instance: pulumi.Input[str] | None
    peering: pulumi.Resource | None = None
    wrapping_key: WrappingKey | None = None
    enabled: Mapping[str, pulumi.Resource] = field(default_factory=dict)

    def after(self, *apis: str) -> pulumi.ResourceOptions:
        """Options that wait for Google's APIs to be on, where this program switches them on."""
        return waiting(self.enabled, *apis)


def waiting(enabled: Mapping[str, pulumi.Resource], *apis: str) -> pulumi.ResourceOptions:
    """Options that wait for some of the APIs."""
    return pulumi.ResourceOptions(depends_on=[enabled[api] for api in apis if api in enabled])


async def declare(settings: Settings) -> tuple[Foundation, dict[str, Any]]:
    """Declares the foundation; returns what environments read of it, and the stack's outputs."""
    prefix = settings.name_prefix
    enabled = ProjectServices(
        f"{prefix}-services", ["billingbudgets"] if settings.budget.billing_account else []
    ).enabled
    await engine_turn()
    vpc = Vpc(
        settings.network_name,
        VpcArgs(settings.network.private_services_range),
        waiting(enabled, "compute", "servicenetworking"),
    )
    await engine_turn()
    registry = Registry(
        prefix,
        RegistryArgs(settings.region, labels(settings), settings.registry_readers),
        waiting(enabled, "artifactregistry"),
    )
    outputs: dict[str, Any] = {"network_id": vpc.network_id, "registry_url": registry.url}

    database_url = instance = None
    if settings.kind == "foundation" and settings.declares_database:
        # Who reads the URL belongs to the environment, which grants itself access.
        after = waiting(enabled, "sqladmin", "secretmanager")
        database = declare_database(settings, vpc.network_id, vpc.peering, {}, after)
        database_url, instance = database.url.reference, database.instance_name
        outputs |= {
            "database_instance": instance,
            "database_url_secret": database_url.secret_id,
            "database_url_version": database_url.version,
        }
    if settings.budget.billing_account:
        await engine_turn()
        _budget(settings, enabled)
    await engine_turn()
    deployers, found = _ci_and_key(settings, enabled)
    outputs |= found
    wrapping_key = None
    if settings.fleet.enabled:
        await engine_turn()
        wrapping_key, found = declare_wrapping_key(
            settings, deployers, waiting(enabled, "cloudkms", "secretmanager")
        )
        if settings.kind == "foundation":
            outputs |= found
    foundation = Foundation(vpc.network_id, database_url, instance, vpc.peering, wrapping_key, enabled)
    return foundation, outputs


def _budget(settings: Settings, enabled: Mapping[str, pulumi.Resource]) -> None:
    """The project's budget; relations say that amount and account come together."""
    import pulumi_gcp as gcp

    from components.budget import Budget, BudgetArgs

    budget = settings.budget
    Budget(
        f"{settings.name_prefix}-budget",
        BudgetArgs(
            billing_account=str(budget.billing_account),
            project_number=gcp.organizations.get_project_output(project_id=settings.project).number,
            amount=int(budget.amount or 0),
            currency=budget.currency,
            thresholds=budget.thresholds,
            forecast=budget.forecast,
            emails=settings.alerts.emails,
            labels=labels(settings),
        ),
        waiting(enabled, "billingbudgets", "monitoring"),
    )


def _ci_and_key(
    settings: Settings, enabled: Mapping[str, pulumi.Resource]
) -> tuple[dict[str, pulumi.Input[str]], dict[str, Any]]:
    """CI identity and the state's key, as far as they are asked for. Returns who deploys, and outputs."""
    prefix, ci = settings.name_prefix, settings.ci
    outputs: dict[str, Any] = {}
    deployers: dict[str, pulumi.Input[str]] = {}
    key_users: dict[str, pulumi.Input[str]] = {}
    if ci.repository:
        from components.ci_identity import CiIdentity, CiIdentityArgs

        identity = CiIdentity(
            f"{prefix}-ci",
            CiIdentityArgs(
                settings.project, ci.repository, ci.deploy_branch, ci.environment, ci.pool, ci.state_bucket
            ),
            waiting(enabled, "iam", "iamcredentials", "sts"),
        )
        deployers = {"deploy": identity.deploy.member}
        key_users = {**deployers, "preview": identity.preview.member}
        outputs |= {
            "ci_provider": identity.provider_name,
            "ci_deploy_account": identity.deploy.email,
            "ci_preview_account": identity.preview.email,
        }
    if settings.state_key_ring:
        from components.places import multi_region
        from components.state_key import StateKey, StateKeyArgs

        key = StateKey(
            settings.state_key_ring,
            StateKeyArgs(multi_region(settings.region), key_users, labels(settings)),
            waiting(enabled, "cloudkms"),
        )
        outputs["state_key"] = key.url
    return deployers, outputs


def referenced(settings: Settings) -> Foundation:
    """The foundation that another stack declares, read by a StackReference."""
    stack = pulumi.StackReference(str(settings.foundation_stack))
    database_url = instance = None
    if not settings.declares_database:
        instance = stack.require_output("database_instance")
        database_url = SecretReference(
            stack.require_output("database_url_secret"), stack.require_output("database_url_version"), ()
        )
    wrapping_key = referenced_wrapping_key(settings, stack) if settings.runs_fleet else None
    return Foundation(stack.require_output("network_id"), database_url, instance, wrapping_key=wrapping_key)
