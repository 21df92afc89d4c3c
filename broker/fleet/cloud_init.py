"""Renders a machine's user data from the templates in `cloud-init/`.

A template is YAML. Placeholders (`${name}`, lower case) are filled in after it was parsed, so a value can
never add keys or lines to the document. Where a value becomes part of a file of another format, the
template names that format by a tag and the value is serialised, not pasted:

    !file gateway/render-config     the text of cloud-init/files/gateway/render-config, verbatim
    !base64 "${password}"           any characters at all, for a write_files entry with `encoding: b64`
    !json {mode: "${mode}"}         a JSON document
    !yaml {allow: ["${address}"]}   a YAML document
    !env {MODE: "${mode}"}          KEY="value" lines, as systemd's EnvironmentFile and a shell read them
    !envlist {MODE: "${mode}"}      KEY=value lines, as docker's --env-file reads them

In a list, one item may stand for several, or for none: as many as a list of values has entries, each filled
in with its own beside the others.

    - !each {of: gateways, item: ["systemctl", "enable", "gateway@${mode}.service"]}

The result is ASCII (DigitalOcean refuses anything else; YAML escapes the rest) and starts with
`#cloud-config`.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from yaml.emitter import ScalarAnalysis

GCE_METADATA_LIMIT = 256 * 1024
"""Bytes that one metadata value of a Compute Engine instance may have (Compute Engine, metadata limits)."""

DROPLET_USER_DATA_LIMIT = 64 * 1024
"""Bytes that a droplet's user_data may have (DigitalOcean API, `POST /v2/droplets`)."""

