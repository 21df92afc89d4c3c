"""Cloud Scheduler at work: calls each job's URL when its time has come, with a token of its service account.

cloud.google.com/scheduler/docs/http-target-auth. The token is signed by the local issuer; a Cloud Run
service that isn't public admits it if the account may invoke that service. An attempt that fails is repeated
as `retryConfig` says, then left until the schedule's next time. Google may deliver twice; this does it once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from localcloud.apis.oidc import signed
from localcloud.cron import parse
from localcloud.machines.front import Fronts

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

JOB = "gcp:cloudscheduler/job:Job"
_TOKEN_SECONDS = 3600
_FIRST_BACKOFF, _LONGEST_BACKOFF = 5.0, 3600.0  # Cloud Scheduler's defaults, in seconds
_DOUBLINGS = 5


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Scheduler:
    """The jobs that wait for their time, a task each."""

    def __init__(
        self,
        cloud: Cloud,
        now: Callable[[], datetime] = _utc_now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cloud = cloud
        self._now, self._sleep = now, sleep
        self._waiting: dict[str, asyncio.Task[None]] = {}

    @classmethod
    def of(cls, cloud: Cloud) -> Scheduler:
        """The cloud's scheduler; made when first asked for."""
        found: Scheduler = cloud.extensions.setdefault("scheduler", cls(cloud))
        return found

    def resume(self) -> None:
        """After the daemon's start: every job waits again."""
        for job in self._cloud.store.all(JOB):
            self.declare(job.id, job.outputs)

    def declare(self, job: str, declared: Mapping[str, Any]) -> None:
        """Have a job run as it is declared from now on (outputs of a gcp:cloudscheduler/job:Job)."""
        self.remove(job)
        if not declared.get("paused"):
            self._waiting[job] = asyncio.create_task(self._run(job, dict(declared)))

    def remove(self, job: str) -> None:
        """No more runs."""
        task = self._waiting.pop(job, None)
        if task:
            task.cancel()

    async def close(self) -> None:
        """At the daemon's end: no job runs any more."""
        tasks, self._waiting = list(self._waiting.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: str, declared: dict[str, Any]) -> None:
        schedule = parse(declared["schedule"], declared.get("timeZone") or "Etc/UTC")
        while True:
            now = self._now()
            await self._sleep((schedule.after(now) - now).total_seconds())
            await self._deliver(job, declared)

    async def _deliver(self, job: str, declared: Mapping[str, Any]) -> None:
        """One run: attempts until one succeeds or they are used up."""
        retry = declared.get("retryConfig") or {}
        pause = _seconds(retry.get("minBackoffDuration"), _FIRST_BACKOFF)
        longest = _seconds(retry.get("maxBackoffDuration"), _LONGEST_BACKOFF)
        doublings = int(retry.get("maxDoublings") or _DOUBLINGS)
        for attempt in range(int(retry.get("retryCount") or 0) + 1):
            if attempt:
                await self._sleep(min(pause, longest))
                pause *= 2 if attempt <= doublings else 1
            said = await self.attempt(declared)
            self._cloud.log.info("scheduler: %s: %s", job.rpartition("/")[2], said)
            if said.startswith("2"):
                return

    async def attempt(self, declared: Mapping[str, Any]) -> str:
        """Call a job's URL once: the status of the answer, or why there was none."""
        target = declared["httpTarget"]
        headers = dict(target.get("headers") or {})
        account = target.get("oidcToken") or {}
        email = account.get("serviceAccountEmail", "")
        if email:
            audience = account.get("audience") or target["uri"].partition("?")[0]
            headers["Authorization"] = f"Bearer {self._token(email, audience)}"
        socket = Fronts.of(self._cloud).socket_for(target["uri"], email)
        transport = httpx.AsyncHTTPTransport(uds=str(socket) if socket else None)
        deadline = _seconds(declared.get("attemptDeadline"), 180.0)
        body = base64.b64decode(target.get("body") or "")
        try:
            async with (
                asyncio.timeout(deadline),
                httpx.AsyncClient(transport=transport, timeout=deadline) as client,
            ):
                method = target.get("httpMethod") or "POST"
                answer = await client.request(method, target["uri"], headers=headers, content=body)
                return f"{answer.status_code} {answer.reason_phrase}"
        except TimeoutError:
            return f"no answer within {deadline:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"no answer: {type(error).__name__}"

    def _token(self, email: str, audience: str) -> str:
        number = str(int.from_bytes(hashlib.sha256(email.encode()).digest()[:7], "big"))
        claims = {"aud": audience, "azp": number, "sub": number, "email": email, "email_verified": True}
        return signed(self._cloud, claims, _TOKEN_SECONDS)


def _seconds(duration: Any, otherwise: float) -> float:
    """A protobuf duration, "3.5s"."""
    return float(str(duration).removesuffix("s")) if duration else otherwise
