"""Cloud Scheduler's jobs: what is refused, and that a declared one runs until it is deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import ACCOUNT
from localcloud.scheduler import JOB, Scheduler
from tests.providers.conftest import Declared

EMAIL = "clock@local.iam.gserviceaccount.com"


def job(**changes: Any) -> dict[str, Any]:
    target = {"uri": "http://127.0.0.1:1/", "oidcToken": {"serviceAccountEmail": EMAIL}}
    return {"name": "tick", "region": "us-west1", "schedule": "0 0 1 1 *", "httpTarget": target, **changes}


@pytest.fixture
async def project(declared: Declared) -> AsyncIterator[Declared]:
    await declared(ACCOUNT, accountId="clock")
    yield declared
    await Scheduler.of(declared.provider.cloud).close()


async def test_a_job_waits_for_its_time_until_it_is_deleted(project: Declared) -> None:
    made = await project(JOB, **job())
    assert made.id == "projects/local/locations/us-west1/jobs/tick"
    assert made.outputs["state"] == "ENABLED"
    waiting = Scheduler.of(project.provider.cloud)._waiting
    assert list(waiting) == [made.id]
    paused = await project.handler(JOB).update(made.id, job(paused=True))
    assert (paused.outputs["state"], list(waiting)) == ("PAUSED", [])
    await project.handler(JOB).update(made.id, job())
    assert list(waiting) == [made.id]
    await project.handler(JOB).delete(made.id)
    assert list(waiting) == []


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"name": "a job"}, 400, "must be formatted"),
        ({"region": "us-wst1"}, 404, "us-wst1"),
        ({"schedule": "every 5 minutes"}, 400, "Schedule or time zone is invalid"),
        ({"schedule": "0 0 31 2 *"}, 400, "a date that never comes"),
        ({"timeZone": "Mars/Olympus"}, 400, "Schedule or time zone is invalid"),
        ({"attemptDeadline": "5s"}, 400, r"between \[15s, 1800s\]"),
        ({"httpTarget": {"uri": "ftp://x"}}, 400, "begin with http"),
        ({"httpTarget": {"uri": "http://x", "httpMethod": "BREW"}}, 400, "BREW"),
        ({"httpTarget": {"uri": "http://x", "body": "%"}}, 400, "base64"),
        (
            {"httpTarget": {"uri": "http://x", "oauthToken": {"serviceAccountEmail": EMAIL}}},
            501,
            "OIDC tokens",
        ),
        (
            {"httpTarget": {"uri": "http://x", "oidcToken": {"serviceAccountEmail": "no-" + EMAIL}}},
            404,
            "no-clock@",
        ),
        ({"httpTarget": None, "pubsubTarget": {"topicName": "t"}}, 501, "HTTP targets only"),
    ],
)
async def test_what_the_api_refuses(
    project: Declared, changes: dict[str, Any], status: int, says: str
) -> None:
    with pytest.raises(CloudError, match=says) as refused:
        await project(JOB, **job(**changes))
    assert refused.value.status == status
