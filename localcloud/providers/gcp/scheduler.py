"""Cloud Scheduler: jobs that call a URL at their time."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Any

from localcloud import cron
from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import ACCOUNT, GcpHandler, plain
from localcloud.scheduler import JOB, Scheduler
from localcloud.state import Resource

_NAME = re.compile(r"[A-Za-z\d_-]{1,500}")
_DEADLINES = (15, 1800)  # seconds, for HTTP targets
_METHODS = frozenset({"POST", "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"})


class Job(GcpHandler):
    """A job with an HTTP target. It is called from its creation on, unless it is paused."""

    token = JOB
    id_format = "projects/{project}/locations/{region}/jobs/{name}"
    noun = "Job"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_place(inputs)
        if not _NAME.fullmatch(inputs["name"]):
            raise _bad(f"Job name must be formatted: projects/P/locations/L/jobs/J, not '{inputs['name']}'.")
        target = inputs.get("httpTarget")
        if target is None:
            raise CloudError(501, "the local cloud's scheduler calls HTTP targets only")
        try:
            schedule = cron.parse(inputs.get("schedule") or "", inputs.get("timeZone") or "Etc/UTC")
            schedule.after(datetime.now(UTC))
        except ValueError as error:
            raise _bad(f"Schedule or time zone is invalid. (Here: {error}; unix-cron only.)") from None
        self._verify_target(target, inputs["project"])
        deadline = float(str(inputs.get("attemptDeadline") or "180s").removesuffix("s"))
        if not _DEADLINES[0] <= deadline <= _DEADLINES[1]:
            raise _bad(
                f"The attempt deadline must be between [{_DEADLINES[0]}s, {_DEADLINES[1]}s] for HTTP targets."
            )

    def _verify_target(self, target: dict[str, Any], project: str) -> None:
        if not str(target["uri"]).startswith(("http://", "https://")):
            raise _bad(f"HttpTarget.uri must begin with http:// or https://: '{target['uri']}'")
        if (target.get("httpMethod") or "POST").upper() not in _METHODS:
            raise _bad(f"HttpTarget.http_method '{target['httpMethod']}' isn't a method.")
        if target.get("oauthToken"):
            raise CloudError(501, "the local cloud's scheduler sends OIDC tokens, not access tokens")
        try:
            base64.b64decode(target.get("body") or "", validate=True)
        except (binascii.Error, ValueError):
            raise _bad("HttpTarget.body isn't base64.") from None
        email = plain((target.get("oidcToken") or {}).get("serviceAccountEmail") or "")
        account = f"projects/{project}/serviceAccounts/{email}"
        own = email.endswith(f"@{project}.iam.gserviceaccount.com")
        if own and self.cloud.store.get(ACCOUNT, account) is None:
            raise CloudError(404, f"Service account {email} does not exist.", "notFound")

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(409, f"Job {resource_id} already exists.", "alreadyExists")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        paused = bool(inputs.get("paused"))
        return {"paused": paused, "state": "PAUSED" if paused else "ENABLED"}

    async def started(self, resource: Resource) -> None:
        Scheduler.of(self.cloud).declare(resource.id, resource.outputs)

    async def changed(self, old: Resource, new: Resource) -> None:
        Scheduler.of(self.cloud).declare(new.id, new.outputs)

    async def stopped(self, resource: Resource) -> None:
        Scheduler.of(self.cloud).remove(resource.id)


def _bad(message: str) -> CloudError:
    return CloudError(400, message, "badRequest")


HANDLERS = (Job,)
