"""Looks for secrets where none should be, in whichever way they may be written."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from urllib.parse import quote

_CHUNK = 8 * 1024 * 1024


def forms(*secrets: str) -> list[bytes]:
    """How a secret may look in a file: as it is, in JSON, in Java properties, in a URL, in base64."""
    found: set[str] = set()
    for secret in secrets:
        escaped = json.dumps(secret)[1:-1]
        found |= {secret, escaped, secret.replace("\\", "\\\\"), quote(secret, safe="")}
        found.add(base64.b64encode(secret.encode()).decode())
    return sorted(form.encode() for form in found)


def holders(path: Path, secret: list[bytes]) -> list[Path]:
    """The files, at a path or below it, in which one of the forms is. Swap files aren't read: nothing is in
    them.
    """
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.name != "swapfile"]
    return [file for file in files if _is_plain(file) and _holds(file, secret)]


def _is_plain(file: Path) -> bool:
    return stat.S_ISREG(file.lstat().st_mode)


def _holds(file: Path, secret: list[bytes]) -> bool:
    overlap = max(map(len, secret))
    end = b""
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            if any(form in end + chunk for form in secret):
                return True
            end = chunk[-overlap:]
    return False
