"""What the real providers accept, read from the facts under `facts/`.

Each facts file describes one provider: every resource's inputs with type, required, secret and
replace, its computed outputs, its nested types, and the rules that the real provider applies at
preview. This module knows the shape of values; `rules.py` knows the rules; `diff.py` what a change
means.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path as FilePath
from typing import Any

from localcloud.providers.values import ARCHIVE, ASSET, SIGNATURE, UNKNOWN, Path, dotted

FACTS = FilePath(__file__).parent / "facts"


@dataclass(frozen=True)
class Failure:
    """One reason why inputs are refused. `property` is a Pulumi property path."""

    property: str
    reason: str


@dataclass(frozen=True)
class Property:
    """One input. `type` is written as in the facts: `string`, `[T]`, `{T}`, `A|B`, or a type's token."""

    type: str
    required: bool = False
    replace: bool = False
    secret: bool = False
    default: Any = None


@dataclass(frozen=True)
class ResourceFacts:
    """All that is known of one resource type."""

    token: str
    inputs: Mapping[str, Property]
    computed: Mapping[str, str]
    rules: Mapping[str, Mapping[str, Any]]

    def may_fill(self, path: str) -> bool:
        """Whether the cloud sets this property when the program leaves it out."""
        return bool(self.rules.get(path, {}).get("providerMayFill"))


class Facts:
    """The facts of one provider."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.package: str = document["package"]
        self.version: str = document["version"]
        self.resources = {
            token: ResourceFacts(
                token,
                {name: Property(**_known(p)) for name, p in facts["inputs"].items()},
                facts.get("computed", {}),
                facts.get("rules", {}),
            )
            for token, facts in document["resources"].items()
        }
        self.types: dict[str, Mapping[str, Property]] = {}
        self.enums: dict[str, list[Any]] = {}
        for token, facts in document.get("types", {}).items():
            if "enum" in facts:
                self.enums[token] = facts["enum"]
            else:
                self.types[token] = {n: Property(**_known(p)) for n, p in facts["properties"].items()}

    def check(self, token: str, inputs: dict[str, Any]) -> tuple[dict[str, Any], list[Failure]]:
        """The inputs in their declared types, and what is unknown, missing or ill-typed in them."""
        failures: list[Failure] = []
        checked = self._object(self.resources[token].inputs, inputs, (), token, failures)
        return checked, failures

    def _object(
        self,
        properties: Mapping[str, Property],
        values: dict[str, Any],
        path: Path,
        owner: str,
        failures: list[Failure],
    ) -> dict[str, Any]:
        checked = {}
        for name, value in values.items():
            at = (*path, name)
            if name not in properties:
                failures.append(Failure(dotted(at), _unexpected(name, owner, properties)))
            elif value is not None:
                checked[name] = self._value(properties[name].type, value, at, failures)
        for name, known in properties.items():
            if known.required and values.get(name) is None:
                at = (*path, name)
                failures.append(Failure(dotted(at), f"Missing required property '{dotted(at)}'"))
        return checked

    def _value(self, type_: str, value: Any, path: Path, failures: list[Failure]) -> Any:
        if value is UNKNOWN or value is None:
            return value
        if "|" in type_:
            # A union with an enum: the enum lists values known when the SDK was made, not all there are.
            return self._value(type_.split("|", 1)[0], value, path, failures)
        if type_.startswith("["):
            if isinstance(value, list):
                return [self._value(type_[1:-1], v, (*path, i), failures) for i, v in enumerate(value)]
        elif type_.startswith("{"):
            if isinstance(value, dict) and SIGNATURE not in value:
                return {k: self._value(type_[1:-1], v, (*path, k), failures) for k, v in value.items()}
        elif type_ in self.types:
            if isinstance(value, dict):
                return self._object(self.types[type_], value, path, type_, failures)
        elif type_ in self.enums:
            if value in self.enums[type_]:
                return value
            wanted = ", ".join(map(str, self.enums[type_]))
            failures.append(Failure(dotted(path), f"expected {dotted(path)} to be one of {wanted}"))
            return value
        else:
            fits, converted = _scalar(type_, value)
            if fits:
                return converted
        wanted = _words(type_)
        failures.append(Failure(dotted(path), f"expected {dotted(path)} to be {wanted}, got {_kind(value)}"))
        return value

    def with_defaults(self, token: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with every default that the real provider fills in; `inputs` stays as it is.

        A nested default is set only where the program wrote the block that holds it.
        """
        facts = self.resources[token]
        filled = self._copy(inputs, facts.inputs)
        for name, known in facts.inputs.items():
            if known.default is not None:
                filled.setdefault(name, known.default)
        for path, rules in facts.rules.items():
            if "default" in rules:
                *parents, last = path.split(".")
                for holder in _holders(filled, parents):
                    holder.setdefault(last, rules["default"])
        return filled

    def _copy(self, value: dict[str, Any], properties: Mapping[str, Property]) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for name, item in value.items():
            inner = self.properties_of(properties[name].type) if name in properties else None
            if inner is not None and isinstance(item, list):
                copied[name] = [self._copied_block(v, inner) for v in item]
            elif inner is not None:
                copied[name] = self._copied_block(item, inner)
            else:
                copied[name] = item
        return copied

    def _copied_block(self, value: Any, properties: Mapping[str, Property]) -> Any:
        if not isinstance(value, dict):
            return value
        copied = self._copy(value, properties)
        for name, known in properties.items():
            if known.default is not None:
                copied.setdefault(name, known.default)
        return copied

    def properties_of(self, type_: str) -> Mapping[str, Property] | None:
        """The properties of an object type, or of the objects in a list; None for anything else."""
        return self.types.get(type_.strip("[]"))

    def secret_paths(self, token: str, values: dict[str, Any]) -> Iterator[Path]:
        """Where in these values the facts say that a secret stands."""
        yield from self._secrets(self.resources[token].inputs, values, ())

    def _secrets(self, properties: Mapping[str, Property], values: Any, path: Path) -> Iterator[Path]:
        if not isinstance(values, dict):
            return
        for name, value in values.items():
            known = properties.get(name)
            if known is None:
                continue
            if known.secret:
                yield (*path, name)
                continue
            inner = self.properties_of(known.type)
            if inner is None:
                continue
            if isinstance(value, list):
                for i, item in enumerate(value):
                    yield from self._secrets(inner, item, (*path, name, i))
            else:
                yield from self._secrets(inner, value, (*path, name))


