"""Who may do what: grants as they are declared, and the identity of each machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localcloud.topology import short

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.state import Resource, Store

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
SECRET_ACCESS = "secretmanager.versions.access"  # noqa: S105 -- a permission's name
INVOKE = "run.routes.invoke"
WRITE_METRICS = "monitoring.timeSeries.create"

# Of Google's predefined roles, those that hold a permission checked here
# (docs.cloud.google.com/iam/docs/roles-permissions).
_ROLES_WITH: dict[str, frozenset[str]] = {
    SECRET_ACCESS: frozenset(
        {"roles/secretmanager.secretAccessor", "roles/secretmanager.admin", "roles/owner"}
    ),
    WRITE_METRICS: frozenset(
        {"roles/monitoring.metricWriter", "roles/monitoring.editor", "roles/owner", "roles/editor"}
    ),
    INVOKE: frozenset(
        {"roles/run.invoker", "roles/run.admin", "roles/run.servicesInvoker", "roles/owner", "roles/editor"}
    ),
}
# On project level these names would open a secret or a service to the world; Google refuses them there.
_EVERYBODY = frozenset({"allUsers", "allAuthenticatedUsers"})


@dataclass(frozen=True)
class Identity:
    """The service account that a machine acts as, and what its tokens are good for."""

    email: str
    scopes: tuple[str, ...]


def identity_of(cloud: Cloud, machine: str) -> Identity | None:
    """The service account of a machine; None for machines without one (droplets, databases)."""
    job = cloud.store.noted("run.executions", machine.removeprefix("job/"))
    if job is not None:
        return Identity(job["service_account"], (CLOUD_PLATFORM,))
    if cloud.machines.status(machine) == "ABSENT":
        return None
    spec = cloud.machines.specification(machine)["spec"]
    email = spec.get("service_account")
    if not email:
        return None
    if machine.startswith("run/"):
        return Identity(email, (CLOUD_PLATFORM,))
    scopes = tuple(_full_scope(scope) for scope in spec.get("scopes") or ())
    return Identity(email, scopes)


def may_access_secret(store: Store, email: str, secret: str) -> bool:
    """Whether a service account may read a secret's versions: granted on the secret or the project."""
    member = f"serviceAccount:{email}"
    on_secret = (
        grant
        for grant in store.all("gcp:secretmanager/secretIamMember:SecretIamMember")
        if short(grant.inputs.get("secretId")) == secret
    )
    return _granted(store, on_secret, member, SECRET_ACCESS) or _granted(
        store, iter(store.all("gcp:projects/iAMMember:IAMMember")), member, SECRET_ACCESS
    )


def may_write_metrics(store: Store, email: str) -> bool:
    """Whether a service account may write time series: granted on the project."""
    on_project = iter(store.all("gcp:projects/iAMMember:IAMMember"))
    return _granted(store, on_project, f"serviceAccount:{email}", WRITE_METRICS)


def is_public(store: Store, service: str) -> bool:
    """Whether everybody may call a Cloud Run service without a token."""
    return _granted(store, _on_service(store, service), "allUsers", INVOKE)


def may_invoke(store: Store, email: str, service: str) -> bool:
    """Whether a service account may call a Cloud Run service: granted on the service or the project."""
    member = f"serviceAccount:{email}"
    on_project = iter(store.all("gcp:projects/iAMMember:IAMMember"))
    return _granted(store, _on_service(store, service), member, INVOKE) or _granted(
        store, on_project, member, INVOKE
    )


def _on_service(store: Store, service: str) -> Iterator[Resource]:
    for grant in store.all("gcp:cloudrunv2/serviceIamMember:ServiceIamMember"):
        if short(grant.inputs.get("name")) == service:
            yield grant


def _granted(store: Store, grants: Iterator[Resource], member: str, permission: str) -> bool:
    for grant in grants:
        # A condition is not evaluated here: a grant that may not hold is taken as not given.
        if grant.inputs.get("condition"):
            continue
        holder = grant.inputs.get("member")
        if (holder == member or holder in _EVERYBODY) and _has(store, grant.inputs.get("role"), permission):
            return True
    return False


def _has(store: Store, role: Any, permission: str) -> bool:
    if role in _ROLES_WITH[permission]:
        return True
    for custom in store.all("gcp:projects/iAMCustomRole:IAMCustomRole"):
        name = custom.inputs.get("roleId") or short(custom.id)
        if short(role) == name and "/roles/" in str(role):
            return permission in (custom.inputs.get("permissions") or ())
    return False


def _full_scope(scope: str) -> str:
    """Scopes may be declared by gcloud's aliases; Google's API stores their full names."""
    return scope if "/" in scope else f"https://www.googleapis.com/auth/{scope}"