_PLACEHOLDER = re.compile(r"\$\{([a-z][a-z0-9_]*)\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Lines of printable ASCII, none of which ends in a space: what YAML can write as a literal block.
_SCRIPT = re.compile(r"(?:[ -~]*[!-~])?(?:\n(?:[ -~]*[!-~])?)+")
_ENV_UNSAFE = re.compile(r"[\"'\\$`!]")


Values = Mapping[str, str | Sequence[Mapping[str, str]]]
"""What fills a template in: texts by name, and by name the lists that `!each` goes through."""


class TemplateError(ValueError):
    """A template can't be rendered: the message names the template, the value and the remedy.

    It never holds a value's text, which may be a password. Nothing was rendered; correct what it names.
    """


@dataclass(frozen=True)
class _Tagged:
    """A node of the template that a format's serialiser turns into text."""

    tag: str
    content: Any


class _Verbatim(str):
    """The text of an inlined file: its `${...}` are a shell's, not ours."""


def template_directory() -> Path:
    """The folder of the templates: CLOUD_INIT_DIR, else `cloud-init` beside the `broker` package."""
    given = os.environ.get("CLOUD_INIT_DIR")
    return Path(given) if given else Path(__file__).resolve().parents[2] / "cloud-init"


def render(template_name: str, values: Values, limit: int = GCE_METADATA_LIMIT) -> str:
    """Returns the user data of a template (`ib-gateway.yaml`) with its placeholders filled in.

    `limit` is the largest size in bytes that the cloud takes. Every placeholder must be given and every
    value used: a value that nothing reads is a setting that silently does nothing.

    Raises TemplateError.
    """
    directory = template_directory()
    pieces = _load(directory, template_name, _stamp(directory))
    filling = _Filling(template_name, values)
    text = "#cloud-config\n" + "".join(
        piece if isinstance(piece, str) else _dump_filled(filling.fill(piece)) for piece in pieces
    )
    filling.check_all_used()
    size = len(text.encode("ascii"))
    if size > limit:
        raise TemplateError(
            f"user data of {template_name} has {size} bytes and this cloud takes {limit}: "
            "shorten its scripts or fetch them at boot"
        )
    return text


def _stamp(directory: Path) -> int:
    """Changes when a template or a file that one may inline does."""
    return max((path.stat().st_mtime_ns for path in directory.glob("**/*")), default=0)


@lru_cache(maxsize=16)
def _load(directory: Path, template_name: str, stamp: int) -> tuple[Any, ...]:
    """A template as pieces in order: text where nothing is to be filled in, else a node to fill and dump.

    Cached, since a stack renders one template for each of its users; values never come in here.
    """
    path = directory / template_name
    try:
        document = _TemplateLoader(path.read_text(encoding="ascii")).get_single_data()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TemplateError(f"cloud-init template {path} can't be read: {error}") from error
    if not isinstance(document, dict):
        raise TemplateError(f"cloud-init template {path} must be a mapping of cloud-config modules")
    pieces: list[Any] = []
    for key, value in _inlined(document, template_name, directory / "files").items():
        if isinstance(value, list) and value:
            pieces += [f"{key}:\n", *([item] for item in value)]
        else:
            pieces.append({key: value})
    return tuple(piece if isinstance(piece, str) or _is_open(piece) else _dump(piece) for piece in pieces)


def _inlined(node: Any, template_name: str, files: Path) -> Any:
    """A node with the text of files in place of `!file`."""
    if isinstance(node, dict):
        return {key: _inlined(value, template_name, files) for key, value in node.items()}
    if isinstance(node, list):
        return [_inlined(value, template_name, files) for value in node]
    if isinstance(node, _Tagged) and node.tag == "!each":
        return _Tagged(node.tag, _inlined(node.content, template_name, files))
    if not isinstance(node, _Tagged) or node.tag != "!file":
        return node
    path = files / str(node.content)
    try:
        return _Verbatim(path.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"{template_name} names {path}, which can't be read: {error}") from error


def _is_open(node: Any) -> bool:
    """Whether something in a node is to be filled in or serialised."""
    if isinstance(node, dict):
        return any(_is_open(value) for value in node.values())
    if isinstance(node, list):
        return any(_is_open(value) for value in node)
    if isinstance(node, _Verbatim):
        return False
    return isinstance(node, _Tagged) or (isinstance(node, str) and bool(_PLACEHOLDER.search(node)))


def _dump(node: Any) -> str:
    return str(yaml.dump(node, Dumper=_UserDataDumper, sort_keys=False, allow_unicode=False, width=1_000_000))


def _dump_filled(node: Any) -> str:
    """A piece as text: nothing for a list whose only item stood for none."""
    return _dump(node) if node != [] else ""


class _Filling:
    """One rendering: the values, and which of them the template has used so far."""

    def __init__(self, template_name: str, values: Values) -> None:
        self._name = template_name
        self._values = values
        self._used: set[str] = set()

    def fill(self, node: Any, serialised: bool = False) -> Any:
        """A node with placeholders replaced; `serialised` where a serialiser takes care of odd characters."""
        if isinstance(node, dict):
            return {key: self.fill(value, serialised) for key, value in node.items()}
        if isinstance(node, list):
            return [item for value in node for item in self._items(value, serialised)]
        if isinstance(node, _Tagged):
            return self._serialise(node)
        if isinstance(node, str) and not isinstance(node, _Verbatim):
            return _PLACEHOLDER.sub(lambda match: self._value(match.group(1), serialised), node)
        return node

    def check_all_used(self) -> None:
        within = {
            f"{name}.{key}"
            for name, value in self._values.items()
            if not isinstance(value, str)
            for entry in value
            for key in entry
        }
        unused = sorted((set(self._values) | within) - self._used)
        if unused:
            raise TemplateError(
                f"{self._name} has no placeholder for {', '.join(unused)}: drop the value or correct its name"
            )

    def _items(self, node: Any, serialised: bool) -> list[Any]:
        """What an item of a list stands for: itself, or one item for each entry of a list of values."""
        if not isinstance(node, _Tagged) or node.tag != "!each":
            return [self.fill(node, serialised)]
        name = str(node.content["of"])
        entries = self._values.get(name)
        if entries is None or isinstance(entries, str):
            raise TemplateError(f"{self._name} needs a list of values for {name}")
        self._used.add(name)
        items = []
        for entry in entries:
            one = _Filling(self._name, {**self._values, **entry})
            items.append(one.fill(node.content["item"], serialised))
            self._used |= {f"{name}.{used}" if used in entry else used for used in one._used}
        return items

    def _value(self, name: str, serialised: bool) -> str:
        if name not in self._values:
            raise TemplateError(f"{self._name} needs a value for {name}, and none was given")
        self._used.add(name)
        value = self._values[name]
        if not isinstance(value, str):
            raise TemplateError(
                f"{self._name}: {name} must be a string, not {type(value).__name__} (resolve an Output first)"
            )
        if not serialised and _CONTROL.search(value):
            raise TemplateError(
                f"{self._name}: {name} holds a control character (a newline, perhaps): it must be one line"
            )
        return value

    def _serialise(self, node: _Tagged) -> str:
        content = self.fill(node.content, serialised=True)
        try:
            return _SERIALISERS[node.tag](content)
        except ValueError as error:
            raise TemplateError(f"{self._name}: {error}") from None


def _as_base64(content: str) -> str:
    return base64.b64encode(content.encode("utf-8", errors="strict")).decode("ascii")


def _as_json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=True) + "\n"


