"""Property values as they cross the wire between the Pulumi engine and a provider.

The engine sends protobuf structs in which secrets, assets and values that aren't known yet are
marked by signatures. Handlers work on plain Python values; what was secret is kept beside them as
a set of paths and put back on the way out, so no handler can forget it.
Source of the signatures: pulumi/pulumi, sdk/go/common/resource/properties.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf import struct_pb2

Path = tuple[str | int, ...]

SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a marker
ASSET: Final = "c44067f5952c0a294b673a41bacd8c17"
ARCHIVE: Final = "0def7320c3a5731c473e5ecbe6d01bc7"
OUTPUT: Final = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
UNKNOWN_WIRE: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*")


class Unknown:
    """A value that only `up` will know. There is one, `UNKNOWN`; compare with `is`."""

    def __repr__(self) -> str:
        return "<computed>"

    def __deepcopy__(self, memo: object) -> Unknown:
        return self


UNKNOWN: Final = Unknown()


@dataclass
class Properties:
    """Plain values, and the paths within them that are secret."""

    values: dict[str, Any] = field(default_factory=dict)
    secrets: set[Path] = field(default_factory=set)


def decode(struct: struct_pb2.Struct | None) -> Properties:
    """What the engine sent. Nulls are left out; whole numbers become int."""
    found = Properties()
    if struct is not None:
        found.values = _decode_fields(struct.fields, (), found.secrets)
    return found


def _decode_fields(fields: Mapping[str, Any], path: Path, secrets: set[Path]) -> dict[str, Any]:
    values = {}
    for key, value in fields.items():
        decoded = _decode(value, (*path, key), secrets)
        if decoded is not None:
            values[key] = decoded
    return values


def _decode(value: struct_pb2.Value, path: Path, secrets: set[Path]) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value == UNKNOWN_WIRE else value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [_decode(item, (*path, i), secrets) for i, item in enumerate(value.list_value.values)]
    if kind == "struct_value":
        return _decode_object(value.struct_value.fields, path, secrets)
    return None


def _decode_object(fields: Mapping[str, Any], path: Path, secrets: set[Path]) -> Any:
    signature = fields[SIGNATURE].string_value if SIGNATURE in fields else ""
    if signature == SECRET:
        secrets.add(path)
        return _decode(fields["value"], path, secrets) if "value" in fields else None
    if signature == OUTPUT:
        if "secret" in fields and fields["secret"].bool_value:
            secrets.add(path)
        return _decode(fields["value"], path, secrets) if "value" in fields else UNKNOWN
    return _decode_fields(fields, path, secrets)


def encode(values: Mapping[str, Any], secrets: Iterable[Path] = ()) -> struct_pb2.Struct:
    """The struct for the engine; values at `secrets` are marked. Paths that lead nowhere are ignored."""
    struct = struct_pb2.Struct()
    marked = set(secrets)
    for key, value in values.items():
        if value is not None:
            _encode(value, (key,), marked, struct.fields[key])
    return struct


def _encode(value: Any, path: Path, secrets: set[Path], into: struct_pb2.Value) -> None:
    if path in secrets:
        wrapped = into.struct_value.fields
        wrapped[SIGNATURE].string_value = SECRET
        # Everything below a secret is secret: one mark is enough, and nested marks confuse the SDKs.
        _encode(value, (), set(), wrapped["value"])
    elif value is UNKNOWN:
        into.string_value = UNKNOWN_WIRE
    elif value is None:
        into.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int | float):
        into.number_value = value
    elif isinstance(value, str):
        into.string_value = value
    elif isinstance(value, Mapping):
        into.struct_value.SetInParent()
        for key, item in value.items():
            if item is not None:
                _encode(item, (*path, key), secrets, into.struct_value.fields[key])
    elif isinstance(value, list | tuple):
        into.list_value.SetInParent()
        for i, item in enumerate(value):
            _encode(item, (*path, i), secrets, into.list_value.values.add())
    else:
        raise TypeError(f"a {type(value).__name__} can't be a Pulumi property")


def contains_unknown(value: Any) -> bool:
    """Whether a value, or anything in it, isn't known yet."""
    if isinstance(value, dict):
        return any(contains_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(contains_unknown(item) for item in value)
    return value is UNKNOWN


def without_unknown(value: Any) -> Any:
    """The known part of a value: unknown properties are dropped from objects and lists."""
    if isinstance(value, dict):
        return {k: without_unknown(v) for k, v in value.items() if v is not UNKNOWN}
    if isinstance(value, list):
        return [without_unknown(v) for v in value if v is not UNKNOWN]
    return value


def is_secret(path: Path, secrets: set[Path]) -> bool:
    """Whether the value at a path is secret itself or lies in something secret."""
    return any(path[:n] in secrets for n in range(1, len(path) + 1))


def dotted(path: Path) -> str:
    """A path as Pulumi writes it: `template.containers[0].env`, `metadata["user-data"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not _IDENTIFIER.fullmatch(part):
            text += f"[{json.dumps(part)}]"
        else:
            text += f".{part}" if text else part
    return text
