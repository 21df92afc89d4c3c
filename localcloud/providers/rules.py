"""The rules that the real providers apply to inputs at preview, as the facts state them.

A rule stands at a property path (`template.containers.ports`); lists of blocks on the way are
followed into each element, and `tags[]` means each element of a list of plain values. Rules about a
block's property apply only where the block was written. A value that isn't known yet passes: the
engine checks again once it is. A value that is secret is never repeated in a message.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.providers.schema import Failure, ResourceFacts
from localcloud.providers.values import UNKNOWN, Path, dotted, is_secret

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class _Place:
    """One spot that a rule speaks of: its concrete path, and its value or None."""

    path: Path
    value: Any


def broken_rules(facts: ResourceFacts, inputs: dict[str, Any], secrets: set[Path]) -> list[Failure]:
    """Every rule that the inputs break. `inputs` hold what the program wrote, without defaults."""
    failures: list[Failure] = []
    for written, rules in facts.rules.items():
        for place in _places(inputs, written.split("."), ()):
            for rule, wanted in rules.items():
                reason = _reason(rule, wanted, place, inputs, secrets)
                if reason:
                    failures.append(Failure(dotted(place.path), reason))
    return list(dict.fromkeys(failures))


def _places(value: Any, segments: list[str], path: Path) -> Iterator[_Place]:
    if not segments:
        yield _Place(path, value)
        return
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from _places(item, segments, (*path, i))
        return
    if not isinstance(value, dict):
        return
    name, *rest = segments
    each = name.endswith("[]")
    name = name.removesuffix("[]")
    inner = value.get(name)
    if each:
        for i, item in enumerate(inner if isinstance(inner, list) else []):
            yield from _places(item, rest, (*path, name, i))
    elif inner is not None or not rest:
        yield from _places(inner, rest, (*path, name)) if rest else iter((_Place((*path, name), inner),))


def _reason(rule: str, wanted: Any, place: _Place, inputs: dict[str, Any], secrets: set[Path]) -> str:
    relation = RELATIONS.get(rule)
    if relation is not None:
        return relation(place, wanted, inputs)
    if place.value is None or place.value is UNKNOWN:
        return ""
    test = VALUE_RULES.get(rule)
    if test is None:
        return ""
    shown = "(sensitive value)" if is_secret(place.path, secrets) else place.value
    return test(dotted(place.path), place.value, wanted, shown)


# --- rules about one value ---------------------------------------------------------------------


def _one_of(name: str, value: Any, wanted: list[Any], shown: Any) -> str:
    if value in wanted:
        return ""
    choices = ", ".join(json.dumps(w) for w in wanted if w != "")
    return f"expected {name} to be one of [{choices}], got {shown}"


def _regex(name: str, value: Any, wanted: str, shown: Any) -> str:
    # Go's `$` is the end of the text; Python's also matches before a last newline.
    pattern = re.sub(r"(?<!\\)\$(?=\)*$)", r"\\Z", wanted)
    return "" if re.search(pattern, str(value)) else f'"{name}" ("{shown}") doesn\'t match regexp "{wanted}"'


def _range(name: str, value: Any, wanted: list[float], shown: Any) -> str:
    fits = isinstance(value, int | float) and wanted[0] <= value <= wanted[1]
    return "" if fits else f"expected {name} to be in the range ({wanted[0]} - {wanted[1]}), got {shown}"


def _length(name: str, value: Any, wanted: list[int], shown: Any) -> str:
    fits = wanted[0] <= len(str(value)) <= wanted[1]
    return (
        ""
        if fits
        else f"expected length of {name} to be in the range ({wanted[0]} - {wanted[1]}), got {shown}"
    )


def _min(name: str, value: Any, wanted: float, shown: Any) -> str:
    fits = isinstance(value, int | float) and value >= wanted
    return "" if fits else f"expected {name} to be at least ({wanted}), got {shown}"


def _cidr(name: str, value: Any, wanted: bool, shown: Any) -> str:
    try:
        network = ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        return f"{shown} is not a valid IP CIDR range: invalid CIDR address: {shown} ({name})"
    if "/" not in str(value):
        return f"{shown} is not a valid IP CIDR range: invalid CIDR address: {shown} ({name})"
    written = str(value).split("/")[0]
    if ipaddress.ip_address(written) != network.network_address:
        return f"expected {name} to contain a valid network Value, expected {network}, got {shown}"
    return ""


def _not_empty(name: str, value: Any, wanted: bool, shown: Any) -> str:
    return f'expected "{name}" to not be an empty string, got {shown}' if value == "" else ""


def _min_items(name: str, value: Any, wanted: int, shown: Any) -> str:
    if not isinstance(value, list) or len(value) >= wanted:
        return ""
    return (
        f"Not enough list items: attribute {name} requires {wanted} item minimum, but config has "
        f"only {len(value)}"
    )


def _max_items(name: str, value: Any, wanted: int, shown: Any) -> str:
    if not isinstance(value, list) or len(value) <= wanted:
        return ""
    return (
        f"Too many list items: attribute {name} supports {wanted} item maximum, but config has {len(value)}"
    )


def _says(name: str, value: Any, wanted: list[str], shown: Any) -> str:
    for words, accepts in SAYINGS:
        spoken = next((w for w in wanted if words in w), None)
        if spoken is not None and not _accepted(accepts, value):
            return (
                spoken.replace('"X"', f'"{name}"').replace(" X ", f" {name} ").replace("<value>", str(shown))
            )
    return ""


def _accepted(accepts: Check, value: Any) -> bool:
    try:
        return accepts(value)
    except TypeError:  # of the wrong type, which is reported on its own
        return True


VALUE_RULES: Mapping[str, Callable[[str, Any, Any, Any], str]] = {
    "oneOf": _one_of,
    "regex": _regex,
    "range": _range,
    "length": _length,
    "min": _min,
    "cidr": _cidr,
    "notEmpty": _not_empty,
    "minItems": _min_items,
    "maxItems": _max_items,
    "says": _says,
}


# --- rules that the facts give in the provider's own words -------------------------------------


def _matches(pattern: str) -> Check:
    compiled = re.compile(pattern)

    def accepts(value: Any) -> bool:
        return compiled.fullmatch(str(value)) is not None

    return accepts


LOCAL_ASNS = ((16550, 16550), (64512, 65534), (4200000000, 4294967294))


def _local_asn(value: Any) -> bool:
    return any(first <= value <= last for first, last in LOCAL_ASNS)


def _rotation_period(value: Any) -> bool:
    return _matches(r"\d+(\.\d{1,9})?s")(value) and float(value[:-1]) >= 86400


def _base64(value: Any) -> bool:
    try:
        base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _json(value: Any) -> bool:
    try:
        json.loads(str(value))
    except ValueError:
        return False
    return True


def _ipv4(value: Any) -> bool:
    try:
        ipaddress.IPv4Address(str(value))
    except ValueError:
        return False
    return True


IAM_MEMBER = (
    r"allUsers|allAuthenticatedUsers|project(Owner|Editor|Viewer):.+"
    r"|(deleted:)?(user|serviceAccount|group|domain|principal|principalSet|principalHierarchy|iamMember):.+"
)

# The words by which a rule is known (a part of what the facts quote), and when a value keeps it.
SAYINGS: tuple[tuple[str, Check], ...] = (
    ("RFC6996-compliant Local ASN", _local_asn),
    ("must be in the format HH:00", _matches(r"([01]\d|2[0-3]):00")),
    ("IAM members must have one of the values", _matches(IAM_MEMBER)),
    ("to be a domain like serviceusage.googleapis.com", _matches(r"[a-z0-9-]+(\.[a-z0-9-]+)+")),
    # Terraform's provider asks for at least a day, in seconds.
    ("Invalid rotation period format", _rotation_period),
    ("Failed to decode (base64)", _base64),
    ("as a valid base64 value", _base64),
    ("contains an invalid JSON", _json),
    ("or end in '.svc.id.goog'", _matches(r"[0-9a-z-]+(\.svc\.id\.goog)?")),
    ("lowercase letters (a-z), numbers (0-9), or dashes (-)", _matches(r"[0-9a-z-]*(\.svc\.id\.goog)?")),
    ("cannot be smaller than 4 characters", lambda v: len(v) >= 4),
    ("cannot be greater than 32 characters", lambda v: len(v) <= 32 or v.endswith(".svc.id.goog")),
    ('doesn\'t end with "."', _matches(r"(.*\.)?")),
    ("the empty string is not a valid name", lambda v: v != ""),
    ("tags may contain lowercase letters", _matches(r"[a-z0-9:_-]{1,255}")),
    ("to contain a valid IPv4 address", _ipv4),
    ("must not be zero", lambda v: v != 0),
    ("to be at least (0.000000)", lambda v: v >= 0),
)


# --- rules about several values ----------------------------------------------------------------


def _written(path: str, inputs: dict[str, Any]) -> list[Any]:
    found = (place.value for place in _places(inputs, path.split("."), ()))
    return [value for value in found if value is not None]


def _group(place: _Place, wanted: list[str], inputs: dict[str, Any]) -> tuple[str, list[str], list[str]]:
    """A group's names as the provider prints them, those written, and those not known yet."""
    own = ".".join(str(part) for part in place.path if isinstance(part, str))
    names = sorted({own, *wanted})
    known: list[str] = []
    unknown: list[str] = []
    for name in names:
        values = _written(name, inputs)
        if values:
            (unknown if all(v is UNKNOWN for v in values) else known).append(name)
    return ",".join(names), known, unknown


