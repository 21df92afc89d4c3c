"""Service accounts, enabled APIs, custom roles, and the identity pools of CI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from localcloud.cloud import Cloud, CloudError
from localcloud.providers.gcp.base import ACCOUNT, ENABLED, GcpHandler, numbered
from localcloud.providers.resource import number
from localcloud.providers.schema import Failure
from localcloud.state import Resource

POOL = "gcp:iam/workloadIdentityPool:WorkloadIdentityPool"
POOL_PROVIDER = "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider"
CUSTOM_ROLE = "gcp:projects/iAMCustomRole:IAMCustomRole"
RESERVED = "reserved-names"
DAY_SECONDS = 86400
POOL_RESERVED_DAYS = 30  # cloud.google.com/iam/docs/manage-workload-identity-pools-providers
FOREVER = float("inf")


def reserve(cloud: Cloud, resource_id: str, days: float) -> None:
    """Keep a deleted resource's name from being used again for so many days."""
    until = time.time() + days * DAY_SECONDS
    cloud.store.note(RESERVED, resource_id, until if days != FOREVER else "forever")


def is_reserved(cloud: Cloud, resource_id: str) -> bool:
    """Whether a name is still kept from use."""
    until = cloud.store.notes(RESERVED).get(resource_id)
    return until == "forever" or (until is not None and time.time() < until)


class Account(GcpHandler):
    """A service account."""

    token = ACCOUNT
    noun = "service account"
    shapes_network = True

    def identify(self, inputs: dict[str, Any]) -> str:
        email = f"{inputs['accountId']}@{inputs['project']}.iam.gserviceaccount.com"
        return f"projects/{inputs['project']}/serviceAccounts/{email}"

    def takes_over(self, inputs: dict[str, Any]) -> bool:
        return bool(inputs.get("createIgnoreAlreadyExists"))

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(
            409,
            f"Service account {inputs['accountId']} already exists within project "
            f"projects/{inputs['project']}.",
            "alreadyExists",
        )

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        email = resource_id.rsplit("/", 1)[-1]
        unique = old.outputs["uniqueId"] if old else number(resource_id, time.time_ns())[:21]
        return {"email": email, "member": f"serviceAccount:{email}", "name": resource_id, "uniqueId": unique}


class Service(GcpHandler):
    """An enabled API. It stays enabled when the resource is deleted with `disableOnDestroy` false."""

    token = "gcp:projects/service:Service"  # noqa: S105 - a type's name
    id_format = "{project}/{service}"
    noun = "project service"
    adopts = True

    async def started(self, resource: Resource) -> None:
        self.cloud.store.note(ENABLED, resource.outputs["service"], True)

    async def stopped(self, resource: Resource) -> None:
        if resource.outputs.get("disableOnDestroy"):
            self.cloud.store.forget(ENABLED, resource.outputs["service"])


class CustomRole(GcpHandler):
    """A role of the project. A deleted one is undeleted by its next creation, as the provider does."""

    token = CUSTOM_ROLE
    id_format = "projects/{project}/roles/{roleId}"
    noun = "the custom project role"

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(
            409,
            f"A role named {inputs['roleId']} in projects/{inputs['project']} already exists.",
            "alreadyExists",
        )

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        for permission in inputs["permissions"]:
            if permission.count(".") < 2:
                raise CloudError(400, f"Permission {permission} is not valid.", "badRequest")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {"deleted": False, "name": resource_id}


class WorkloadIdentityPool(GcpHandler):
    """A pool of outside identities. Its name stays reserved for 30 days after deletion."""

    token = POOL
    id_format = "projects/{project}/locations/global/workloadIdentityPools/{workloadIdentityPoolId}"
    noun = "WorkloadIdentityPool"

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        yield from super().check(inputs)
        yield from _no_google_prefix(inputs, "workloadIdentityPoolId")

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if old is None and is_reserved(self.cloud, self.identify(inputs)):
            raise self.exists("", inputs)

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(409, "Requested entity already exists", "alreadyExists")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {
            "name": numbered(resource_id),
            "state": "ACTIVE",
            "mode": inputs.get("mode") or "FEDERATION_ONLY",
        }

    async def stopped(self, resource: Resource) -> None:
        reserve(self.cloud, resource.id, POOL_RESERVED_DAYS)
        for provider in self.cloud.store.all(POOL_PROVIDER):
            if provider.id.startswith(f"{resource.id}/"):
                self.cloud.store.delete(POOL_PROVIDER, provider.id)


class WorkloadIdentityPoolProvider(GcpHandler):
    """Whom a pool trusts, GitHub's tokens for instance. Reserved like its pool."""

    token = POOL_PROVIDER
    id_format = f"{WorkloadIdentityPool.id_format}/providers/{{workloadIdentityPoolProviderId}}"
    noun = "WorkloadIdentityPoolProvider"

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        yield from super().check(inputs)
        yield from _no_google_prefix(inputs, "workloadIdentityPoolProviderId")

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        pool = WorkloadIdentityPool.id_format.format_map(inputs)
        if self.cloud.store.get(POOL, pool) is None:
            raise CloudError(404, "Requested entity was not found.", "notFound")
        if old is None and is_reserved(self.cloud, self.identify(inputs)):
            raise self.exists("", inputs)
        mapping = inputs.get("attributeMapping") or {}
        oidc = inputs.get("oidc")
        if oidc and "google.subject" not in mapping:
            raise CloudError(400, "Attribute mapping must have a mapping for google.subject.", "badRequest")
        if oidc and not oidc["issuerUri"].startswith("https://"):
            raise CloudError(400, "The issuer URI must be an HTTPS URI.", "badRequest")
        # Google refuses GitHub's shared issuer without a condition: every repository would be let in.
        if oidc and "githubusercontent.com" in oidc["issuerUri"] and not inputs.get("attributeCondition"):
            raise CloudError(
                400,
                "The attribute condition must reference one of the provider's claims.",
                "badRequest",
            )

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(409, "Requested entity already exists", "alreadyExists")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {"name": numbered(resource_id), "state": "ACTIVE"}

    async def stopped(self, resource: Resource) -> None:
        reserve(self.cloud, resource.id, POOL_RESERVED_DAYS)


def _no_google_prefix(inputs: dict[str, Any], name: str) -> Iterator[Failure]:
    if str(inputs.get(name, "")).startswith("gcp-"):
        yield Failure(name, f'"{name}" ({inputs[name]}) can not start with "gcp-"')


HANDLERS = (Account, Service, CustomRole, WorkloadIdentityPool, WorkloadIdentityPoolProvider)
