"""Cloud Run jobs: a container that runs to its end, with retries and a time limit."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localcloud.machines.container import DEFAULT_ACCOUNT, container_of, environment_of, program_of
from localcloud.machines.host import MachineHost
from localcloud.topology import short

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_NOTES = "run.executions"
_LOG_LINES = 200


@dataclass(frozen=True)
class Execution:
    """How one execution of a job ended."""

    name: str
    succeeded: bool
    exit_status: int  # of the last attempt; 124 when its time was over
    attempts: int
    log: str  # the last lines that it printed


async def run_job(
    cloud: Cloud,
    job: str,
    inputs: Mapping[str, Any],
    *,
    args: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Execution:
    """Execute a job as it is declared (inputs of gcp:cloudrunv2/job:Job) and wait for its end.

    `args` and `env` override the declared ones for this execution. Raises `CloudError` 400 in Cloud
    Run's words when it can't be started: no such image, a secret its account may not read.
    """
    template = (inputs.get("template") or {}).get("template") or {}
    container = container_of(template)
    account = short(template.get("serviceAccount")) or DEFAULT_ACCOUNT
    program = program_of(cloud, container, args)
    execution = f"{job}-{secrets.token_hex(3)[:5]}"
    host = MachineHost(cloud, f"job/{execution}", "run", "")
    cloud.store.note(
        _NOTES, execution, {"vpc_access": template.get("vpcAccess") or {}, "service_account": account}
    )
    run = _Run(host, job, execution, int(template.get("maxRetries", 3)), _seconds(template.get("timeout")))
    host.power_on()
    try:
        declared = environment_of(cloud, container, account, host.run / "volumes")
        return await run.to_its_end(program.argv, program.cwd, program.env | declared | dict(env or {}))
    finally:
        await host.power_off()
        host.erase()
        cloud.store.forget(_NOTES, execution)


@dataclass(frozen=True)
class _Run:
    host: MachineHost
    job: str
    execution: str
    retries: int
    seconds: float

    async def to_its_end(self, argv: list[str], cwd: Any, env: dict[str, str]) -> Execution:
        """Attempt after attempt until one exits with 0 or the retries are used up."""
        attempt, status = 0, 0
        for attempt in range(self.retries + 1):
            about = {
                "CLOUD_RUN_JOB": self.job,
                "CLOUD_RUN_EXECUTION": self.execution,
                "CLOUD_RUN_TASK_INDEX": "0",
                "CLOUD_RUN_TASK_COUNT": "1",
                "CLOUD_RUN_TASK_ATTEMPT": str(attempt),
            }
            process = await self.host.spawn(argv, env=env | about, cwd=cwd, log=self.job)
            try:
                status = await asyncio.wait_for(process.wait(), self.seconds)
            except TimeoutError:
                self.host.log(
                    f"Terminating task because it has reached the maximum timeout of {self.seconds} s."
                )
                await process.stop()
                status = 124
            if status == 0:
                break
            self.host.log(f"Container called exit({status}).")
        return Execution(self.execution, status == 0, status, attempt + 1, self._last_lines())

    def _last_lines(self) -> str:
        path = self.host.log_file.path
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(lines[-_LOG_LINES:])


def _seconds(timeout: Any) -> float:
    """A protobuf duration such as "600s"; ten minutes when none is declared, as in Cloud Run."""
    return float(str(timeout).removesuffix("s")) if timeout else 600.0