def _as_yaml(content: Any) -> str:
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=False))


def _as_env(content: Mapping[str, Any]) -> str:
    lines = []
    for key, value in content.items():
        text = _single_line(key, value)
        if _ENV_UNSAFE.search(text):
            raise ValueError(f"{key} holds a quote or another character that a shell would interpret")
        lines.append(f'{key}="{text}"\n')
    return "".join(lines)


def _as_envlist(content: Mapping[str, Any]) -> str:
    return "".join(f"{key}={_single_line(key, value)}\n" for key, value in content.items())


def _single_line(key: str, value: Any) -> str:
    text = str(value)
    if _CONTROL.search(text):
        raise ValueError(f"{key} holds a control character (a newline, perhaps): it must be one line")
    return text


_SERIALISERS: dict[str, Callable[[Any], str]] = {
    "!base64": _as_base64,
    "!json": _as_json,
    "!yaml": _as_yaml,
    "!env": _as_env,
    "!envlist": _as_envlist,
}


# libyaml's parser reads the same and ten times as fast; what is written keeps to one emitter on all machines,
# since other bytes would replace the machine.
_Parser: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _TemplateLoader(_Parser):  # type: ignore[misc,valid-type]
    """SafeLoader that knows the tags of a template."""


class _UserDataDumper(yaml.SafeDumper):
    """SafeDumper that keeps scripts readable: a text of several lines becomes a literal block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def analyze_scalar(self, scalar: str) -> ScalarAnalysis:
        """How a text may be written. PyYAML looks at each character; of a script one search says the same."""
        if not _SCRIPT.fullmatch(scalar):
            return super().analyze_scalar(scalar)
        return ScalarAnalysis(
            scalar,
            empty=False,
            multiline=True,
            allow_flow_plain=False,
            allow_block_plain=False,
            allow_single_quoted=True,
            allow_double_quoted=True,
            allow_block=True,
        )


def _construct_tagged(loader: yaml.SafeLoader, node: yaml.Node) -> _Tagged:
    if isinstance(node, yaml.MappingNode):
        return _Tagged(node.tag, loader.construct_mapping(node, deep=True))
    if isinstance(node, yaml.SequenceNode):
        return _Tagged(node.tag, loader.construct_sequence(node, deep=True))
    return _Tagged(node.tag, loader.construct_scalar(node))  # type: ignore[arg-type]


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text and text.isascii() else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for _tag in ("!file", "!each", *_SERIALISERS):
    _TemplateLoader.add_constructor(_tag, _construct_tagged)
for _text in (str, _Verbatim):
    _UserDataDumper.add_representer(_text, _represent_text)
