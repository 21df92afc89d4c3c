"""A machine's absolute paths, and where they are on this laptop.

A machine of the local cloud has no file system of its own, only a folder. Its scripts and units name absolute
paths all the same, so these are rewritten in whatever is about to run: /run becomes the machine's private
run-time folder, the others become paths below its disk. Nothing is rewritten on the disk itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

_OWN = "etc|opt|var|run|srv|root|home|mnt|tmp|dev/disk"
_PATH = re.compile(rf"(?<![\w./}}~-])/(?:{_OWN})(?![\w.-])(?:/[\w.@%+-]+)*")
_INTERPRETER = re.compile(r"#!\s*/(?:\S*/)?(?:env\s+)?(\w+)")
_SCRIPT_START = b"#!"


class MachinePaths:
    """Translates between a machine's view (`/etc/x`) and this laptop's.

    `root` is the machine's disk and `run` its /run. The disk is reached through a link inside `run`: that
    path is short and free of blanks, which the disk's own need not be, and a script may not quote it.
    """

    def __init__(self, root: Path, run: Path) -> None:
        self.root = root
        self.run = run
        self.disk = run / "r"
        self.own = run / ".m"
        self._overlay = self.own / "x"
        self._scripts: set[str] = set()

    def prepare(self) -> None:
        """Makes the link to the disk and the folder for what isn't the machine's own. Call at each boot."""
        self.own.mkdir(mode=0o700, exist_ok=True)
        self._overlay.mkdir(exist_ok=True)
        if not self.disk.is_symlink():
            self.disk.symlink_to(self.root)

    def inside(self, path: str) -> Path:
        """Where a path of the machine is here. `..` never leads out of it."""
        clean = _normal(path)
        if clean.startswith("/run/") or clean == "/run":
            return self.run / clean[5:]
        return self.disk / clean[1:]

    def text(self, text: str) -> str:
        """A command's argument, or a script, with every path of the machine turned into one of this laptop.

        A path that is a script of the machine leads to its rewritten copy. What was turned already stays.
        """
        return _PATH.sub(lambda match: str(self._runnable(match.group(0))), text)

    def restore(self, text: str) -> str:
        """The machine's view of a text that names this laptop's paths: for its console, and for people."""
        for here in (f"{self._overlay}/", f"{self.disk}/"):
            text = text.replace(here, "/")
        return text.replace(f"{self.run}/", "/run/")

    def know_scripts(self, paths: Iterable[str]) -> None:
        """Registers files of the machine that may be run, or be imported by one that runs."""
        for path in paths:
            self._scripts.add(_normal(path))

    def refresh_scripts(self) -> None:
        """Writes the rewritten copies of scripts that are new or changed since they were last needed."""
        for path in self._scripts:
            source = self.inside(path)
            copy = self._overlay / path[1:]
            if not source.is_file():
                copy.unlink(missing_ok=True)
                continue
            made = source.stat()
            if copy.exists() and copy.stat().st_mtime_ns == made.st_mtime_ns:
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.unlink(missing_ok=True)
            copy.write_text(self._rewritten(source.read_text(encoding="utf-8")), encoding="utf-8")
            copy.chmod(made.st_mode & 0o777 | 0o400)
            os.utime(copy, ns=(made.st_mtime_ns, made.st_mtime_ns))

    def script(self, path: Path) -> Path | None:
        """The rewritten copy that stands for a script, given either of its paths here; None if it is none."""
        text = str(path)
        for here in (f"{self._overlay}/", f"{self.disk}/"):
            if text.startswith(here):
                name = "/" + text.removeprefix(here)
                return self._overlay / name[1:] if name in self._scripts else None
        return None

    def _rewritten(self, script: str) -> str:
        """A script's text for this laptop. Its interpreter is the one that the machine's scripts find."""
        text = self.text(script)
        match = _INTERPRETER.match(text)
        return f"#!{self.own}/bin/{match.group(1)}{text[match.end() :]}" if match else text

    def _runnable(self, path: str) -> Path:
        if path.startswith(f"{self.disk}/"):
            path = path.removeprefix(str(self.disk))
        elif path.startswith(f"{self.run}/"):
            return Path(path)
        clean = _normal(path)
        return self._overlay / clean[1:] if clean in self._scripts else self.inside(clean)


def is_script(path: str, content: bytes) -> bool:
    """Whether a file of a machine is a script, or a module that one may import."""
    return content.startswith(_SCRIPT_START) or path.endswith(".py")


def _normal(path: str) -> str:
    """An absolute path without `.`, `..` and /var/run, which is /run on every Linux of today."""
    parts: list[str] = []
    for part in PurePosixPath("/", path).parts[1:]:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    clean = "/" + "/".join(parts)
    if clean == "/var/run" or clean.startswith("/var/run/"):
        return clean[4:]
    return clean
