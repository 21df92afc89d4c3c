"""cloud-init as a machine of the local cloud has it: reads user data and applies the modules that matter.

Applied: `write_files` (every encoding, permissions, owner noted, append, defer), `bootcmd`, `runcmd`,
`packages` (as "the image has them"), `users` (noted). What it doesn't know it names on the console.
Per-instance modules run once in a machine's life: a reboot, or changed user data, doesn't run them again.

Rules: https://docs.cloud-init.io/en/latest/reference/modules.html
"""

from __future__ import annotations

import base64
import gzip
import json
import shlex
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from localcloud.machines.paths import MachinePaths, is_script

_INSTANCE = "/var/lib/cloud/instances/i-local"
_APPLIED = {"write_files", "bootcmd", "runcmd", "packages", "users", "groups"}
_OF_THE_IMAGE = {
    "package_update": "the package lists are the image's",
    "package_upgrade": "the packages are the image's",
    "apt": "the package manager's settings",
    "swap": "this laptop's memory",
    "timezone": "this laptop's time zone",
}


class UserDataError(ValueError):
    """The user data can't be used; on a real machine, too, cloud-init would say so and do without it."""


@dataclass(frozen=True)
class File:
    """One entry of write_files, decoded."""

    path: str
    content: bytes
    mode: int
    owner: str
    append: bool
    defer: bool


def parse(user_data: str) -> dict[str, Any]:
    """The cloud-config in a machine's user data; empty for none. Raises UserDataError."""
    if not user_data.strip():
        return {}
    if user_data.startswith("#!"):
        return {"runcmd": [user_data]}
    if not user_data.startswith("#cloud-config"):
        raise UserDataError("user data is neither a script (#!) nor #cloud-config: ignored")
    try:
        document = yaml.safe_load(user_data)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise UserDataError(f"user data isn't valid YAML{line}: ignored") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UserDataError("cloud-config must be a mapping of modules: ignored")
    return document


def files_of(config: dict[str, Any]) -> list[File]:
    """The files that write_files asks for. Raises UserDataError, naming the path and never the content."""
    return [_file(entry) for entry in config.get("write_files") or []]


def shell_script(commands: Iterable[Any]) -> str:
    """The script that cloud-init makes of `runcmd` or `bootcmd`: a list is quoted, a string is shell."""
    lines = ["#!/bin/sh"]
    for command in commands:
        if isinstance(command, list):
            lines.append(" ".join(shlex.quote(str(part)) for part in command))
        elif isinstance(command, str):
            lines.append(command)
        else:
            raise UserDataError(f"a command must be a string or a list, not {type(command).__name__}")
    return "\n".join(lines) + "\n"


class CloudInit:
    """Applies one machine's user data to its disk."""

    def __init__(self, paths: MachinePaths, user_data: str, log: Callable[[str], None]) -> None:
        self._paths = paths
        self._user_data = user_data
        self._log = log
        self._instance = paths.inside(_INSTANCE)
        self.owners: dict[str, str] = {}
        self.config: dict[str, Any] = {}

    @property
    def first_boot(self) -> bool:
        """Whether the per-instance modules are still to be run."""
        return not (self._instance / "sem" / "config_scripts_user").exists()

    def begin(self) -> None:
        """Stores the user data as cloud-init does at every boot, and reads it. Raises UserDataError."""
        (self._instance / "sem").mkdir(parents=True, exist_ok=True)
        link = self._paths.inside("/var/lib/cloud/instance")
        if not link.is_symlink():
            link.symlink_to("instances/" + self._instance.name)
        for name in ("user-data.txt", "cloud-config.txt"):
            _write(self._instance / name, self._user_data.encode(), 0o600)
        noted = self._instance / "owners.json"
        if noted.exists():
            self.owners = json.loads(noted.read_text())
        self.config = parse(self._user_data)

    def write_files(self, deferred: bool = False) -> None:
        """Writes the files, once in the machine's life. Raises UserDataError."""
        once = self._instance / "sem" / ("config_write_files_deferred" if deferred else "config_write_files")
        if not once.exists():
            for file in files_of(self.config):
                if file.defer == deferred:
                    self._write_file(file)
            self._note_owners()
            once.touch()
        self._paths.know_scripts(path for path in self.owners if self._is_script(path))

    def note_owner(self, path: str, owner: str) -> None:
        """Remembers who owns a path of the machine: this laptop has no such users."""
        self.owners[path] = owner
        self._note_owners()

    def say_what_is_skipped(self) -> None:
        """Names on the console what user data asks for and the local cloud doesn't do."""
        for name in self.config:
            if name in _OF_THE_IMAGE:
                self._log(f"cloud-init: {name} skipped: {_OF_THE_IMAGE[name]} in the local cloud")
            elif name not in _APPLIED:
                self._log(f"cloud-init: {name} skipped: the local cloud doesn't have this module")

    @property
    def packages(self) -> set[str]:
        """The packages asked for: what the machine's image has beyond the plain one."""
        wanted = self.config.get("packages") or []
        return {str(name[0] if isinstance(name, list) else name) for name in wanted}

    def boot_script(self) -> str | None:
        """What `bootcmd` says, at every boot."""
        commands = self.config.get("bootcmd")
        return shell_script(commands) if commands else None

    def run_script(self) -> Path | None:
        """The script of `runcmd`, where cloud-init puts it; None when it has run, or there is none."""
        if not self.first_boot:
            return None
        commands = self.config.get("runcmd")
        if not commands:
            return None
        script = self._instance / "scripts" / "runcmd"
        script.parent.mkdir(exist_ok=True)
        text = str(commands[0]) if self._user_data.startswith("#!") else shell_script(commands)
        _write(script, text.encode(), 0o700)
        self._paths.know_scripts([f"{_INSTANCE}/scripts/runcmd"])
        return script

    def finish(self) -> None:
        """Notes that the per-instance modules have run."""
        (self._instance / "sem" / "config_scripts_user").touch()

    def _write_file(self, file: File) -> None:
        path = self._paths.inside(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() + file.content if file.append and path.exists() else file.content
        _write(path, content, file.mode)
        self.owners[file.path] = file.owner

    def _is_script(self, path: str) -> bool:
        here = self._paths.inside(path)
        return here.is_file() and is_script(path, here.read_bytes())

    def _note_owners(self) -> None:
        _write(self._instance / "owners.json", json.dumps(self.owners).encode(), 0o600)


def _file(entry: Any) -> File:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise UserDataError("an entry of write_files has no path")
    path = entry["path"]
    if not path.startswith("/"):
        raise UserDataError(f"write_files: {path} is not an absolute path")
    permissions = entry.get("permissions", "0644")
    try:
        # An unquoted 0644 is a YAML number already; cloud-init takes both.
        mode = permissions if isinstance(permissions, int) else int(str(permissions), 8)
        content = _decoded(entry.get("content") or "", str(entry.get("encoding") or "text/plain"))
    except (ValueError, OSError, EOFError, zlib.error):
        raise UserDataError(f"write_files: {path} has a content or permissions that can't be read") from None
    return File(
        path=path,
        content=content,
        mode=mode,
        owner=str(entry.get("owner") or "root:root"),
        append=bool(entry.get("append")),
        defer=bool(entry.get("defer")),
    )


def _decoded(content: str | bytes, encoding: str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    kinds = encoding.lower().strip().split("+")
    if "b64" in kinds or "base64" in kinds:
        data = base64.b64decode(b"".join(data.split()), validate=True)
    if {"gz", "gzip"} & set(kinds):
        data = gzip.decompress(data)
    return data


def _write(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
    path.chmod(mode)
