"""A short hash of a folder's files, for what has to happen again when they change."""

from __future__ import annotations

import hashlib
from pathlib import Path

_KINDS = (".py", ".sql", ".html", ".css", ".js")


def fingerprint(folder: Path) -> str:
    """The hash of all program files under a folder, names and contents; the same on any machine."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in _KINDS:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
