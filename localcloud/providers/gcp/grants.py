"""IAM grants: one member, one role, one resource each.

They are kept as declared; `localcloud.iam` reads them from the store to decide who may do what.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import (
    ACCOUNT,
    BUCKET,
    CRYPTO_KEY,
    INSTANCE,
    REPOSITORY,
    RUN_JOB,
    RUN_SERVICE,
    SECRET,
    GcpHandler,
    plain,
    reference,
)
from localcloud.providers.gcp.identity import CUSTOM_ROLE
from localcloud.providers.resource import digest, not_found
from localcloud.providers.schema import Failure
from localcloud.providers.values import UNKNOWN
from localcloud.state import Resource

# Services that publish predefined roles, "roles/SERVICE.name"; a role of another one is a typing error.
ROLE_SERVICES = frozenset(
    [
        "artifactregistry",
        "billing",
        "cloudbuild",
        "cloudkms",
        "cloudscheduler",
        "cloudsql",
        "cloudtasks",
        "cloudtrace",
        "compute",
        "container",
        "dns",
        "errorreporting",
        "iam",
        "iap",
        "logging",
        "monitoring",
        "networkmanagement",
        "opsconfigmonitoring",
        "osconfig",
        "pubsub",
        "resourcemanager",
        "run",
        "secretmanager",
        "servicenetworking",
        "serviceusage",
        "source",
        "storage",
        "vpcaccess",
        "workflows",
        "accesscontextmanager",
        "bigquery",
        "cloudprofiler",
        "containeranalysis",
        "securitycenter",
    ]
)
BASIC_ROLES = frozenset({"roles/owner", "roles/editor", "roles/viewer", "roles/browser"})


class Grant(GcpHandler):
    """The base of all grants. A grant that is there already is taken over, as the API does."""

    target: ClassVar[str]
    #: The id of what is granted on, from inputs.
    on: ClassVar[str]
    #: The input that names it, and how a plain name is completed to an id.
    names: ClassVar[str] = ""
    #: Whether the resource on which is granted must be in the store.
    noun = "IAM member"
    adopts = True
    shapes_network = True

    def identify(self, inputs: dict[str, Any]) -> str:
        condition = inputs.get("condition") or {}
        tail = f"/{condition['title']}" if condition else ""
        return f"{self.prefix(inputs)}/{inputs['role']}/{inputs['member']}{tail}"

    def prefix(self, inputs: dict[str, Any]) -> str:
        """How the id begins: what is granted on."""
        return self.granted_on(inputs)

    def granted_on(self, inputs: dict[str, Any]) -> str:
        """The id of the resource on which is granted."""
        return reference(inputs[self.names], self.on, self._places(inputs))

    def _places(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {**inputs, "project": inputs.get("project") or self.cloud.settings.project}

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        on = self.granted_on(inputs)
        if self.cloud.store.get(self.target, on) is None:
            raise not_found(on)
        self.verify_role(inputs["role"])
        self.verify_member(inputs["member"])

    def verify_role(self, role: str) -> None:
        """Refuse a role that isn't there."""
        if role.startswith("projects/"):
            known = self.cloud.store.get(CUSTOM_ROLE, role) is not None
        else:
            service = role.removeprefix("roles/").partition(".")[0]
            known = role in BASIC_ROLES or (role.startswith("roles/") and service in ROLE_SERVICES)
        if not known:
            raise CloudError(400, f"Role {role} is not supported for this resource.", "badRequest")

    def verify_member(self, member: str) -> None:
        """Refuse a service account of this project that isn't there."""
        kind, _, email = member.partition(":")
        own = f"@{self.cloud.settings.project}.iam.gserviceaccount.com"
        if kind != "serviceAccount" or not email.endswith(own):
            return
        if (
            self.cloud.store.get(ACCOUNT, f"projects/{self.cloud.settings.project}/serviceAccounts/{email}")
            is None
        ):
            raise CloudError(400, f"Service account {email} does not exist.", "badRequest")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {"etag": f"BwY{digest(resource_id)}="}

    async def observed(self, resource: Resource) -> Resource | None:
        # Deleting what was granted on takes its grants along.
        gone = self.cloud.store.get(self.target, self.granted_on(self.complete(resource.inputs))) is None
        return None if gone else resource


