"""Which Pulumi CLI is used, and how one is had, from local sources; the real build is a fresh `make up`."""

import hashlib
import http.server
import io
import os
import platform
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import machine, pulumi_cli
from tools.pulumi_cli import VERSION, Attempts, Sources
from tools.steps import SetupFailed

ARCHIVE = f"pulumi-v{VERSION}-linux-{'x64' if platform.machine() == 'x86_64' else 'arm64'}.tar.gz"


def program(folder: Path, name: str, says: str) -> Path:
    """A program that prints one line."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{says}'\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH but /bin, and an empty cache."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_a_recent_cli_on_the_path_is_used(path: Path) -> None:
    program(path, "pulumi", f"v{VERSION}")
    program(path, "pulumi-language-python", "")
    assert pulumi_cli.locate() == path


def test_a_newer_one_will_do(path: Path) -> None:
    program(path, "pulumi", "v3.300.1")
    program(path, "pulumi-language-python", "")
    assert pulumi_cli.locate() == path


@pytest.mark.parametrize("version", ["v3.100.0", "v4.0.0", "nonsense"])
def test_a_version_that_will_not_do_is_passed_over_and_said(path: Path, version: str) -> None:
    program(path, "pulumi", version)
    program(path, "pulumi-language-python", "")
    attempts = Attempts()
    assert pulumi_cli.locate(attempts) is None
    assert str(path / "pulumi") in attempts.said[0]


def test_a_cli_without_its_language_host_is_passed_over(path: Path) -> None:
    program(path, "pulumi", f"v{VERSION}")
    attempts = Attempts()
    assert pulumi_cli.locate(attempts) is None
    assert "pulumi-language-python is missing" in attempts.said[0]


def test_the_kept_one_is_used_and_its_language_host_kept_up_to_date(path: Path) -> None:
    kept = pulumi_cli.kept_folder()
    program(kept, "pulumi", f"v{VERSION}")
    (kept / "language_host.py").write_text("# of an older checkout\n")
    assert pulumi_cli.locate() == kept
    ours = Path(pulumi_cli.__file__).with_name("language_host.py")
    assert (kept / "language_host.py").read_text() == ours.read_text()
    assert os.access(kept / "pulumi-language-python", os.X_OK)


def test_our_language_host_is_not_put_beside_an_official_cli(path: Path) -> None:
    kept = pulumi_cli.kept_folder()
    program(kept, "pulumi", f"v{VERSION}")
    program(kept, "pulumi-language-python", "the official one")
    assert pulumi_cli.locate() == kept
    assert "the official one" in (kept / "pulumi-language-python").read_text()


def release() -> bytes:
    """An archive as the official one is: programs in one folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("pulumi", "pulumi-language-python"):
            content = f"#!/bin/sh\necho v{VERSION}\n".encode()
            member = tarfile.TarInfo(f"pulumi/{name}")
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def published() -> Iterator[dict[str, bytes]]:
    """What a local stand-in for the release's site serves, by file name; "address" is where."""
    files: dict[str, bytes] = {ARCHIVE: release()}
    files["checksums.txt"] = f"{hashlib.sha256(files[ARCHIVE]).hexdigest()}  {ARCHIVE}\n".encode()

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path.rpartition("/")[2])
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    files["address"] = f"http://127.0.0.1:{server.server_port}".encode()
    yield files
    server.shutdown()
    server.server_close()


def sources(published: dict[str, bytes]) -> Sources:
    address = published["address"].decode()
    return Sources(archives=(f"{address}/first", address), checksums=f"{address}/checksums.txt")


def test_the_official_release_is_fetched_and_kept(path: Path, published: dict[str, bytes]) -> None:
    folder = pulumi_cli.ensure(sources(published))
    assert folder == machine.cache_folder() / "pulumi" / VERSION
    assert pulumi_cli.version_of(folder / "pulumi") == pulumi_cli.numbers(VERSION)
    assert not (folder / "language_host.py").exists(), "an official install has the official host"
    assert [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] == [VERSION]


def test_what_was_changed_on_the_way_is_not_used(path: Path, published: dict[str, bytes]) -> None:
    published[ARCHIVE] += b"something else"
    attempts = Attempts()
    assert not pulumi_cli.download(pulumi_cli.kept_folder(), sources(published), attempts)
    assert any("sha256" in said for said in attempts.said)
    assert not pulumi_cli.kept_folder().exists()


def test_a_release_without_a_checksum_is_not_used(path: Path, published: dict[str, bytes]) -> None:
    published["checksums.txt"] = b""
    assert not pulumi_cli.download(pulumi_cli.kept_folder(), sources(published), Attempts())


def test_a_site_that_never_answers_is_given_up_soon() -> None:
    """A firewall that drops packets would otherwise hold a first `make up` for minutes."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError, match="no answer"):
            pulumi_cli.fetch(f"http://127.0.0.1:{port}/", within=0.05)


def test_where_no_way_works_the_message_says_all_that_was_tried_and_what_to_do(
    path: Path, published: dict[str, bytes]
) -> None:
    program(path, "pulumi", "v3.1.0")
    go = program(path, "go", "go version go1.99.0 linux/amd64")
    go.write_text(go.read_text() + '[ "$1" = version ] || { echo "proxy unreachable"; exit 1; }\n')
    published["checksums.txt"] = b""
    with pytest.raises(SetupFailed) as failure:
        pulumi_cli.ensure(sources(published))
    message = str(failure.value)
    for part in (
        "pulumi on PATH",
        "3.1.0",
        "download",
        "build from Go modules",
        "proxy unreachable",
        "install/",
    ):
        assert part in message
    assert not pulumi_cli.kept_folder().exists()


def test_a_go_that_is_too_old_is_not_used(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(path, "go", "go version go1.19 linux/amd64")
    ready = tmp_path / "work" / "go" / "go" / "bin"
    program(ready, "go", "go version go1.26.6 linux/amd64")  # as the wheel leaves it
    attempts = Attempts()
    assert pulumi_cli.go_tool(tmp_path / "work", attempts) == ready / "go"
    assert "older than" in attempts.said[0]


def test_the_sdk_and_the_cli_are_of_one_version() -> None:
    lock = Path(pulumi_cli.__file__).parent.parent / "requirements" / "dev.lock"
    assert f"\npulumi=={VERSION} " in lock.read_text()
    assert f"pulumi/pkg/v3 v{VERSION}" in (pulumi_cli.MODULE / "go.mod").read_text()
