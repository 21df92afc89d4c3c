"""Cloud Monitoring v3, as far as machines use it: writing time series, by whoever was granted it.

What was written isn't kept: the local cloud draws no charts, and `make logs` has what the machine said of it.
cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/create
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from localcloud.apis.google import authenticate, refusal
from localcloud.cloud import CloudError
from localcloud.iam import may_write_metrics

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_MOST_SERIES = 200


def routes(cloud: Cloud) -> list[BaseRoute]:
    """The API's routes, to be mounted at /monitoring."""

    async def write(request: Request) -> Response:
        try:
            identity = authenticate(cloud, request.headers.get("authorization", ""))
            if request.path_params["project"] != cloud.settings.project or not may_write_metrics(
                cloud.store, identity.email
            ):
                raise CloudError(
                    403, "Permission monitoring.timeSeries.create denied (or the resource may not exist)."
                )
            _check(await request.body())
        except CloudError as error:
            return refusal(error)
        return JSONResponse({})

    return [Route("/v3/projects/{project}/timeSeries", write, methods=["POST"])]


def _check(body: bytes) -> None:
    try:
        series = json.loads(body)["timeSeries"]
        kinds = [(each["metric"]["type"], each["resource"]["type"], len(each["points"])) for each in series]
    except (ValueError, KeyError, TypeError):
        raise CloudError(400, "Request contains an invalid argument.") from None
    if not 0 < len(kinds) <= _MOST_SERIES or any(points != 1 for _, _, points in kinds):
        raise CloudError(400, "A request writes 1 to 200 time series with one point each.")