class ProjectGrant(Grant):
    """A role on the whole project."""

    token = "gcp:projects/iAMMember:IAMMember"  # noqa: S105 - a type's name
    noun = "IAM member of the project"

    def prefix(self, inputs: dict[str, Any]) -> str:
        return str(inputs["project"])

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        yield from super().check(inputs)
        if inputs.get("role") == "roles/owner" and inputs.get("member") is not UNKNOWN:
            yield Failure("role", "roles/owner can't be granted by the API: an invitation is needed")

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if inputs["member"] in ("allUsers", "allAuthenticatedUsers"):
            raise CloudError(
                400,
                f"Members of type {inputs['member']} cannot be set for resources of type project.",
                "badRequest",
            )
        self.verify_role(inputs["role"])
        self.verify_member(inputs["member"])

    async def observed(self, resource: Resource) -> Resource | None:
        return resource


class SecretGrant(Grant):
    """Who may read a secret."""

    token = "gcp:secretmanager/secretIamMember:SecretIamMember"  # noqa: S105 - a type's name
    target, names = SECRET, "secretId"
    on = "projects/{project}/secrets/{name}"


class AccountGrant(Grant):
    """Who may act as a service account."""

    token = "gcp:serviceaccount/iAMMember:IAMMember"  # noqa: S105 - a type's name
    target, names = ACCOUNT, "serviceAccountId"
    on = "projects/{project}/serviceAccounts/{name}"


class RunServiceGrant(Grant):
    """Who may call a Cloud Run service."""

    token = "gcp:cloudrunv2/serviceIamMember:ServiceIamMember"  # noqa: S105 - a type's name
    target, names = RUN_SERVICE, "name"
    kind: ClassVar[str] = "services"

    def granted_on(self, inputs: dict[str, Any]) -> str:
        if inputs["name"].startswith("projects/"):
            return str(inputs["name"])
        location = plain(inputs.get("location") or self.config.get("region") or "-")
        project = inputs.get("project") or self.cloud.settings.project
        return f"projects/{project}/locations/{location}/{self.kind}/{inputs['name']}"


class RunJobGrant(RunServiceGrant):
    """Who may run a Cloud Run job."""

    token = "gcp:cloudrunv2/jobIamMember:JobIamMember"  # noqa: S105 - a type's name
    target, kind = RUN_JOB, "jobs"


class KeyGrant(Grant):
    """Who may use a key."""

    token = "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember"  # noqa: S105 - a type's name
    target, names = CRYPTO_KEY, "cryptoKeyId"
    on = "{name}"


class BucketGrant(Grant):
    """Who may use a bucket."""

    token = "gcp:storage/bucketIAMMember:BucketIAMMember"  # noqa: S105 - a type's name
    target, names = BUCKET, "bucket"

    def granted_on(self, inputs: dict[str, Any]) -> str:
        return str(inputs["bucket"]).removeprefix("b/")

    def prefix(self, inputs: dict[str, Any]) -> str:
        return f"b/{self.granted_on(inputs)}"


class RepositoryGrant(Grant):
    """Who may pull from or push to a registry."""

    token = "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember"  # noqa: S105 - a type's name
    target, names = REPOSITORY, "repository"

    def granted_on(self, inputs: dict[str, Any]) -> str:
        if inputs["repository"].startswith("projects/"):
            return str(inputs["repository"])
        location = plain(inputs.get("location") or self.config.get("region") or "-")
        project = inputs.get("project") or self.cloud.settings.project
        return f"projects/{project}/locations/{location}/repositories/{inputs['repository']}"


class InstanceGrant(Grant):
    """Who may touch a VM."""

    token = "gcp:compute/instanceIAMMember:InstanceIAMMember"  # noqa: S105 - a type's name
    target, names = INSTANCE, "instanceName"
    on = "projects/{project}/zones/{zone}/instances/{name}"


class TunnelGrant(Grant):
    """Who may open a tunnel to a VM through IAP."""

    token = "gcp:iap/tunnelInstanceIAMMember:TunnelInstanceIAMMember"  # noqa: S105 - a type's name
    target, names = INSTANCE, "instance"
    on = InstanceGrant.on

    def prefix(self, inputs: dict[str, Any]) -> str:
        place = self._places(inputs)
        name = plain(inputs["instance"])
        return f"projects/{place['project']}/iap_tunnel/zones/{place['zone']}/instances/{name}"


HANDLERS = (
    ProjectGrant,
    SecretGrant,
    AccountGrant,
    RunServiceGrant,
    RunJobGrant,
    KeyGrant,
    BucketGrant,
    RepositoryGrant,
    InstanceGrant,
    TunnelGrant,
)
