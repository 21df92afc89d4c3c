"""Environments are complete or made anew. The real uv makes them here, of locks that need no network."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import environments
from tools.environments import Environment, wheel_from_index

WHEEL = b"this stands for a wheel"
LIBCS = ("manylinux_2_17", "musllinux_1_1")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setattr(environments, "CHECKOUT", tmp_path)
    lock = tmp_path / "empty.lock"
    lock.write_text("# nothing\n")
    return Environment(tmp_path / ".venv", lock)


def test_an_environment_is_made_once(environment: Environment) -> None:
    assert not environment.is_ready()
    environment.make("Installing")
    made = environment.python.lstat().st_ctime_ns
    environment.make("Installing")
    assert environment.is_ready()
    assert environment.python.lstat().st_ctime_ns == made


def test_an_interrupted_one_is_made_anew(environment: Environment) -> None:
    """What an interruption leaves has no stamp; its packages may be half there."""
    environment.make("Installing")
    (environment.folder / ".complete").unlink()
    half = environment.folder / "half-installed"
    half.write_text("x")
    environment.make("Installing")
    assert environment.is_ready()
    assert not half.exists()


def test_another_lock_makes_another_environment(environment: Environment) -> None:
    environment.make("Installing")
    environment.lock.write_text("# something else\n")
    assert not environment.is_ready()


def test_a_moved_checkout_is_made_anew(environment: Environment, tmp_path: Path) -> None:
    """Scripts in an environment hold the path that it was made at."""
    environment.make("Installing")
    moved = Environment(tmp_path / "elsewhere", environment.lock)
    environment.folder.rename(moved.folder)
    assert not moved.is_ready()


def test_an_environment_whose_python_is_gone_is_made_anew(environment: Environment) -> None:
    environment.make("Installing")
    environment.python.unlink()
    assert not environment.is_ready()


@pytest.fixture
def index(request: pytest.FixtureRequest) -> Iterator[str]:
    """A package index that has one wheel of uv for every platform."""

    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            digest = hashlib.sha256(WHEEL).hexdigest()
            platforms = [f"{libc}_{arch}" for libc in LIBCS for arch in ("x86_64", "aarch64")]
            names = [f"uv-1.0-py3-none-{platform}.whl" for platform in platforms]
            links = [f'<a href="../../files/{name}#sha256={digest}" data-x="1">{name}</a>' for name in names]
            page = "\n".join(links).encode() if self.path.endswith("/uv/") else WHEEL
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


def test_without_pip_uv_comes_from_the_index_itself(index: str) -> None:
    pinned = {hashlib.sha256(WHEEL).hexdigest()}
    assert wheel_from_index(index, "uv", "1.0", pinned) == WHEEL


def test_a_wheel_that_is_not_pinned_is_not_taken(index: str) -> None:
    with pytest.raises(ValueError, match="no wheel"):
        wheel_from_index(index, "uv", "1.0", {"0" * 64})


def test_every_lock_pins_by_hash_and_names_no_index() -> None:
    locks = sorted(environments.REQUIREMENTS.glob("*.lock"))
    assert {lock.stem for lock in locks} == {"dev", "service", "ib-async", "tool-uv", "tool-go"}
    for lock in locks:
        text = lock.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text, f"{lock.name} names an address, which is this machine's business"


def test_what_is_deployed_is_what_was_tested() -> None:
    tested, deployed = (
        {
            line.split(" ")[0]
            for line in (environments.REQUIREMENTS / name).read_text().splitlines()
            if "==" in line
        }
        for name in ("dev.lock", "service.lock")
    )
    assert deployed <= tested


def test_the_two_tws_libraries_never_meet() -> None:
    over_ib_async = (environments.REQUIREMENTS / "ib-async.lock").read_text()
    assert "ib-async==" in over_ib_async
    assert "ib-insync==" not in over_ib_async
    assert "\neventkit==" not in over_ib_async, "eventkit and aeventkit install the same package"
