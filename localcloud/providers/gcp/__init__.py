"""Google Cloud in the local cloud: the provider `gcp`, one module for each of Google's service areas."""

from __future__ import annotations

from typing import Any

from localcloud.cloud import Cloud, CloudError
from localcloud.providers.gcp import (
    addressing,
    billing,
    compute,
    disks,
    grants,
    identity,
    keeping,
    monitoring,
    network,
    private_access,
    run,
    scheduler,
    secret,
    sql,
    watching,
)
from localcloud.providers.gcp.base import CONFIG, foreign_project
from localcloud.providers.gcp.catalog import REGIONS, ZONE_LETTERS, find_image
from localcloud.providers.provider import Provider
from localcloud.providers.schema import Failure
from localcloud.providers.values import UNKNOWN
from localcloud.secrets import PROJECT_NUMBER

HANDLERS = (
    *network.HANDLERS,
    *addressing.HANDLERS,
    *disks.HANDLERS,
    *compute.HANDLERS,
    *private_access.HANDLERS,
    *identity.HANDLERS,
    *grants.HANDLERS,
    *secret.HANDLERS,
    *keeping.HANDLERS,
    *monitoring.HANDLERS,
    *watching.HANDLERS,
    *billing.HANDLERS,
    *sql.HANDLERS,
    *run.HANDLERS,
    *scheduler.HANDLERS,
)


class Gcp(Provider):
    """The provider for Google Cloud."""

    package = "gcp"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud, HANDLERS)
        self.functions = {
            "gcp:organizations/getProject:getProject": self._get_project,
            "gcp:organizations/getClientConfig:getClientConfig": self._get_client_config,
            "gcp:compute/getImage:getImage": self._get_image,
            "gcp:compute/getZones:getZones": self._get_zones,
        }

    def check_config(self, config: dict[str, Any]) -> list[Failure]:
        project, local = config.get("project"), self.cloud.settings.project
        if project is UNKNOWN or project == local:
            return []
        if project is None:
            return [Failure("project", f"gcp:project isn't set: the local cloud has one, {local!r}")]
        return [Failure("project", foreign_project(project, local))]

    def configure(self, config: dict[str, Any]) -> None:
        self.cloud.extensions[CONFIG] = {k: config.get(k) for k in ("project", "region", "zone")}

    def words(self, doing: str, error: CloudError) -> str:
        if not error.reason or error.status == 501:
            return f"{doing}: {error.message}"
        return f"{doing}: googleapi: Error {error.status}: {error.message}, {error.reason}"

    async def _get_project(self, arguments: dict[str, Any]) -> dict[str, Any]:
        wanted, local = arguments.get("projectId") or self.cloud.settings.project, self.cloud.settings.project
        if wanted != local:
            raise CloudError(404, foreign_project(wanted, local), "notFound")
        return {
            "id": f"projects/{local}",
            "projectId": local,
            "name": local,
            "number": PROJECT_NUMBER,
            "autoCreateNetwork": False,
            "billingAccount": "",
            "deletionPolicy": "",
            "effectiveLabels": {},
            "folderId": "",
            "labels": {},
            "orgId": "",
            "pulumiLabels": {},
            "tags": {},
        }

    async def _get_client_config(self, arguments: dict[str, Any]) -> dict[str, Any]:
        config = self.cloud.extensions.get(CONFIG, {})
        region, zone = config.get("region") or "", config.get("zone") or ""
        local = self.cloud.settings.project
        # No token: what a machine may do is decided by its own identity, and a person has none here.
        found: dict[str, Any] = {
            "accessToken": "",
            "defaultLabels": {},
            "project": local,
            "region": region,
            "zone": zone,
        }
        return {"id": f"projects/{local}/regions/{region}/zones/{zone}", **found}

    async def _get_image(self, arguments: dict[str, Any]) -> dict[str, Any]:
        name = arguments.get("family") or arguments.get("name") or ""
        project = arguments.get("project")
        link = find_image(f"{project}/{name}" if project else name)
        if link is None:
            raise CloudError(404, f"Could not find image or family {name}", "notFound")
        return {
            "id": link.split("/compute/v1/")[-1],
            "name": name,
            "family": arguments.get("family") or "",
            "project": link.split("/projects/")[-1].split("/")[0],
            "selfLink": link,
            "status": "READY",
            "diskSizeGb": 10,
        }

    async def _get_zones(self, arguments: dict[str, Any]) -> dict[str, Any]:
        region = arguments.get("region") or self.cloud.extensions.get(CONFIG, {}).get("region")
        if region not in REGIONS:
            raise CloudError(404, f"The resource 'regions/{region}' was not found", "notFound")
        names = [f"{region}-{letter}" for letter in ZONE_LETTERS.get(region, "abc")]
        project = self.cloud.settings.project
        return {
            "id": f"projects/{project}/regions/{region}",
            "names": names,
            "project": project,
            "region": region,
        }
