"""A resource as the rules see it: plain inputs, in which secrets and what isn't known yet are told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Pulumi's marks on the wire (sdk/go/common/resource/properties.go).
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a mark, not a secret
_UNKNOWN = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that the program marked as secret: encrypted in the state, hidden in what Pulumi shows."""

    value: Any = field(repr=False)


class Unknown:
    """A value that a preview can't know. A rule leaves it out; `up` knows it, and checks then."""

    def __repr__(self) -> str:
        return "(known after up)"


UNKNOWN = Unknown()


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource: its type token, its name, its inputs, and whether Pulumi protects it from deletion."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    protect: bool = False

    def is_a(self, *kinds: str) -> bool:
        """Whether its type is one of these, written as "compute/instance:Instance"."""
        return self.type.partition(":")[2] in kinds

    def known(self, key: str) -> Any:
        """An input, out of its secret mark; None if it isn't there or isn't known yet."""
        return plain(self.inputs.get(key))

    def objects(self, key: str) -> list[Mapping[str, Any]]:
        """The objects in a list of inputs, as far as they are known."""
        found = self.known(key)
        return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class Stack:
    """The stack that is checked. `config` maps full keys to values, objects decoded, secrets in plain."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_production(self) -> bool:
        """By its name, or because real money is traded there."""
        return "prod" in self.name.split("-") or self.config.get("ibkr:tradingMode") == "live"

    def section(self, key: str) -> Mapping[str, Any]:
        """A section of the configuration; empty if it isn't there."""
        found = self.config.get(f"ibkr:{key}")
        return found if isinstance(found, Mapping) else {}


def plain(value: Any) -> Any:
    """A value out of its secret marks; None for what isn't known."""
    if isinstance(value, Secret):
        return plain(value.value)
    if value is UNKNOWN:
        return None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def texts(value: Any, path: str = "", secret: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Every text within a value: its path, the text, and whether it is marked as secret."""
    if isinstance(value, Secret):
        yield from texts(value.value, path, True)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item, f"{path}.{key}" if path else str(key), secret)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from texts(item, f"{path}[{number}]", secret)
    elif isinstance(value, str):
        yield path, value, secret


def from_wire(value: Any) -> Any:
    """What the engine sends, with its marks made `Secret` and `UNKNOWN`. Files and archives stay."""
    if isinstance(value, dict):
        if value.get(_SIGNATURE) == _SECRET:
            return Secret(from_wire(value.get("value")))
        return {key: from_wire(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_wire(item) for item in value]
    return UNKNOWN if isinstance(value, str) and value in _UNKNOWN else value
