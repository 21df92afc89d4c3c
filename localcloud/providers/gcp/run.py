"""Cloud Run: services that are really started, and jobs that really run."""

from __future__ import annotations

import re
from typing import Any

from localcloud.cloud import CloudError
from localcloud.machines import cloudrun
from localcloud.providers.gcp.base import (
    ACCOUNT,
    CONNECTOR,
    RUN_JOB,
    RUN_SERVICE,
    GcpHandler,
    numbered,
    plain,
    reference,
)
from localcloud.providers.gcp.private_access import Connector
from localcloud.providers.resource import PartlyCreated, digest, now, number
from localcloud.state import Resource

NAME_LIMIT = 49
RESERVED_VARIABLES = frozenset({"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"})
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_CPU = re.compile(r"(\d+)(m?)|0?\.\d+")
MAX_CONCURRENCY = 1000
MAX_TIMEOUT_SECONDS = 3600


class RunHandler(GcpHandler):
    """What services and jobs have in common."""

    def verify_name(self, inputs: dict[str, Any]) -> None:
        """Refuse a name that no URL can hold."""
        name = inputs["name"]
        if not _NAME.fullmatch(name) or len(name) > NAME_LIMIT:
            raise _bad(
                f"Violation in Create{self.noun}Request.{self.noun.lower()}_id: must be {NAME_LIMIT} "
                "characters or "
                f"fewer of a-z, 0-9 and -, begin with a letter and not end with a hyphen: '{name}'"
            )

    def verify_workload(self, template: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Refuse what a revision or task names and isn't there."""
        email = template.get("serviceAccount")
        own = f"@{inputs['project']}.iam.gserviceaccount.com"
        if email and plain(email).endswith(own):
            resource_id = f"projects/{inputs['project']}/serviceAccounts/{plain(email)}"
            if self.cloud.store.get(ACCOUNT, resource_id) is None:
                raise _bad(f"Service account {plain(email)} does not exist.")
        connector = (template.get("vpcAccess") or {}).get("connector")
        if connector:
            pattern = Connector.id_format.replace("{region}", inputs["location"])
            resource_id = reference(connector, pattern, inputs)
            if self.cloud.store.get(CONNECTOR, resource_id) is None:
                raise _bad(
                    f"VPC connector {resource_id} does not exist, or Cloud Run does not have "
                    "permission to use it."
                )
            if f"/locations/{inputs['location']}/" not in resource_id:
                raise _bad(f"VPC connector {resource_id} must be in region {inputs['location']}.")
        for nic in (template.get("vpcAccess") or {}).get("networkInterfaces") or []:
            places = {**inputs, "region": inputs["location"]}
            if nic.get("network"):
                self.network(nic["network"], places)
            if nic.get("subnetwork"):
                self.subnetwork(nic["subnetwork"], places)
        for container in template.get("containers") or []:
            _verify_container(container)

    def verify_delete(self, resource: Resource) -> None:
        if resource.outputs.get("deletionProtection"):
            raise CloudError(
                400,
                f"cannot destroy {self.noun.lower()} without setting deletion_protection=false and running "
                "`terraform apply`",
            )

    def lifecycle(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        """Outputs that every Cloud Run resource has."""
        return {
            "conditions": [],
            "createTime": old.outputs["createTime"] if old else now(),
            "creator": "local",
            "deleteTime": "",
            "effectiveAnnotations": inputs.get("annotations") or {},
            "etag": f'"{digest(id, inputs)}"',
            "expireTime": "",
            "lastModifier": "local",
            "launchStage": inputs.get("launchStage") or "GA",
            "uid": old.outputs["uid"] if old else number(resource_id, now()),
            "updateTime": now(),
        }


def _verify_container(container: dict[str, Any]) -> None:
    names = [env["name"] for env in container.get("envs") or []]
    reserved = RESERVED_VARIABLES.intersection(names)
    if reserved:
        raise _bad(
            f"The following reserved env names were provided: {', '.join(sorted(reserved))}. "
            "These values are automatically set by the system."
        )
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise _bad(f"The following env names were provided more than once: {', '.join(sorted(twice))}.")
    resources = container.get("resources") or {}
    cpu = (resources.get("limits") or {}).get("cpu")
    if cpu is not None and not _CPU.fullmatch(cpu):
        raise _bad(f"Invalid value specified for cpu: {cpu}")
    if cpu is not None and resources.get("cpuIdle") is False and _cpus(cpu) < 1:
        raise _bad(
            "Invalid value specified for cpu. Total cpu < 1 is not supported with cpu-throttling set to "
            f"false: {cpu}"
        )


def _cpus(written: str) -> float:
    return float(written[:-1]) / 1000 if written.endswith("m") else float(written)


class Service(RunHandler):
    """A service: its newest revision is running and ready when `up` is done, or `up` fails."""

    token = RUN_SERVICE
    id_format = "projects/{project}/locations/{location}/services/{name}"
    noun = "Service"
    shapes_network = True

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_location(inputs["location"])
        self.verify_name(inputs)
        template = inputs["template"]
        scaling = template.get("scaling") or {}
        low, high = scaling.get("minInstanceCount") or 0, scaling.get("maxInstanceCount")
        if high is not None and high < max(low, 1):
            raise _bad(f"min_instance_count ({low}) must not be more than max_instance_count ({high}).")
        concurrency = template.get("maxInstanceRequestConcurrency")
        if concurrency is not None and not 0 <= concurrency <= MAX_CONCURRENCY:
            raise _bad(
                f"max_instance_request_concurrency must be between 0 and {MAX_CONCURRENCY}: {concurrency}"
            )
        timeout = template.get("timeout")
        if timeout and float(timeout.removesuffix("s")) > MAX_TIMEOUT_SECONDS:
            raise _bad(f"timeout must be at most {MAX_TIMEOUT_SECONDS}s: {timeout}")
        self.verify_workload(template, inputs)

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(409, f"Resource '{inputs['name']}' already exists.", "alreadyExists")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        found = self.lifecycle(resource_id, inputs, old)
        found["ingress"] = inputs.get("ingress") or "INGRESS_TRAFFIC_ALL"
        latest = {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}
        found["traffics"] = inputs.get("traffics") or [latest]
        return found

    async def started(self, resource: Resource) -> None:
        resource.outputs |= await self._deploy(resource)

    async def changed(self, old: Resource, new: Resource) -> None:
        new.outputs |= await self._deploy(new)

    async def _deploy(self, resource: Resource) -> dict[str, Any]:
        declared = self.complete(resource.inputs)
        return await cloudrun.deploy(self.cloud, resource.outputs["name"], declared)

    async def stopped(self, resource: Resource) -> None:
        await cloudrun.remove(self.cloud, resource.outputs["name"])

    async def observed(self, resource: Resource) -> Resource | None:
        found = cloudrun.describe(self.cloud, resource.outputs["name"])
        if found is None:
            return None
        resource.outputs |= found
        return resource


class Job(RunHandler):
    """A job. It runs when it is executed, or at `up` when one of its tokens changes."""

    token = RUN_JOB
    id_format = "projects/{project}/locations/{location}/jobs/{name}"
    noun = "Job"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_location(inputs["location"])
        self.verify_name(inputs)
        self.verify_workload(inputs["template"]["template"], inputs)

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(409, f"Resource '{inputs['name']}' already exists.", "alreadyExists")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        generation = str(int(old.outputs["generation"]) + 1 if old else 1)
        return self.lifecycle(resource_id, inputs, old) | {
            "executionCount": old.outputs["executionCount"] if old else 0,
            "generation": generation,
            "latestCreatedExecutions": old.outputs["latestCreatedExecutions"] if old else [],
            "observedGeneration": generation,
            "reconciling": False,
            "terminalConditions": [{"type": "Ready", "state": "CONDITION_SUCCEEDED"}],
        }

    async def started(self, resource: Resource) -> None:
        await self._execute_if_asked({}, resource)

    async def changed(self, old: Resource, new: Resource) -> None:
        await self._execute_if_asked(old.inputs, new)

    async def _execute_if_asked(self, before: dict[str, Any], resource: Resource) -> None:
        tokens = ("startExecutionToken", "runExecutionToken")
        if all(resource.inputs.get(t) in (None, before.get(t)) for t in tokens):
            return
        declared = self.complete(resource.inputs)
        execution = await cloudrun.run_job(self.cloud, resource.outputs["name"], declared)
        resource.outputs["executionCount"] += 1
        resource.outputs["latestCreatedExecutions"] = [{"name": execution.name}]
        if not execution.succeeded:
            error = CloudError(
                400,
                f"The execution {numbered(resource.id)}/executions/{execution.name} failed with exit status "
                f"{execution.exit_status}. Its last lines:\n{execution.log}",
                "failedPrecondition",
            )
            raise PartlyCreated(error, resource)


def _bad(message: str) -> CloudError:
    return CloudError(400, message, "badRequest")


HANDLERS = (Service, Job)
