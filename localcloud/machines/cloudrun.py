"""Cloud Run: services that roll from revision to revision, and jobs that run to their end.

`deploy` takes the inputs of a gcp:cloudrunv2/service:Service as declared. A new revision is started
and probed before connections go to it; the old one keeps the connections it has for a short while.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from localcloud.cloud import CloudError
from localcloud.machines.container import DEFAULT_ACCOUNT, container_of, program_of
from localcloud.machines.front import NOTES, Fronts, machine_name
from localcloud.machines.jobs import Execution, run_job
from localcloud.topology import short

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

__all__ = ["Execution", "deploy", "describe", "remove", "resume", "run_job"]

DRAIN_SECONDS = 3.0


async def deploy(cloud: Cloud, service: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Create or update a service; returns what Cloud Run computes (uri, revisions, conditions).

    An unchanged template makes no new revision. Raises `CloudError` 400 in Cloud Run's words when
    the revision doesn't become ready: connections then stay with the one before, and a service
    that had none is gone again.
    """
    async with _lock(cloud, service):
        note = cloud.store.notes(NOTES).get(service) or {"generation": 0, "active": ""}
        spec = _specification(service, inputs)
        # Whatever changes in the template makes a revision, an annotation as well as a variable.
        declared = [spec, inputs.get("template")]
        template = hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()
        note |= {
            "location": inputs.get("location") or note.get("location", ""),
            "ingress": inputs.get("ingress") or "INGRESS_TRAFFIC_ALL",
            "invoker_iam_disabled": bool(inputs.get("invokerIamDisabled")),
        }
        changed = note.get("template") != template or _status(cloud, service, note) != "RUNNING"
        if changed:
            program_of(cloud, spec["container"])  # an image that isn't there fails before anything is made
            note["generation"] += 1
        cloud.store.note(NOTES, service, note)
        await Fronts.of(cloud).open(service)
        if changed:
            await _roll_over(cloud, service, spec, template, inputs)
        cloud.network.changed()
        return _outputs(cloud, service)


async def remove(cloud: Cloud, service: str) -> None:
    """Delete a service with all its revisions. Deleting what isn't there is not an error."""
    async with _lock(cloud, service):
        await _remove(cloud, service)


def describe(cloud: Cloud, service: str) -> dict[str, Any] | None:
    """What Cloud Run computes for a service; None when there is no such service."""
    return _outputs(cloud, service) if service in cloud.store.notes(NOTES) else None


async def resume(cloud: Cloud) -> None:
    """After the daemon's start: open the fronts, and forget revisions that had lost their traffic."""
    services = cloud.store.notes(NOTES)
    for execution in cloud.store.notes("run.executions"):
        cloud.store.forget("run.executions", execution)
    for name in cloud.machines.names("run"):
        _, service, revision = name.split("/")
        if services.get(service, {}).get("active") != revision:
            await cloud.machines.delete(name)
    for service, note in services.items():
        if note["active"]:
            await Fronts.of(cloud).open(service)
        else:
            await _remove(cloud, service)


async def settle(cloud: Cloud) -> None:
    """At the daemon's end: don't wait for revisions to drain, and forget those that were."""
    tasks: set[asyncio.Task[None]] = cloud.extensions.get("run.retiring", set())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _roll_over(
    cloud: Cloud, service: str, spec: dict[str, Any], template: str, inputs: Mapping[str, Any]
) -> None:
    note = cloud.store.notes(NOTES)[service]
    declared = (inputs.get("template") or {}).get("revision")
    revision = declared or f"{service}-{note['generation']:05d}-{template[:3]}"
    name = f"run/{service}/{revision}"
    if cloud.machines.status(name) != "ABSENT" and declared:
        raise CloudError(409, f"Revision named '{revision}' with different configuration already exists.")
    await cloud.machines.delete(name)
    try:
        await cloud.machines.boot(name, "run", {**spec, "revision": revision})
    except CloudError as error:
        await cloud.machines.delete(name)
        if not note["active"]:
            await _remove(cloud, service)
        raise CloudError(
            error.status,
            f"Revision '{revision}' is not ready and cannot serve traffic. {error.message}",
            error.reason,
        ) from None
    before = note["active"]
    note = cloud.store.notes(NOTES)[service]
    note |= {key: spec[key] for key in ("vpc_access", "service_account")}
    cloud.store.note(NOTES, service, {**note, "active": revision, "template": template})
    if before and before != revision:
        _retire(cloud, f"run/{service}/{before}")


def _retire(cloud: Cloud, machine: str) -> None:
    """End a revision that gets no new connections, after a while for those it has."""

    async def drain() -> None:
        await asyncio.sleep(DRAIN_SECONDS)
        await cloud.machines.delete(machine)

    tasks: set[asyncio.Task[None]] = cloud.extensions.setdefault("run.retiring", set())
    task = asyncio.create_task(drain())
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _remove(cloud: Cloud, service: str) -> None:
    Fronts.of(cloud).close(service)
    for name in cloud.machines.names("run"):
        if name.startswith(f"{machine_name(service)}/"):
            await cloud.machines.delete(name)
    cloud.store.forget(NOTES, service)
    cloud.network.changed()


def _specification(service: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    template = inputs.get("template") or {}
    always_on = (template.get("scaling") or {}).get("minInstanceCount") or 0
    always_on = max(always_on, (inputs.get("scaling") or {}).get("minInstanceCount") or 0)
    return {
        "service": service,
        "container": container_of(template),
        # Cloud Run scales to zero without a minimum; here one instance stays, which is what a caller
        # would see of it but for the wait of a cold start.
        "instances": max(1, int(always_on)),
        "service_account": short(template.get("serviceAccount")) or DEFAULT_ACCOUNT,
        "vpc_access": template.get("vpcAccess") or {},
    }


def _outputs(cloud: Cloud, service: str) -> dict[str, Any]:
    note = cloud.store.notes(NOTES)[service]
    parent = f"projects/{cloud.settings.project}/locations/{note['location']}/services/{service}"
    status = _status(cloud, service, note)
    return {
        "uri": note["uri"],
        "urls": [note["uri"]],
        "generation": str(note["generation"]),
        "observedGeneration": str(note["generation"]),
        "latestCreatedRevision": f"{parent}/revisions/{note['active']}",
        "latestReadyRevision": f"{parent}/revisions/{note['active']}",
        "reconciling": False,
        "terminalConditions": [
            {"type": "Ready", "state": "CONDITION_SUCCEEDED" if status == "RUNNING" else "CONDITION_FAILED"}
        ],
        "trafficStatuses": [{"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}],
    }


def _status(cloud: Cloud, service: str, note: Mapping[str, Any]) -> str:
    return cloud.machines.status(f"run/{service}/{note['active']}")


def _lock(cloud: Cloud, service: str) -> asyncio.Lock:
    locks: dict[str, asyncio.Lock] = cloud.extensions.setdefault("run.locks", {})
    return locks.setdefault(service, asyncio.Lock())
