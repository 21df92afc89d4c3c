"""The dashboard's scripts: what was pinned or nothing, from whatever registry the machine has."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools import web_packages
from tools.web_packages import NotFetched, Package, install, is_complete, read

ROOT = Path(__file__).resolve().parents[2]


def archive(**files: str) -> bytes:
    """A package as npm packs it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as contents:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            contents.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


SERVED = archive(**{"dist/plot.js": "plot()", "src/plot.ts": "not served", "LICENSE": "free"})


class Registry:
    """A registry on loopback."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: bytes | None = SERVED


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """What the machine is configured to use."""
    found = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            self.send_response(404 if found.answer is None else 200)
            self.end_headers()
            self.wfile.write(found.answer or b"")

        def log_message(self, *_said: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{server.server_port}/npm/")
    yield found
    server.shutdown()
    server.server_close()


def pinned(content: bytes = SERVED, version: str = "1.2.3") -> Package:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return Package("@by/plot", version, f"sha512-{digest}", ("dist/plot.js", "LICENSE"))


def test_the_named_files_are_put_there_once_and_older_versions_go(registry: Registry, tmp_path: Path) -> None:
    there, cache = tmp_path / "there", tmp_path / "cache"
    install([pinned(version="1.2.2")], there, cache)
    install([pinned()], there, cache)
    assert [path.relative_to(there).as_posix() for path in sorted(there.rglob("*.*")) if path.is_file()] == [
        "by-plot-1.2.3/plot.js"
    ]
    assert registry.asked[-1] == "/npm/@by/plot/-/plot-1.2.3.tgz"
    assert is_complete([pinned()], there)
    asked = len(registry.asked)
    install([pinned()], tmp_path / "other", cache)
    assert len(registry.asked) == asked


def test_another_content_than_the_pinned_one_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.answer = archive(**{"dist/plot.js": "steal()", "LICENSE": "free"})
    with pytest.raises(NotFetched, match=r"@by/plot 1\.2\.3 isn't what was pinned"):
        install([pinned()], tmp_path / "there", tmp_path / "cache")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_spoilt_cache_is_fetched_anew(registry: Registry, tmp_path: Path) -> None:
    install([pinned()], tmp_path / "there", tmp_path / "cache")
    next((tmp_path / "cache").rglob("*.tgz")).write_bytes(b"spoilt")
    install([pinned()], tmp_path / "other", tmp_path / "cache")
    assert (tmp_path / "other" / "by-plot-1.2.3" / "plot.js").read_text() == "plot()"


def test_a_registry_that_has_nothing_is_told_with_the_remedy(registry: Registry, tmp_path: Path) -> None:
    registry.answer = None
    with pytest.raises(NotFetched, match=r"(?s)404.*NPM_CONFIG_REGISTRY"):
        install([pinned()], tmp_path / "there")


def test_it_runs_alone_as_the_dockerfile_runs_it(registry: Registry, tmp_path: Path) -> None:
    one = pinned()
    lock = {one.name: {"version": one.version, "integrity": one.integrity, "files": one.files}}
    (tmp_path / "web.json").write_text(json.dumps(lock))
    alone = tmp_path / "web_packages.py"
    alone.write_bytes(Path(web_packages.__file__).read_bytes())
    argv = [sys.executable, "-I", alone, tmp_path / "web.json", tmp_path / "there"]
    subprocess.run(argv, check=True, cwd=tmp_path)
    assert (tmp_path / "there" / "by-plot-1.2.3" / "plot.js").read_text() == "plot()"


def test_what_is_pinned_gives_its_reason_and_its_licence() -> None:
    lock = ROOT / "requirements" / "web.json"
    assert all(one["reason"] for one in json.loads(lock.read_text()).values())
    assert all("LICENSE" in one.files and one.integrity.startswith("sha512-") for one in read(lock))