def _exactly_one(place: _Place, wanted: list[str], inputs: dict[str, Any]) -> str:
    names, known, unknown = _group(place, wanted, inputs)
    if len(known) > 1:
        return f"only one of `{names}` can be specified, but `{','.join(known)}` were specified"
    return "" if known or unknown else f"one of `{names}` must be specified"


def _at_least_one(place: _Place, wanted: list[str], inputs: dict[str, Any]) -> str:
    names, known, unknown = _group(place, wanted, inputs)
    return "" if known or unknown else f"one of `{names}` must be specified"


def _conflicts(place: _Place, wanted: list[str], inputs: dict[str, Any]) -> str:
    if place.value is None or place.value is UNKNOWN:
        return ""
    for name in wanted:
        if any(value is not UNKNOWN for value in _written(name, inputs)):
            return f'"{dotted(place.path)}": conflicts with {name}'
    return ""


def _required_with(place: _Place, wanted: list[str], inputs: dict[str, Any]) -> str:
    if place.value is None:
        return ""
    names, known, unknown = _group(place, wanted, inputs)
    missing = set(names.split(",")) - set(known) - set(unknown)
    return f'"{dotted(place.path)}": all of `{names}` must be specified' if missing else ""


RELATIONS: Mapping[str, Callable[[_Place, list[str], dict[str, Any]], str]] = {
    "exactlyOneOf": _exactly_one,
    "atLeastOneOf": _at_least_one,
    "conflictsWith": _conflicts,
    "requiredWith": _required_with,
}
