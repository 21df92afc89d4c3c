"""What a Dockerfile says about running its image: ENV, WORKDIR, ENTRYPOINT and CMD of the last stage.

The local cloud builds nothing: an image name stands for a checkout, and the program is started from
there. Sample of what is read, among instructions that don't matter here:
    FROM python:3.12-slim AS base
    ENV PORT=8080 LOG_LEVEL="info"
    FROM base
    ENTRYPOINT ["python", "-m", "broker.service"]
    CMD ["serve"]
"""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

_VARIABLE = re.compile(r"(?<!\\)\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")


@dataclass
class ImageConfig:
    """How a container of the image is started."""

    env: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    workdir: str = "/"


def read_dockerfile(text: str) -> ImageConfig:
    """The configuration of the image that this Dockerfile builds. Raises ValueError without a FROM."""
    stages: dict[str, ImageConfig] = {}
    arguments: dict[str, str] = {}
    stage: ImageConfig | None = None
    for keyword, rest in instructions(text):
        if keyword == "FROM":
            words = [word for word in rest.split() if not word.startswith("--")]
            stage = copy.deepcopy(stages.get(words[0], ImageConfig()))
            stages[words[2] if len(words) == 3 else str(len(stages))] = stage
        elif keyword == "ARG":
            name, _, value = rest.partition("=")
            arguments[name.strip()] = value.strip().strip("\"'")
        elif stage is not None:
            _apply(stage, keyword, rest, arguments)
    if stage is None:
        raise ValueError("the Dockerfile has no FROM")
    return stage


def _apply(stage: ImageConfig, keyword: str, rest: str, arguments: dict[str, str]) -> None:
    if keyword == "ENV":
        known = arguments | stage.env
        stage.env.update({name: _expand(value, known) for name, value in _assignments(rest)})
    elif keyword == "WORKDIR":
        folder = _expand(rest.strip(), arguments | stage.env)
        stage.workdir = folder if folder.startswith("/") else f"{stage.workdir.rstrip('/')}/{folder}"
    elif keyword == "ENTRYPOINT":
        stage.entrypoint, stage.command = _argv(rest), []  # a new entry point empties an inherited CMD
    elif keyword == "CMD":
        stage.command = _argv(rest)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Keyword and argument of each instruction, with continued lines joined."""
    pending = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#") or (not stripped and pending):
            continue
        if stripped.endswith("\\"):
            pending += stripped[:-1] + " "
            continue
        keyword, _, rest = (pending + stripped).strip().partition(" ")
        pending = ""
        if keyword:
            yield keyword.upper(), rest.strip()


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """`A=1 B="two words"`, or the old form `A one value`."""
    first = text.split(maxsplit=1)[0]
    if "=" not in first:
        name, _, value = text.partition(" ")
        yield name, value.strip()
        return
    for word in shlex.split(text):
        name, _, value = word.partition("=")
        yield name, value


def _argv(text: str) -> list[str]:
    """Exec form is JSON; anything else is given to a shell."""
    if text.startswith("["):
        try:
            return [str(part) for part in json.loads(text)]
        except json.JSONDecodeError:
            pass
    return ["/bin/sh", "-c", text]


def _expand(text: str, known: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda found: known.get(found[1] or found[3], found[2] or ""), text)
