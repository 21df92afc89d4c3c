"""Cloud Run Admin API v2, as far as deployments use it: executing a job and waiting for its end, and
looking at what was deployed.

cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run, and the long-running operations
of google.aip.dev/151. Only the person at this machine may execute jobs: the token that
`python -m localcloud env` prints is theirs.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from localcloud.apis.google import access_token, authenticate, refusal
from localcloud.cloud import CloudError
from localcloud.iam import CLOUD_PLATFORM, Identity
from localcloud.machines.cloudrun import Execution, run_job

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

PERSON = "person@local"
RUN_JOB = "gcp:cloudrunv2/job:Job"
RUN_SERVICE = "gcp:cloudrunv2/service:Service"
_JOB = "/v2/projects/{project}/locations/{location}/jobs/{job}:run"
_SERVICE = "/v2/projects/{project}/locations/{location}/services/{service}"
_OPERATION = "/v2/projects/{project}/locations/{location}/operations/{operation}"
_FAILED = 9  # google.rpc.Code.FAILED_PRECONDITION
_EXECUTION_TYPE = "type.googleapis.com/google.cloud.run.v2.Execution"


@dataclass
class _Operation:
    """One execution under way or over. `task` gives its end; the loop must not forget it before."""

    job: str
    task: asyncio.Task[Execution]


@dataclass
class Operations:
    """The operations that were begun since the daemon's start, by name."""

    cloud: Cloud
    known: dict[str, _Operation] = field(default_factory=dict)

    def begin(self, job: str, place: str) -> str:
        """Start executing a job ("projects/P/locations/L/jobs/N"); returns the operation's name.

        Raises `CloudError` 404 if there is no such job.
        """
        declared = self.cloud.store.get(RUN_JOB, job)
        if declared is None:
            raise CloudError(
                404, f"Resource '{job.rpartition('/')[2]}' of kind 'JOB' in {place} does not exist."
            )
        name = f"{place}/operations/{secrets.token_hex(16)}"
        execution = run_job(self.cloud, str(declared.outputs["name"]), declared.inputs)
        self.known[name] = _Operation(job, asyncio.create_task(execution))
        return name

    def describe(self, name: str) -> dict[str, Any]:
        """An operation as the API answers it. Raises `CloudError` 404."""
        operation = self.known.get(name)
        if operation is None:
            raise CloudError(404, f"Requested entity was not found: {name}")
        answer: dict[str, Any] = {"name": name, "metadata": {"@type": _EXECUTION_TYPE, "job": operation.job}}
        if not operation.task.done():
            return answer
        return {**answer, "done": True, **_end(operation)}


def _end(operation: _Operation) -> dict[str, Any]:
    try:
        execution = operation.task.result()
    except CloudError as error:
        return {"error": {"code": _FAILED, "message": error.message}}
    name = f"{operation.job}/executions/{execution.name}"
    if not execution.succeeded:
        message = (
            f"The execution {name} failed with exit status {execution.exit_status} after "
            f"{execution.attempts} attempts. Its last lines:\n{execution.log}"
        )
        return {"error": {"code": _FAILED, "message": message}}
    return {"response": {"@type": _EXECUTION_TYPE, "name": name, "succeededCount": 1}}


def routes(cloud: Cloud) -> list[BaseRoute]:
    """The API's routes, to be mounted at /run."""
    operations = Operations(cloud)

    async def run(request: Request) -> Response:
        try:
            place = _authorized_place(cloud, request)
            name = operations.begin(f"{place}/jobs/{request.path_params['job']}", place)
            return JSONResponse(operations.describe(name))
        except CloudError as error:
            return refusal(error)

    async def operation(request: Request) -> Response:
        try:
            place = _authorized_place(cloud, request)
            return JSONResponse(operations.describe(f"{place}/operations/{request.path_params['operation']}"))
        except CloudError as error:
            return refusal(error)

    async def service(request: Request) -> Response:
        try:
            place = _authorized_place(cloud, request, "run.services.get")
            return JSONResponse(_described(cloud, f"{place}/services/{request.path_params['service']}"))
        except CloudError as error:
            return refusal(error)

    async def unknown(request: Request) -> Response:
        return refusal(CloudError(404, f"The requested URL {request.url.path} was not found on this server."))

    return [
        Route(_JOB, run, methods=["POST"]),
        Route(_OPERATION, operation),
        Route(_SERVICE, service),
        Route("/{rest:path}", unknown),
    ]


def _described(cloud: Cloud, name: str) -> dict[str, Any]:
    """A service as the API describes it. Raises `CloudError` 404."""
    found = cloud.store.get(RUN_SERVICE, name)
    if found is None:
        raise CloudError(404, f"Resource '{name.rpartition('/')[2]}' of kind 'SERVICE' does not exist.")
    template = dict(found.outputs["template"])
    # What the provider calls `envs` is `env` in the API.
    template["containers"] = [
        {("env" if key == "envs" else key): value for key, value in container.items()}
        for container in template.get("containers") or []
    ]
    return {"name": name, "uri": found.outputs.get("uri"), "template": template}


def _authorized_place(cloud: Cloud, request: Request, permission: str = "run.jobs.run") -> str:
    """The location that is spoken of. Raises `CloudError` 401 or 403."""
    identity = authenticate(cloud, request.headers.get("authorization", ""))
    project, location = request.path_params["project"], request.path_params["location"]
    if identity.email != PERSON or project != cloud.settings.project:
        raise CloudError(403, f"Permission '{permission}' denied on resource 'projects/{project}'.")
    return f"projects/{project}/locations/{location}"


def client_settings(cloud: Cloud) -> dict[str, str]:
    """What a person's client needs: CLOUD_RUN_ENDPOINT, and an access token of theirs for an hour."""
    return {
        "CLOUD_RUN_ENDPOINT": f"{cloud.settings.api_url}/run",
        "GOOGLE_OAUTH_ACCESS_TOKEN": access_token(cloud, Identity(PERSON, (CLOUD_PLATFORM,))),
    }
