"""Secret Manager v1, as far as machines use it: reading a version's payload.

cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from localcloud import secrets
from localcloud.apis.google import authenticate, refusal
from localcloud.cloud import CloudError
from localcloud.network import reaches_google

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_CRC32C_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
_PATH = "/v1/projects/{project}/secrets/{secret}/versions/{version}:access"


def routes(cloud: Cloud) -> list[BaseRoute]:
    """The API's routes, to be mounted at /secretmanager."""

    async def access(request: Request) -> Response:
        try:
            _check_route(cloud, request)
            identity = authenticate(cloud, request.headers.get("authorization", ""))
            parameters = request.path_params
            _check_project(cloud, parameters["project"])
            payload = secrets.access(cloud, identity.email, parameters["secret"], parameters["version"])
        except CloudError as error:
            return refusal(error)
        return JSONResponse(
            {
                "name": f"projects/{secrets.PROJECT_NUMBER}/secrets/{payload.secret}"
                f"/versions/{payload.version}",
                "payload": {
                    "data": base64.b64encode(payload.data).decode(),
                    "dataCrc32c": str(crc32c(payload.data)),
                },
            },
            headers={"Cache-Control": "private"},
        )

    async def unknown(request: Request) -> Response:
        return refusal(CloudError(404, f"The requested URL {request.url.path} was not found on this server."))

    return [Route(_PATH, access), Route("/{rest:path}", unknown)]


def crc32c(data: bytes) -> int:
    """The checksum that Secret Manager sends with a payload."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (_CRC32C_POLYNOMIAL if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _check_route(cloud: Cloud, request: Request) -> None:
    """A VM without NAT and without Private Google Access doesn't reach Google's APIs at all.

    In life its packets are lost; here the answer says so, because a person is waiting.
    """
    source = cloud.network.identify(request.client)
    if source:
        verdict = reaches_google(cloud.network.topology(), source)
        if not verdict.allowed:
            raise CloudError(503, f"secretmanager.googleapis.com can't be reached: {verdict.why}")


def _check_project(cloud: Cloud, project: str) -> None:
    if project not in (cloud.settings.project, secrets.PROJECT_NUMBER):
        raise CloudError(
            403,
            f"Secret Manager API has not been used in project {project} before or it is disabled.",
            "SERVICE_DISABLED",
        )
