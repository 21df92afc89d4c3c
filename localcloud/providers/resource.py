"""How a resource type behaves in the local cloud: the base class of all handlers.

A handler states one type's rules: what identifies it, what the real API refuses with which status
and words, which outputs it computes, and what it starts and stops. Everything that holds for all
types (defaults, previews, storing, what is carried over an update) is done here.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from localcloud.cloud import Cloud, CloudError
from localcloud.providers.schema import Facts, Failure, ResourceFacts
from localcloud.providers.values import UNKNOWN, Properties, without_unknown
from localcloud.state import Resource

# Where the inputs note which of them the provider chose itself (the real providers' own habit).
CHOSEN = "__defaults"


@dataclass(frozen=True)
class Call:
    """One request of the engine, for handlers that need more than inputs.

    `inputs` is what the program wrote, `state` what the engine remembers, `peer` the engine's end of the
    connection as gRPC writes it.
    """

    urn: str
    resource_id: str = ""
    inputs: Properties = field(default_factory=Properties)
    state: Properties = field(default_factory=Properties)
    peer: str = ""


class PartlyCreated(CloudError):
    """The resource was created but never got ready: it exists, and the next `up` works on it."""

    def __init__(self, error: CloudError, resource: Resource) -> None:
        super().__init__(error.status, error.message, error.reason)
        self.resource = resource


class Handler:
    """One resource type. Subclasses override what is special about theirs.

    `inputs` handed to the methods are complete: defaults and the provider's project, region and
    zone are filled in. They are plain values; keeping secrets marked is the server's business.
    """

    token: ClassVar[str]
    #: The id, from inputs: "projects/{project}/global/networks/{name}".
    id_format: ClassVar[str] = ""
    #: What the real provider calls it in "Error creating Network: ...".
    noun: ClassVar[str] = ""
    #: Whether one secret input makes every output secret.
    spreads_secrets: ClassVar[bool] = False
    #: Whether it has a say in who reaches whom, so that the network looks again when it changes.
    shapes_network: ClassVar[bool] = False
    #: Whether creating what is there already takes it over, as adding a grant twice does.
    adopts: ClassVar[bool] = False
    #: Whether an operation goes on when the engine is killed meanwhile, as in a real cloud.
    outlives_the_engine: ClassVar[bool] = True

    def __init__(self, cloud: Cloud, facts: Facts) -> None:
        self.cloud = cloud
        self.facts = facts
        self._busy: dict[str, asyncio.Lock] = {}

    @property
    def resource_facts(self) -> ResourceFacts:
        """The facts of this type."""
        return self.facts.resources[self.token]

    # --- what a subclass states ------------------------------------------------------------

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        """What the real provider refuses at preview beyond the facts. Values may be unknown."""
        yield from ()

    def complete(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with defaults. Overridden where the provider's configuration fills more."""
        return self.facts.with_defaults(self.token, without_chosen(inputs))

    def identify(self, inputs: dict[str, Any]) -> str:
        """The id of what these inputs declare."""
        return self.id_format.format_map(inputs)

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        """Raise `CloudError` for what the real API refuses at create (`old` is None) or update."""

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        """How the API says that the name is in use."""
        return CloudError(409, f"The resource '{resource_id}' already exists", "alreadyExists")

    def takes_over(self, inputs: dict[str, Any]) -> bool:
        """Whether creating what is there already takes it over."""
        return self.adopts

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        """Computed outputs at create and update; what isn't returned keeps its old value."""
        return {}

    async def started(self, resource: Resource) -> None:
        """Make it real, once it is stored. Outputs may still be changed."""

    async def changed(self, old: Resource, new: Resource) -> None:
        """Make an update real, before it is stored."""

    def verify_delete(self, resource: Resource) -> None:
        """Raise `CloudError` for what the real API refuses to delete."""

    async def stopped(self, resource: Resource) -> None:
        """Take away what `started` made, before it is forgotten."""

    async def observed(self, resource: Resource) -> Resource | None:
        """The resource as it is now, None if it is gone. A copy that may be changed."""
        return resource

    def replacing(self, old: dict[str, Any], new: dict[str, Any]) -> set[str]:
        """Top-level properties whose change replaces although the facts call it an update."""
        return set()

    # --- what holds for all types ----------------------------------------------------------

    def outputs(self, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        """The outputs before anything happened: what `up` alone will know is unknown."""
        filled = self.complete(inputs)
        carried = old.outputs if old else {}
        facts = self.resource_facts
        for path, rules in facts.rules.items():
            if rules.get("providerMayFill"):
                fill(filled, carried, path.split("."), UNKNOWN if old is None else None)
        for name in facts.computed:
            filled[name] = copy.deepcopy(carried.get(name)) if old else UNKNOWN
        return filled

    def preview_update(
        self, resource_id: str, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> dict[str, Any]:
        """The outputs that an update would leave."""
        return self.outputs(inputs, Resource(self.token, resource_id, {}, outputs))

    async def create(self, inputs: dict[str, Any]) -> Resource:
        """Create it. Raises `CloudError`; `PartlyCreated` when it exists but isn't ready."""
        filled = self.complete(inputs)
        self.verify(filled, None)
        resource_id = self.identify(filled)
        if not self.takes_over(filled) and self.cloud.store.get(self.token, resource_id) is not None:
            raise self.exists(resource_id, filled)
        outputs = without_unknown(self.outputs(inputs, None))
        resource = Resource(
            self.token, resource_id, inputs, {**outputs, **self.computed(resource_id, filled, None)}
        )
        self.cloud.store.put(resource)
        try:
            async with self._exclusive(resource_id):
                await self.started(resource)
        except PartlyCreated:
            self.cloud.store.put(resource)
            raise
        except BaseException:
            self._forget(resource_id)
            raise
        self._keep(resource)
        return resource

    async def update(self, resource_id: str, inputs: dict[str, Any]) -> Resource:
        """Change it in place. Raises `CloudError` 404 when it is gone."""
        async with self._exclusive(resource_id):
            old = self.cloud.store.get(self.token, resource_id)
            if old is None:
                raise not_found(resource_id)
            filled = self.complete(inputs)
            self.verify(filled, old)
            outputs = {**self.outputs(inputs, old), **self.computed(resource_id, filled, old)}
            new = Resource(self.token, resource_id, inputs, without_unknown(outputs))
            try:
                await self.changed(old, new)
            except PartlyCreated:
                self._keep(new)
                raise
            self._keep(new)
            return new

    async def delete(self, resource_id: str) -> None:
        """Delete it; what is gone already is no error, as with the real providers."""
        async with self._exclusive(resource_id):
            resource = self.cloud.store.get(self.token, resource_id)
            if resource is None:
                return
            self.verify_delete(resource)
            await self.stopped(resource)
            self._forget(resource_id)

    async def read(self, resource_id: str) -> Resource | None:
        """The resource as it is now, or None. What went without us leaves nothing behind either."""
        async with self._exclusive(resource_id):  # what is being made is read when it is made
            resource = self.cloud.store.get(self.token, resource_id)
            if resource is None:
                return None
            observed = await self.observed(resource)
            if observed is None:
                await self.stopped(resource)
                self._forget(resource_id)
            return observed

    # What the server calls: the engine's request, for types whose state is the engine's alone.

    async def create_for(self, call: Call) -> Resource:
        """`create`, for a request."""
        return await self.create(call.inputs.values)

    async def update_for(self, call: Call) -> Resource:
        """`update`, for a request."""
        return await self.update(call.resource_id, call.inputs.values)

    async def delete_for(self, call: Call) -> None:
        """`delete`, for a request."""
        await self.delete(call.resource_id)

    async def read_for(self, call: Call) -> Resource | None:
        """`read`, for a request."""
        return await self.read(call.resource_id)

    async def cancel(self) -> None:
        """Give up what is under way: the engine was interrupted."""

    def _keep(self, resource: Resource) -> None:
        self.cloud.store.put(resource)
        if self.shapes_network:
            self.cloud.network.changed()

    def _forget(self, resource_id: str) -> None:
        self.cloud.store.delete(self.token, resource_id)
        if self.shapes_network:
            self.cloud.network.changed()

    def _exclusive(self, resource_id: str) -> asyncio.Lock:
        return self._busy.setdefault(resource_id, asyncio.Lock())


def without_chosen(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs without the provider's own notes."""
    return {name: value for name, value in inputs.items() if name != CHOSEN}


def fill(values: Any, source: Any, path: list[str], otherwise: Any) -> None:
    """Set what the program left out at a path, from `source` where it has it, else to `otherwise`."""
    if isinstance(values, list):
        for i, item in enumerate(values):
            fill(item, source[i] if isinstance(source, list) and i < len(source) else None, path, otherwise)
        return
    if not isinstance(values, dict):
        return
    name, *rest = path
    kept = source.get(name) if isinstance(source, dict) else None
    if rest:
        fill(values.get(name), kept, rest, otherwise)
    elif values.get(name) is None:
        value = otherwise if kept is None else copy.deepcopy(kept)
        if value is not None:
            values[name] = value


def not_found(name: str) -> CloudError:
    """What Google answers for something that isn't there."""
    return CloudError(404, f"The resource '{name}' was not found", "notFound")


def digest(*parts: object) -> str:
    """A short stable text for etags and fingerprints."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def number(*parts: object) -> str:
    """A stable 19-digit number, as Google's numeric ids are."""
    return str(10**18 + int(hashlib.sha256(repr(parts).encode()).hexdigest(), 16) % (8 * 10**18))


def now() -> str:
    """The time as Google writes it: RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