@cache
def load_facts(package: str) -> Facts:
    """The facts of `gcp`, `digitalocean` or `command`."""
    return Facts(json.loads((FACTS / f"{package}.json").read_text()))


def _known(written: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in written.items() if k in Property.__dataclass_fields__}


def _holders(value: Any, parents: list[str]) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for item in value:
            yield from _holders(item, parents)
    elif isinstance(value, dict):
        if not parents:
            yield value
        elif parents[0] in value:
            yield from _holders(value[parents[0]], parents[1:])


def _unexpected(name: str, owner: str, properties: Mapping[str, Property]) -> str:
    close = difflib.get_close_matches(name, properties, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"Unexpected property '{name}': {owner} has no such input{hint}"


def _scalar(type_: str, value: Any) -> tuple[bool, Any]:
    """Whether a value has (or can take, as the real providers convert it) a scalar type."""
    if type_ == "pulumi.json#/Any":
        return True, value
    if type_ in ("pulumi.json#/Asset", "pulumi.json#/Archive"):
        return isinstance(value, dict) and value.get(SIGNATURE) in (ASSET, ARCHIVE), value
    if type_ == "boolean":
        return isinstance(value, bool), value
    if type_ == "string":
        return isinstance(value, str), value
    if isinstance(value, str):
        # Ids are strings in Pulumi, and some inputs want the number in them (dropletIds).
        try:
            value = int(value) if type_ == "integer" else float(value)
        except ValueError:
            return False, value
        return True, value
    if isinstance(value, bool):
        return False, value
    return isinstance(value, int) or (type_ == "number" and isinstance(value, float)), value


def _words(type_: str) -> str:
    if type_.startswith("["):
        return "a list"
    if type_.startswith("{"):
        return "a map"
    plain = {"string": "a string", "boolean": "a boolean", "integer": "a whole number", "number": "a number"}
    return plain.get(type_, "an asset" if "#/" in type_ else "an object")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    names: dict[type, str] = {str: "a string", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object")
