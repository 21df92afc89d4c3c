"""Docker Hub with one image: what stands for voyz/ibeam, on the Python of the machines' own system."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from tests.boot.image import Image
from tests.boot.internet import Answer, Request

HOST = "registry-1.docker.io"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_PROGRAM = Path(__file__).parent / "stand_ins" / "ibeam"
_USER = "1000"


class Registry:
    """`image` is the name by which it is pulled, pinned by its digest."""

    def __init__(self, image: Image) -> None:
        layer = _layer(image.root)
        config = _json(
            {
                "architecture": "amd64", "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
                "config": {"User": _USER, "Entrypoint": ["/usr/bin/python3", "/ibeam"]},
            }
        )  # fmt: skip
        self._manifest = _json(
            {
                "schemaVersion": 2, "mediaType": _MANIFEST, "config": _described(_CONFIG, config),
                "layers": [_described(_LAYER, layer)],
            }
        )  # fmt: skip
        self._blobs = {_digest(blob): blob for blob in (layer, config)}
        self.image = f"voyz/ibeam:0.5.12@{_digest(self._manifest)}"

    def site(self, request: Request) -> Answer:
        """Docker Registry HTTP API v2, as far as a pull by digest goes."""
        if request.path == "/v2/":
            return Answer(200, b"{}")
        digest = _digest(self._manifest)
        if request.path in (f"/v2/voyz/ibeam/manifests/{digest}", "/v2/voyz/ibeam/manifests/latest"):
            named = ("Docker-Content-Digest", digest)
            return Answer(200, self._manifest, (("Content-Type", _MANIFEST), named))
        blob = self._blobs.get(request.path.removeprefix("/v2/voyz/ibeam/blobs/"))
        return (
            Answer(404)
            if blob is None
            else Answer(200, blob, (("Content-Type", "application/octet-stream"),))
        )


def _layer(root: Path) -> bytes:
    """A tar of the root's Python, the libraries that it is linked with, and our program."""
    buffer = io.BytesIO()
    interpreter = (root / "usr/bin/python3").resolve().name
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in ("bin", "lib", "lib64", "usr", "usr/bin", "usr/lib", "usr/lib64", "usr/bin/python3"):
            tar.add(root / path, path, recursive=False)
        tar.add(root / "usr/bin" / interpreter, f"usr/bin/{interpreter}")
        tar.add(root / "usr/lib" / interpreter, f"usr/lib/{interpreter}", filter=_without_bytecode)
        for name, file in _libraries(root, interpreter):
            tar.add(root / file[1:], f"usr{name}")  # /lib and /lib64 are links to the folders in /usr
        tar.add(_PROGRAM, "ibeam")
    return buffer.getvalue()


def _libraries(root: Path, interpreter: str) -> list[tuple[str, str]]:
    """The paths by which a program finds its libraries, and the files that these lead to inside the root."""
    script = (
        "ldd /usr/bin/$0 | grep -o '/[^ ]*' | while read -r name; do echo $name $(readlink -f $name); done"
    )
    listed = subprocess.run(
        ["chroot", str(root), "sh", "-c", script, interpreter], capture_output=True, text=True, check=True
    ).stdout
    return [(name, file) for name, file in (line.split() for line in listed.splitlines())]


def _without_bytecode(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name or entry.name.endswith(".a") else entry


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _described(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(blob), "digest": _digest(blob)}
