"""The Dockerfile's steps, run without a Docker engine: the same commands, in a folder for each stage.

What an image would hold, and nothing else, starts as the image's user with the image's environment. So the
locks, the COPY lines and .dockerignore suffice. What only Docker shows is the base image itself. Two things
differ in a command's text: absolute paths lead into the folders, and uv takes pip's place (the same lock, the
same hashes, in seconds).
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from localcloud.machines.dockerfile import ImageConfig, instructions, read_dockerfile
from tests.broker.paper_gateway import eventually, free_port
from tools import environments, machine
from tools.environments import CHECKOUT

DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()
PIP = "/opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes"


@dataclass
class Stage:
    """A stage's folder, and where in it commands run."""

    root: Path
    workdir: str = "/"
    user: str = "0"
    ran: list[str] = field(default_factory=list)

    def path(self, text: str) -> Path:
        """A path of the image as one of this machine."""
        return self.root / text.lstrip("/") if text.startswith("/") else self.path(self.workdir) / text

    def here(self, command: str) -> str:
        """A command with the image's folders replaced by the stage's."""
        return re.sub(r"(?<![\w/])/(opt|tmp|app)\b", rf"{self.root}/\1", command)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Docker gets: the tracked files that .dockerignore lets in."""
    folder = tmp_path_factory.mktemp("context")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in listed.split("\0"):
        if name and admitted(name) and (CHECKOUT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, target)
    return folder


def admitted(name: str) -> bool:
    """Docker's rule: of the lines that match a file or a folder above it, the last one counts."""
    result = True
    for line in (CHECKOUT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().rstrip("/")
        if not pattern or pattern.startswith("#"):
            continue
        inward = pattern.startswith("!")
        pattern = pattern.lstrip("!")
        parts = name.split("/")
        above = ["/".join(parts[: length + 1]) for length in range(len(parts))]
        if any(_matches(path, pattern) for path in above):
            result = inward
    return result


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(path.rpartition("/")[2], pattern[3:])
    return fnmatch.fnmatch(path, pattern) and path.count("/") == pattern.count("/")


@pytest.fixture(scope="module")
def image(context: Path) -> Iterator[Stage]:
    """The last stage, after all steps."""
    # Not in pytest's own folder, which only its user may enter: the image's user is another one.
    with tempfile.TemporaryDirectory(prefix="ibkr-image-") as folder:
        Path(folder).chmod(0o755)
        yield built(context, Path(folder))


def built(context: Path, folder: Path) -> Stage:
    """Run all steps; a folder for each stage."""
    stages: dict[str, Stage] = {}
    stage = None
    for keyword, rest in instructions(DOCKERFILE):
        words = rest.split()
        if keyword == "FROM":
            stage = Stage(folder / str(len(stages)))
            stage.root.mkdir()
            stages[words[-1]] = stage
            assert "@sha256:" in words[0], "a tag can be moved to another image"
        assert stage is not None
        if keyword == "COPY":
            staged = words[0].startswith("--from=")
            source = stages[words[0].partition("=")[2]].root if staged else context
            *names, target = words[1:] if staged else words
            _copy(source, names, stage.path(target), into=target.endswith("/"), linked=staged)
        elif keyword == "RUN":
            _run(stage, rest)
        elif keyword == "WORKDIR":
            stage.workdir = rest
            stage.path("").mkdir(parents=True, exist_ok=True)
        elif keyword == "USER":
            stage.user = rest
    assert stage is not None
    return stage


def _copy(source: Path, names: list[str], target: Path, into: bool, linked: bool) -> None:
    for name in names:
        found = source / name.lstrip("/")
        if found.is_dir():
            # A stage's files are linked, which is quicker: the steps only add files.
            copy = os.link if linked else shutil.copy
            shutil.copytree(found, target, symlinks=True, copy_function=copy, dirs_exist_ok=True)
        else:
            assert found.exists(), f"{name} isn't in the build's context: .dockerignore keeps it out"
            place = target / found.name if into else target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, place)


