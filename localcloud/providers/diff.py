"""What a change to inputs means: nothing, an update in place, or a replacement.

Compared is what the program wrote before with what it writes now. A default that was left out is
the same as the default written down, and what the cloud fills in by itself is no change when the
program leaves it out. Whether a change replaces is stated by the facts, property by property, the
way Terraform's SDK reads them: a block's own flag speaks for the block being added or taken away,
its properties' flags for changes within it; lists and maps of plain values inherit theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.providers.schema import Facts, Property
from localcloud.providers.values import UNKNOWN, Path, dotted

# Lists that are sets to the cloud, by the last part of their path: their order means nothing.
SETS = frozenset(
    {
        "tags", "sourceTags", "targetTags", "sourceRanges", "destinationRanges", "sourceServiceAccounts",
        "targetServiceAccounts", "allows", "denies", "scopes", "natIps", "sourceAddresses",
        "destinationAddresses", "inboundRules", "outboundRules", "destinationTags", "permissions",
        "reservedPeeringRanges", "resources", "sshKeys", "subnetworks", "sourceIpRangesToNats",
        "envs", "databaseFlags", "authorizedNetworks", "dropletIds", "resourcePolicies",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One changed property: `kind` is add, delete or update."""

    path: Path
    kind: str
    replaces: bool

    @property
    def property(self) -> str:
        """The property's path as Pulumi writes it."""
        return dotted(self.path)


def changes(
    facts: Facts, token: str, old: dict[str, Any], new: dict[str, Any], state: dict[str, Any]
) -> list[Change]:
    """The changes from `old` inputs to `new` ones; `state` has what the cloud filled in."""
    resource = facts.resources[token]
    before, after = facts.with_defaults(token, old), facts.with_defaults(token, new)
    found = _Comparison(facts, resource.may_fill)
    return list(found.objects(resource.inputs, before, after, state, ()))


class _Comparison:
    def __init__(self, facts: Facts, may_fill: Any) -> None:
        self._facts = facts
        self._may_fill = may_fill

    def objects(
        self, properties: Mapping[str, Property], old: Any, new: Any, state: Any, path: Path
    ) -> Iterator[Change]:
        for name, known in properties.items():
            was, now = old.get(name), new.get(name)
            kept = state.get(name) if isinstance(state, dict) else None
            at = (*path, name)
            if _empty(now) and _empty(was):
                continue
            if self._may_fill(".".join(part for part in at if isinstance(part, str))):
                if now is None:
                    continue
                was = kept if was is None else was
            yield from self._property(known, was, now, kept, at)

    def _property(self, known: Property, was: Any, now: Any, kept: Any, path: Path) -> Iterator[Change]:
        inner = self._facts.properties_of(known.type)
        if known.type.startswith("{") and (was is None or now is None or _maps(was, now)):
            yield from self._maps(known, was or {}, now or {}, path)
        elif inner is None:
            if not _same(path, was, now):
                yield Change(path, _kind(was, now), known.replace)
        elif isinstance(was, list) or isinstance(now, list):
            yield from self._lists(known, inner, was or [], now or [], kept, path)
        else:
            yield from self._blocks(known, inner, was, now, kept, path)

    def _maps(self, known: Property, was: Any, now: Any, path: Path) -> Iterator[Change]:
        """Key by key: a program may ask for a replacement when one certain key changes."""
        if was is UNKNOWN or now is UNKNOWN:
            yield Change(path, "update", known.replace)
            return
        for key in {**was, **now}:
            if was.get(key) != now.get(key):
                yield Change((*path, key), _kind(was.get(key), now.get(key)), known.replace)

    def _lists(
        self, known: Property, inner: Mapping[str, Property], was: Any, now: Any, kept: Any, path: Path
    ) -> Iterator[Change]:
        if was is UNKNOWN or now is UNKNOWN:
            yield Change(path, "update", known.replace)
            return
        if path[-1] in SETS:
            was, now = self._aligned(inner, was, now)
        states = kept if isinstance(kept, list) else []
        for i in range(max(len(was), len(now))):
            yield from self._blocks(
                known,
                inner,
                was[i] if i < len(was) else None,
                now[i] if i < len(now) else None,
                states[i] if i < len(states) else None,
                (*path, i),
            )

    def _aligned(
        self, inner: Mapping[str, Property], was: list[Any], now: list[Any]
    ) -> tuple[list[Any], list[Any]]:
        """The members of two sets that have no equal in the other, in order."""
        left = list(was)
        added = []
        for item in now:
            same = next((i for i, w in enumerate(left) if self._equal(inner, w, item)), None)
            if same is None:
                added.append(item)
            else:
                del left[same]
        return left, added

    def _equal(self, inner: Mapping[str, Property], was: Any, now: Any) -> bool:
        if isinstance(was, dict) and isinstance(now, dict):
            return not any(self.objects(inner, was, now, {}, ()))
        return bool(was == now)

    def _blocks(
        self, known: Property, inner: Mapping[str, Property], was: Any, now: Any, kept: Any, path: Path
    ) -> Iterator[Change]:
        if was is UNKNOWN or now is UNKNOWN:
            yield Change(path, "update", known.replace)
        elif was is None or now is None:
            replaces = known.replace or self._holds_replacing(inner, was if now is None else now)
            yield Change(path, _kind(was, now), replaces)
        else:
            yield from self.objects(inner, was, now, kept, path)

    def _holds_replacing(self, inner: Mapping[str, Property], value: Any) -> bool:
        if isinstance(value, list):
            return any(self._holds_replacing(inner, item) for item in value)
        if not isinstance(value, dict):
            return False
        for name, item in value.items():
            known = inner.get(name)
            if known is None or _empty(item):
                continue
            nested = self._facts.properties_of(known.type)
            if known.replace or (nested is not None and self._holds_replacing(nested, item)):
                return True
        return False


def _maps(was: Any, now: Any) -> bool:
    return isinstance(was, dict) and isinstance(now, dict)


def _same(path: Path, was: Any, now: Any) -> bool:
    if isinstance(was, list) and isinstance(now, list) and path[-1] in SETS:
        return sorted(map(repr, was)) == sorted(map(repr, now))
    return bool(was == now) and isinstance(was, bool) == isinstance(now, bool)


def _empty(value: Any) -> bool:
    """Nothing and an empty list, map or text are the same to the real providers."""
    return value is None or value in ([], {}, "")


def _kind(was: Any, now: Any) -> str:
    if was is None:
        return "add"
    return "delete" if now is None else "update"
