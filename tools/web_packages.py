"""The dashboard's third-party scripts, from npm's registry, pinned by hash in `requirements/web.json`.

    python tools/web_packages.py requirements/web.json DESTINATION

Needs neither npm nor anything but the standard library, since the Dockerfile runs it too. A package is
fetched once into the cache folder (where there is one) and its files are copied from there.
"""

import base64
import hashlib
import hmac
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

REGISTRY = "https://registry.npmjs.org"
LARGEST = 20 * 1024 * 1024


class NotFetched(Exception):
    """A package can't be had, or isn't what was pinned; the message says what to do."""


@dataclass(frozen=True)
class Package:
    """One package and which of its files are served."""

    name: str
    version: str
    integrity: str
    files: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Its folder under the destination, and in the files' addresses: another version has another."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}"


def read(lock: Path) -> list[Package]:
    """The pinned packages."""
    described = json.loads(lock.read_text())
    return [
        Package(name, one["version"], one["integrity"], tuple(one["files"]))
        for name, one in described.items()
    ]


def is_complete(packages: list[Package], destination: Path) -> bool:
    """Whether all files are there. They appear as a whole, see `install`."""
    return all((destination / one.folder).is_dir() for one in packages)


def install(packages: list[Package], destination: Path, cache: Path | None = None) -> None:
    """Puts the packages' files there, and removes what is no longer pinned. Raises NotFetched."""
    destination.mkdir(parents=True, exist_ok=True)
    wanted = {one.folder for one in packages}
    for one in packages:
        final = destination / one.folder
        if final.is_dir():
            continue
        files = _unpacked(one, _archive(one, cache))
        draft = Path(tempfile.mkdtemp(prefix=".", dir=destination))
        try:
            for name, content in files.items():
                (draft / Path(name).name).write_bytes(content)
                (draft / Path(name).name).chmod(0o644)
            draft.chmod(0o755)
            draft.rename(final)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            if not final.is_dir():  # else another process was first
                raise
    for other in destination.iterdir():
        if other.is_dir() and other.name not in wanted:
            shutil.rmtree(other, ignore_errors=True)


def _archive(package: Package, cache: Path | None) -> bytes:
    kept = cache / f"{package.folder}.tgz" if cache is not None else None
    if kept is not None and kept.exists():
        content = kept.read_bytes()
        if _is_pinned(package, content):
            return content
    content = _download(package)
    if not _is_pinned(package, content):
        raise NotFetched(
            f"{package.name} {package.version} isn't what was pinned: its sha512 differs from the one in "
            "requirements/web.json. Don't use it; find out who serves it."
        )
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(f".{os.getpid()}")
        draft.write_bytes(content)
        draft.rename(kept)
    return content


def _download(package: Package) -> bytes:
    base = package.name.rpartition("/")[2]
    address = f"{registry().rstrip('/')}/{package.name}/-/{base}-{package.version}.tgz"
    if not address.startswith(("https://", "http://")):
        raise NotFetched("NPM_CONFIG_REGISTRY isn't an http or https address: set it to the registry's")
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content: bytes = answer.read(LARGEST)
    except (OSError, ValueError) as failure:
        raise NotFetched(
            f"{package.name} {package.version} can't be fetched from npm's registry: {failure}. "
            "Check the network; behind a mirror, set NPM_CONFIG_REGISTRY to its address."
        ) from None
    return content


def _is_pinned(package: Package, content: bytes) -> bool:
    kind, _, digest = package.integrity.partition("-")
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return kind == "sha512" and hmac.compare_digest(found, digest)


def _unpacked(package: Package, archive: bytes) -> dict[str, bytes]:
    """The files that are served. npm's archives have everything in a folder `package`."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as contents:
        for name in package.files:
            member = contents.extractfile(f"package/{name}")
            if member is None:
                raise NotFetched(f"{package.name} {package.version} has no file {name}")
            found[name] = member.read()
    return found


def ensure(checkout: Path, cache: Path) -> None:
    """Puts into a checkout what its dashboard loads, unless it is there. Raises steps.SetupFailed."""
    packages = read(checkout / "requirements" / "web.json")
    destination = checkout / "broker" / "service" / "dashboard" / "packages"
    if is_complete(packages, destination):
        return
    # Here, since the Dockerfile runs this file on its own.
    from tools.steps import SetupFailed

    try:
        install(packages, destination, cache / "web")
    except NotFetched as failure:
        raise SetupFailed(str(failure)) from None


def registry() -> str:
    """npm's registry as this machine has it configured."""
    for variable in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if os.environ.get(variable):
            return os.environ[variable]
    npm = shutil.which("npm")
    if npm is not None:
        asked = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, timeout=30)
        if asked.returncode == 0 and asked.stdout.strip().startswith("http"):
            return asked.stdout.strip()
    return REGISTRY


def main() -> int:
    """Returns the exit code."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        install(read(Path(sys.argv[1])), Path(sys.argv[2]))
    except NotFetched as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
