"""Actions: the work that DigitalOcean does after it has answered, and the lock that it puts on a droplet."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from localcloud.cloud import Cloud, CloudError
from localcloud.digitalocean import catalog
from localcloud.digitalocean.checks import not_found, pending
from localcloud.digitalocean.faults import take_fault
from localcloud.digitalocean.parts import DROPLET, Json, action_notes, next_id

_log = logging.getLogger("localcloud.digitalocean")

FIRST_ACTION = 2_100_000_001

# Marks what this process started: an action of another one was interrupted and must be taken up again.
_THIS_PROCESS = uuid.uuid4().hex


def timestamp(seconds: float) -> str:
    """`1795255999.5` -> `"2026-11-21T10:13:19Z"`"""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _break_down() -> None:
    raise CloudError(500, "this action was told to fail")


class Actions:
    """Runs actions in the background; keeps their records in the store."""

    def __init__(self, cloud: Cloud, now: Callable[[], float]) -> None:
        self._cloud = cloud
        self._now = now
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self, droplet_id: str, kind: str, region: str, work: Callable[[], Awaitable[None]], **details: str
    ) -> Json:
        """Starts an action and returns its record, `in-progress`. One at a time for a droplet.

        Raises CloudError 422 while another one is running.
        """
        if self.pending(droplet_id):
            raise pending()
        record: Json = {
            "id": next_id(self._cloud, "last_action_id", FIRST_ACTION),
            "status": "in-progress",
            "type": kind,
            "started_at": timestamp(self._now()),
            "completed_at": None,
            "resource_id": int(droplet_id),
            "resource_type": "droplet",
            "region_slug": region,
            "process": _THIS_PROCESS,
            **details,
        }
        self._keep(record)
        fault = take_fault(self._cloud, f"action {kind}")
        self._run(record, work if fault is None else _break_down)
        return self.document(record)

    def take_up(self, work_of: Callable[[Json], Callable[[], Awaitable[None]]]) -> None:
        """Continues what an earlier process of the local cloud left in progress."""
        for droplet in self._cloud.store.all(DROPLET):
            for record in self._records(droplet.id):
                if record["status"] == "in-progress" and record["process"] != _THIS_PROCESS:
                    taken = {**record, "process": _THIS_PROCESS}
                    self._keep(taken)
                    self._run(taken, work_of(taken))

    def _run(self, record: Json, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.get_running_loop().create_task(self._finish(record, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, record: Json, work: Callable[[], Awaitable[None]]) -> None:
        status = "errored"
        try:
            await work()
            status = "completed"
        except Exception:
            # The caller has had its answer long ago: an action that fails says so in its status only.
            _log.exception("action %s of droplet %s failed", record["type"], record["resource_id"])
        # A droplet destroyed meanwhile took its actions with it.
        if any(one["id"] == record["id"] for one in self._records(record["resource_id"])):
            self._keep({**record, "status": status, "completed_at": timestamp(self._now())})

    def _keep(self, record: Json) -> None:
        self._cloud.store.note(action_notes(record["resource_id"]), str(record["id"]), record)

    def _records(self, droplet_id: int | str) -> list[Json]:
        return list(self._cloud.store.notes(action_notes(droplet_id)).values())

    def of(self, droplet_id: int | str) -> list[Json]:
        """A droplet's actions, the newest first."""
        return [
            self.document(record) for record in sorted(self._records(droplet_id), key=lambda one: -one["id"])
        ]

    def all(self) -> list[Json]:
        """The actions of all droplets, the newest first."""
        found = [record for droplet in self._cloud.store.all(DROPLET) for record in self._records(droplet.id)]
        return [self.document(record) for record in sorted(found, key=lambda one: -one["id"])]

    def pending(self, droplet_id: int | str) -> bool:
        """Whether an action of the droplet is still running."""
        return any(record["status"] == "in-progress" for record in self._records(droplet_id))

    def get(self, action_id: int | str) -> Json:
        """Raises CloudError 404."""
        for droplet in self._cloud.store.all(DROPLET):
            record = self._cloud.store.notes(action_notes(droplet.id)).get(str(action_id))
            if record is not None:
                return self.document(record)
        raise not_found()

    def forget(self, droplet_id: int | str) -> None:
        """Removes a destroyed droplet's actions."""
        for record in self._records(droplet_id):
            self._cloud.store.forget(action_notes(droplet_id), str(record["id"]))

    @staticmethod
    def document(record: Json) -> Json:
        """An action as the API shows it."""
        shown = {key: value for key, value in record.items() if key not in ("process", "size", "name")}
        return {**shown, "region": catalog.region(record["region_slug"])}