def _run(stage: Stage, command: str) -> None:
    stage.ran.append(command)
    if command.startswith("useradd"):
        return  # it would be a user of this machine
    uv = environments.installed_uv()
    # The image's folders first: what this machine's paths hold isn't the image's, such as a checkout in /tmp.
    step = stage.here(command)
    step = step.replace("python -m venv", f"{uv} venv --quiet --python {sys.executable}")
    quick = f"{uv} pip install --quiet --python {stage.path('/opt/venv/bin/python')} --require-hashes"
    step = step.replace(stage.here(PIP), quick)
    variables = environments.uv_settings() | {"XDG_CACHE_HOME": str(machine.cache_folder().parent)}
    variables["PATH"] = f"{stage.path('/opt/venv/bin')}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", step],
        cwd=stage.path("") if stage.workdir != "/" else stage.root,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def config() -> ImageConfig:
    return read_dockerfile(DOCKERFILE)


def in_image(
    image: Stage, config: ImageConfig, argv: list[str], environment: dict[str, str]
) -> subprocess.Popen[str]:
    """Start a program as a container of the image would: its environment, its folder, its user."""
    variables = {name: image.here(value) for name, value in config.env.items()} | environment
    variables["PATH"] = f"{image.path('/opt/venv/bin')}:{os.defpath}"
    setpriv = shutil.which("setpriv")
    as_user = []
    if os.geteuid() == 0 and setpriv and _anybody_may_run(Path(sys.executable).resolve()):
        as_user = [setpriv, "--reuid", image.user, "--regid", image.user, "--clear-groups"]
    return subprocess.Popen(
        [*as_user, *argv],
        cwd=image.path(""),
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _anybody_may_run(program: Path) -> bool:
    """Whether another user gets there: an interpreter below /root is for root alone."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (program, *program.parents))


def test_nothing_but_what_the_service_needs_reaches_docker(context: Path) -> None:
    assert {entry.name for entry in context.iterdir()} == {"broker", "cloud-init", "requirements", "tools"}
    assert [entry.name for entry in (context / "tools").iterdir()] == ["web_packages.py"]
    assert {entry.name for entry in (context / "requirements").iterdir()} == {"service.lock", "web.json"}
    assert not admitted(".local/passphrase")
    assert not admitted("Pulumi.prod.yaml")
    assert not admitted("broker/service/__pycache__/app.cpython-312.pyc")


@pytest.mark.timeout(300)
def test_the_image_holds_what_is_served_and_its_user_owns_none_of_it(image: Stage) -> None:
    assert image.user.isdigit(), "Kubernetes and scanners tell a number that isn't root's from a name"
    assert int(image.user) > 0
    assert any(f"useradd --system --uid {image.user}" in command for command in image.ran)
    assert list(image.path("/opt/venv/lib").rglob("*.pyc")), "compiled at build, since nobody can write later"
    scripts = [file.name for file in image.path("/app/broker/service/dashboard/packages").rglob("*.js")]
    assert "htmx.min.js" in scripts
    for left_out in ("tests", "localcloud", "stacks", "tools"):
        assert not image.path(f"/app/{left_out}").exists()
    names = {found.name for found in image.path("/opt/venv").rglob("site-packages/*")}
    assert "pytest" not in names
    assert "pulumi" not in names


@pytest.mark.timeout(300)
def test_the_image_migrates_serves_and_is_healthy(
    image: Stage, config: ImageConfig, environment: dict[str, str]
) -> None:
    migrated = in_image(image, config, [*config.entrypoint, "migrate"], environment)
    said, _ = migrated.communicate(timeout=120)
    assert migrated.returncode == 0, said

    port = {"PORT": str(free_port()), "HOST": "127.0.0.1"}
    service = in_image(image, config, [*config.entrypoint, *config.command], environment | port)
    try:
        eventually(lambda: _is_healthy(image, config, port, service), "the HEALTHCHECK's own command passes")
    finally:
        service.terminate()
        service.communicate(timeout=60)
    assert not _health(image, config, port), "and fails once nothing serves"


def _is_healthy(
    image: Stage, config: ImageConfig, port: dict[str, str], service: subprocess.Popen[str]
) -> bool:
    assert service.poll() is None, service.communicate()[0]
    return _health(image, config, port)


def _health(image: Stage, config: ImageConfig, port: dict[str, str]) -> bool:
    (check,) = [rest for keyword, rest in instructions(DOCKERFILE) if keyword == "HEALTHCHECK"]
    argv: list[str] = json.loads(check.partition("CMD ")[2])
    asked = in_image(image, config, argv, port)
    asked.communicate(timeout=60)
    return asked.returncode == 0


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([hadolint, "Dockerfile"], cwd=CHECKOUT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
