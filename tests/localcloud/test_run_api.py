"""Executing a Cloud Run job over its REST API, as deployments do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from localcloud.apis.app import application
from localcloud.apis.google import access_token
from localcloud.apis.run import client_settings
from localcloud.cloud import Cloud
from localcloud.iam import CLOUD_PLATFORM, Identity
from localcloud.state import Resource

IMAGE = "us-west1-docker.pkg.dev/local/app/app:1"
JOB = "projects/local/locations/us-west1/jobs/migrate"
RUN = f"/run/v2/{JOB}:run"


@pytest.fixture
def job(tmp_path: Path, cloud: Cloud) -> Resource:
    """A job whose container exits with the status that it is given."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "Dockerfile").write_text('FROM python:3.12-slim\nENTRYPOINT ["python", "app.py"]\n')
    (folder / "app.py").write_text("import sys; print('migrating'); sys.exit(int(sys.argv[1]))\n")
    cloud.store.note("images", IMAGE, str(folder))
    container = {"image": IMAGE, "args": ["0"]}
    inputs = {"template": {"template": {"containers": [container], "maxRetries": 0}}}
    resource = Resource("gcp:cloudrunv2/job:Job", JOB, inputs, {"name": "migrate"})
    cloud.store.put(resource)
    return resource


@pytest.fixture
async def person(cloud: Cloud) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the token of the person at this machine."""
    token = client_settings(cloud)["GOOGLE_OAUTH_ACCESS_TOKEN"]
    transport = httpx.ASGITransport(application(cloud))
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        yield client


async def ended(client: httpx.AsyncClient, operation: dict[str, Any]) -> dict[str, Any]:
    """The operation once it is done."""
    while not operation.get("done"):
        await asyncio.sleep(0.01)  # an operation is polled: its API has no event
        operation = (await client.get(f"/run/v2/{operation['name']}")).raise_for_status().json()
    return operation


async def test_a_job_that_succeeds_says_so(person: httpx.AsyncClient, job: Resource) -> None:
    begun = (await person.post(RUN)).raise_for_status().json()
    assert "done" not in begun, "the answer doesn't wait for the job"
    end = await ended(person, begun)
    assert end["response"]["succeededCount"] == 1
    assert end["response"]["name"].startswith(f"{JOB}/executions/migrate-")


async def test_a_job_that_fails_tells_what_it_printed(
    person: httpx.AsyncClient, cloud: Cloud, job: Resource
) -> None:
    job.inputs["template"]["template"]["containers"][0]["args"] = ["3"]
    cloud.store.put(job)
    end = await ended(person, (await person.post(RUN)).json())
    assert "exit status 3" in end["error"]["message"]
    assert "migrating" in end["error"]["message"]


async def test_a_job_whose_image_nobody_pushed_fails(
    person: httpx.AsyncClient, cloud: Cloud, job: Resource
) -> None:
    cloud.store.forget("images", IMAGE)
    end = await ended(person, (await person.post(RUN)).json())
    assert IMAGE in end["error"]["message"]


async def test_an_unknown_job_or_operation_is_not_found(person: httpx.AsyncClient, cloud: Cloud) -> None:
    assert (await person.post(RUN)).status_code == 404
    other = "/run/v2/projects/local/locations/us-west1/operations/nothing"
    assert (await person.get(other)).status_code == 404


async def test_only_the_person_may_execute_jobs(cloud: Cloud, job: Resource) -> None:
    service = access_token(cloud, Identity("api@local.iam.gserviceaccount.com", (CLOUD_PLATFORM,)))
    transport = httpx.ASGITransport(application(cloud))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        assert (await client.post(RUN)).status_code == 401
        answer = await client.post(RUN, headers={"Authorization": f"Bearer {service}"})
    assert answer.status_code == 403, "a service account would need a grant, and none is declared"
