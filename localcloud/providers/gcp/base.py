"""What Google's resource types have in common: project, region, links, labels, deletion policies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from localcloud.cloud import CloudError
from localcloud.providers.gcp.catalog import REGIONS, has_zone, region_of
from localcloud.providers.resource import Handler, digest, not_found
from localcloud.providers.schema import Failure
from localcloud.providers.values import UNKNOWN
from localcloud.secrets import PROJECT_NUMBER
from localcloud.state import Resource

# The API behind each part of the provider. A new project has some switched on: storage, logging,
# monitoring, and those that this table lacks (cloudresourcemanager and serviceusage are what a person
# switches on by hand before the first `up`).
APIS = {
    "artifactregistry": "artifactregistry",
    "billing": "billingbudgets",
    "cloudrunv2": "run",
    "cloudscheduler": "cloudscheduler",
    "compute": "compute",
    "iam": "iam",
    "iap": "iap",
    "kms": "cloudkms",
    "secretmanager": "secretmanager",
    "serviceaccount": "iam",
    "servicenetworking": "servicenetworking",
    "sql": "sqladmin",
    "vpcaccess": "vpcaccess",
}
ENABLED = "enabled-apis"
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")

COMPUTE = "https://www.googleapis.com/compute/v1/"
CONFIG = "gcp"

NETWORK = "gcp:compute/network:Network"
SUBNETWORK = "gcp:compute/subnetwork:Subnetwork"
FIREWALL = "gcp:compute/firewall:Firewall"
ADDRESS = "gcp:compute/address:Address"
GLOBAL_ADDRESS = "gcp:compute/globalAddress:GlobalAddress"
ROUTER = "gcp:compute/router:Router"
ROUTER_NAT = "gcp:compute/routerNat:RouterNat"
INSTANCE = "gcp:compute/instance:Instance"
DISK = "gcp:compute/disk:Disk"
RESOURCE_POLICY = "gcp:compute/resourcePolicy:ResourcePolicy"
CONNECTOR = "gcp:vpcaccess/connector:Connector"
CONNECTION = "gcp:servicenetworking/connection:Connection"
ACCOUNT = "gcp:serviceaccount/account:Account"
SECRET = "gcp:secretmanager/secret:Secret"  # noqa: S105 - a type's name
SECRET_VERSION = "gcp:secretmanager/secretVersion:SecretVersion"  # noqa: S105 - a type's name
RUN_SERVICE = "gcp:cloudrunv2/service:Service"
RUN_JOB = "gcp:cloudrunv2/job:Job"
SQL_INSTANCE = "gcp:sql/databaseInstance:DatabaseInstance"
BUCKET = "gcp:storage/bucket:Bucket"
REPOSITORY = "gcp:artifactregistry/repository:Repository"
KEY_RING = "gcp:kms/keyRing:KeyRing"
CRYPTO_KEY = "gcp:kms/cryptoKey:CryptoKey"


class GcpHandler(Handler):
    """A Google resource."""

    #: Whether `region` or `location` names a region, which must exist.
    regional: ClassVar[bool] = False

    @property
    def config(self) -> dict[str, Any]:
        """The provider's configuration: project, region, zone."""
        found: dict[str, Any] = self.cloud.extensions.setdefault(CONFIG, {})
        return found

    def complete(self, inputs: dict[str, Any]) -> dict[str, Any]:
        filled = super().complete(inputs)
        known = self.resource_facts.inputs
        zone = self.config.get("zone")
        places = {
            "project": self.cloud.settings.project,
            "region": self.config.get("region") or (region_of(zone) if zone else None),
            "zone": zone,
        }
        for name, value in places.items():
            if name in known and filled.get(name) is None and value is not None:
                filled[name] = value
        return filled

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        project = inputs.get("project")
        if project not in (None, UNKNOWN, self.cloud.settings.project):
            yield Failure("project", foreign_project(project, self.cloud.settings.project))

    def outputs(self, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        filled = super().outputs(inputs, old)
        if "effectiveLabels" in self.resource_facts.computed:
            # The real provider adds this label of its own accord.
            labels = filled.get("labels") or {}
            shown = {"goog-pulumi-provisioned": "true", **labels} if labels is not UNKNOWN else UNKNOWN
            filled["effectiveLabels"] = filled["pulumiLabels"] = shown
        return filled

    async def create(self, inputs: dict[str, Any]) -> Resource:
        self.verify_api()
        self.verify_labels(inputs.get("labels") or {})
        return await super().create(inputs)

    async def update(self, resource_id: str, inputs: dict[str, Any]) -> Resource:
        self.verify_labels(inputs.get("labels") or {})
        return await super().update(resource_id, inputs)

    def verify_labels(self, labels: dict[str, str]) -> None:
        """Refuse labels that Google can't keep."""
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                raise CloudError(
                    400,
                    f"Invalid value for field 'labels': '{key}={value}'. Labels can only contain lowercase "
                    "letters, numeric characters, underscores and dashes, must begin with a letter, and can "
                    "be at most 63 characters long.",
                    "invalid",
                )

    def verify_api(self) -> None:
        """Refuse what needs an API that the project hasn't switched on."""
        api = APIS.get(self.token.split(":")[1].split("/")[0])
        if api is None or f"{api}.googleapis.com" in self.cloud.store.notes(ENABLED):
            return
        project = self.cloud.settings.project
        raise CloudError(
            403,
            f"{api}.googleapis.com has not been used in project {project} before or it is disabled. Enable "
            f"it by visiting https://console.developers.google.com/apis/api/{api}.googleapis.com/overview?project="
            f"{project} then retry.",
            "accessNotConfigured",
        )

    def verify_place(self, inputs: dict[str, Any]) -> None:
        """Refuse a region or zone that isn't there."""
        for name in ("region", "zone"):
            if name in self.resource_facts.inputs and inputs.get(name) is None:
                raise CloudError(
                    400,
                    f"Cannot determine {name}: set in this resource, or set provider-level "
                    + ("'region' or 'zone'." if name == "region" else "zone."),
                )
        region, zone = inputs.get("region"), inputs.get("zone")
        if region is not None and plain(region) not in REGIONS:
            raise not_found(f"projects/{inputs['project']}/regions/{plain(region)}")
        if zone is not None and not has_zone(plain(zone)):
            raise not_found(f"projects/{inputs['project']}/zones/{plain(zone)}")

    def verify_location(self, location: str) -> None:
        """Refuse a `location` that is no region, in the words of the newer APIs."""
        if location not in REGIONS:
            raise CloudError(
                403, f"Permission denied on 'locations/{location}' (or it may not exist).", "forbidden"
            )

    def find(self, token: str, written: str, pattern: str, inputs: dict[str, Any]) -> Resource:
        """The resource that a reference means; `pattern` makes an id of a plain name.

        Raises `CloudError` 404.
        """
        resource_id = reference(written, pattern, inputs)
        found = self.cloud.store.get(token, resource_id)
        if found is None:
            raise not_found(resource_id)
        return found

    def network(self, written: str, inputs: dict[str, Any]) -> Resource:
        """The network that a reference means. Raises `CloudError` 404."""
        return self.find(NETWORK, written, "projects/{project}/global/networks/{name}", inputs)

    def subnetwork(self, written: str, inputs: dict[str, Any]) -> Resource:
        """The subnetwork that a reference means. Raises `CloudError` 404."""
        pattern = "projects/{project}/regions/{region}/subnetworks/{name}"
        return self.find(SUBNETWORK, written, pattern, inputs)

    async def delete(self, resource_id: str) -> None:
        resource = self.cloud.store.get(self.token, resource_id)
        policy = (resource.outputs if resource else {}).get("deletionPolicy")
        if policy == "PREVENT":
            raise CloudError(
                400, f"cannot destroy {self.noun} without setting deletion_policy=DELETE and applying it"
            )
        if policy != "ABANDON":
            await super().delete(resource_id)


def foreign_project(project: object, local: str) -> str:
    """Why another project is refused: the local cloud must never stand in for a real one."""
    return (
        f"the project is {project!r}, but this is the local cloud, which has only the project {local!r} and "
        "never stands in for a real one; run a real stack without PULUMI_DEBUG_PROVIDERS"
    )


def plain(reference: str) -> str:
    """The last part of a link or id: the name."""
    return reference.rsplit("/", 1)[-1]


def reference(written: str, pattern: str, inputs: dict[str, Any]) -> str:
    """An id, from a self link, an id or a name."""
    project = inputs.get("project") or "local"
    path = written.split("/compute/v1/")[-1].replace(f"projects/{PROJECT_NUMBER}/", f"projects/{project}/")
    if "projects/" in path:
        return path[path.index("projects/") :]
    values = {k: plain(v) for k, v in inputs.items() if k in ("project", "region", "zone") and v}
    return pattern.format_map({"region": "-", "zone": "-", **values, "name": plain(path)})


def numbered(resource_id: str) -> str:
    """An id with the project's number instead of its name, as some APIs answer."""
    return f"projects/{PROJECT_NUMBER}/{resource_id.split('/', 2)[2]}"


def self_link(resource_id: str) -> str:
    """The link of a Compute Engine resource."""
    return COMPUTE + resource_id


def in_use(kind: str, resource_id: str, user: str) -> CloudError:
    """How Compute Engine refuses to delete what something else uses."""
    return CloudError(
        400,
        f"The {kind} resource '{resource_id}' is already being used by '{user}'",
        "resourceInUseByAnotherResource",
    )


def invalid(field: str, value: object, why: str) -> CloudError:
    """How Compute Engine refuses a field's value."""
    return CloudError(400, f"Invalid value for field 'resource.{field}': '{value}'. {why}", "invalid")


def fingerprint(*parts: object) -> str:
    """A fingerprint as Compute Engine's: changes with what it is of."""
    return digest(*parts) + "="
