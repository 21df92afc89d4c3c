"""The Cloud Run Admin API v2, as far as deployments use it: executing a job and waiting for its end.

cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run, .../projects.locations.operations/get
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from localcloud.apis.google import access_token, authenticate, refusal
from localcloud.cloud import CloudError
from localcloud.iam import CLOUD_PLATFORM, Identity
from localcloud.machines.cloudrun import run_job

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

# Whoever runs `pulumi up` is the project's owner; machines' service accounts may not execute jobs.
OPERATOR = "operator@local.invalid"
_JOB = "gcp:cloudrunv2/job:Job"
_LOCATION = "/v2/projects/{project}/locations/{location}"
_TAIL_LINES = 15


def client_settings(cloud: Cloud) -> dict[str, str]:
    """What a person's tools need to reach this API: its address, and an access token of the owner's."""
    return {
        "CLOUD_RUN_ENDPOINT": f"{cloud.settings.api_url}/cloudrun",
        "GOOGLE_OAUTH_ACCESS_TOKEN": access_token(cloud, Identity(OPERATOR, (CLOUD_PLATFORM,))),
    }


def routes(cloud: Cloud) -> list[BaseRoute]:
    """The API's routes, to be mounted at /cloudrun."""
    operations: dict[str, dict[str, Any]] = {}
    running: set[asyncio.Task[None]] = set()

    async def execute(request: Request) -> Response:
        try:
            _only_owner(cloud, request)
            job = "projects/{project}/locations/{location}/jobs/{job}".format_map(request.path_params)
            resource = cloud.store.get(_JOB, job)
            if resource is None:
                name = request.path_params["job"]
                raise CloudError(404, f"Resource '{name}' of kind 'JOB' does not exist.")
        except CloudError as error:
            return refusal(error)
        parent = job.rpartition("/jobs/")[0]
        name = f"{parent}/operations/{uuid.uuid4()}"
        operation = operations[name] = {"name": name, "done": False}
        task = asyncio.create_task(_follow(cloud, job, resource.inputs, operation))
        running.add(task)
        task.add_done_callback(running.discard)
        return JSONResponse(operation)

    async def look(request: Request) -> Response:
        try:
            _only_owner(cloud, request)
            found = operations.get(request.url.path.partition("/v2/")[2])
            if found is None:
                raise CloudError(404, "Operation not found.")
        except CloudError as error:
            return refusal(error)
        return JSONResponse(found)

    async def unknown(request: Request) -> Response:
        return refusal(CloudError(404, f"The requested URL {request.url.path} was not found on this server."))

    return [
        Route(f"{_LOCATION}/jobs/{{job}}:run", execute, methods=["POST"]),
        Route(f"{_LOCATION}/operations/{{operation}}", look),
        Route("/{rest:path}", unknown),
    ]


def _only_owner(cloud: Cloud, request: Request) -> None:
    who = authenticate(cloud, request.headers.get("authorization", ""))
    if who.email != OPERATOR:
        raise CloudError(403, f"Permission 'run.jobs.run' denied for {who.email}.")


async def _follow(cloud: Cloud, job: str, inputs: dict[str, Any], operation: dict[str, Any]) -> None:
    """Run the job to its end and complete the operation."""
    try:
        execution = await run_job(cloud, job.rpartition("/")[2], inputs)
    except CloudError as error:
        operation |= {"done": True, "error": {"code": error.status, "message": error.message}}
        return
    tail = "\n".join(execution.log.splitlines()[-_TAIL_LINES:])
    state = "CONDITION_SUCCEEDED" if execution.succeeded else "CONDITION_FAILED"
    message = "" if execution.succeeded else f"exit status {execution.exit_status}. Its last lines:\n{tail}"
    operation |= {
        "done": True,
        "response": {
            "name": f"{job}/executions/{execution.name}",
            "succeededCount": int(execution.succeeded),
            "failedCount": int(not execution.succeeded),
            "conditions": [{"type": "Completed", "state": state, "message": message}],
        },
    }
