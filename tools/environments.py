"""The checkout's virtual environments: hash-pinned, complete or not there, safe to interrupt.

`uv` (itself pinned by hash, kept in the cache folder) makes them, so neither pip nor Debian's
python3-venv is needed. An environment is complete when its stamp names the lock it was made from;
anything else is made anew.
"""

import hashlib
import html
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tools import cache, machine
from tools.steps import SetupFailed, run

CHECKOUT = Path(__file__).resolve().parent.parent
REQUIREMENTS = CHECKOUT / "requirements"
PYPI = "https://pypi.org/simple"
# <a href="https://.../uv-0.13.8-py3-none-manylinux_2_17_x86_64.whl#sha256=0123..." ...>
WHEEL_LINK = re.compile(r'href="([^"#]+\.whl)#sha256=([0-9a-f]{64})"')
SECONDS_TO_INSTALL = 1800


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the lock that says what is in it."""

    folder: Path
    lock: Path

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    @property
    def _stamp(self) -> Path:
        return self.folder / ".complete"

    def _made_from(self) -> str:
        # The folder is in it because scripts hold absolute paths: a moved checkout is made anew.
        return hashlib.sha256(self.lock.read_bytes() + bytes(self.folder)).hexdigest()

    def is_ready(self) -> bool:
        """Whether the environment is complete and made from today's lock."""
        try:
            return self._stamp.read_text() == self._made_from() and self.python.exists()
        except FileNotFoundError:
            return False

    def make(self, title: str) -> None:
        """Make it if it isn't ready. Raises SetupFailed."""
        with cache.exclusive(CHECKOUT / ".local" / "setup.lock", "another set-up of this checkout") as lock:
            if self.is_ready():
                return
            uv, settings = installed_uv(), uv_settings()
            self._stamp.unlink(missing_ok=True)
            base = ["--quiet", "--python", sys.executable, "--no-project", "--clear"]
            run([uv, "venv", *base, self.folder], f"{title}: new environment", env=settings, keep_open=[lock])
            run(
                [uv, "pip", "sync", "--require-hashes", "--python", self.python, self.lock],
                title,
                env=settings,
                timeout=SECONDS_TO_INSTALL,
                keep_open=[lock],
            )
            self._stamp.write_text(self._made_from())


MAIN = Environment(CHECKOUT / ".venv", REQUIREMENTS / "dev.lock")
IB_ASYNC = Environment(CHECKOUT / ".venv-ib-async", REQUIREMENTS / "ib-async.lock")


def uv_settings() -> dict[str, str]:
    """The process environment for uv: this machine's package index and certificates, as pip has them."""
    settings = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONHOME")}
    settings["UV_PYTHON_DOWNLOADS"] = "never"
    if Path("/etc/ssl/certs").is_dir():
        settings.setdefault("UV_SYSTEM_CERTS", "true")
    if not any(name in settings for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL")):
        index = pip_index()
        if index:
            settings["UV_DEFAULT_INDEX"] = index
    return settings


def has_pip() -> bool:
    """Whether the interpreter that runs this has pip; Debian's hasn't unless python3-pip is installed."""
    return subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0


def pip_index() -> str:
    """The package index that pip is configured to use; empty for the default."""
    if "PIP_INDEX_URL" in os.environ:
        return os.environ["PIP_INDEX_URL"]
    ask = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    return subprocess.run(ask, capture_output=True, text=True).stdout.strip()


def installed_uv() -> Path:
    """The pinned uv, fetched into the cache folder if it isn't there. Raises SetupFailed."""
    lock_file = REQUIREMENTS / "tool-uv.lock"
    version = pinned_version(lock_file, "uv")
    home = machine.cache_folder() / "uv" / version
    uv = home / "bin" / "uv"
    if uv.exists():
        return uv
    with cache.exclusive(home.parent / "lock", "another installation of uv"):
        if not uv.exists():
            with cache.made_complete(home) as draft:
                _fetch_uv(lock_file, version, draft)
                uv_draft = draft / "bin" / "uv"
                uv_draft.chmod(0o755)
                if (
                    version
                    not in subprocess.run([uv_draft, "--version"], capture_output=True, text=True).stdout
                ):
                    raise SetupFailed(f"uv {version} was fetched, but doesn't run on this machine.")
    return uv


def _fetch_uv(lock_file: Path, version: str, into: Path) -> None:
    """By pip, which knows this machine's index and proxies; without pip, from the index directly."""
    tried = []
    if has_pip():
        install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        pinned = ["--require-hashes", "--only-binary", ":all:", "--target", str(into), "-r", str(lock_file)]
        try:
            run([sys.executable, *install, *pinned], f"Installing uv {version}")
            return
        except SetupFailed as failure:
            tried.append(str(failure))
    index = os.environ.get("PIP_INDEX_URL") or PYPI
    try:
        _unpack_uv(wheel_from_index(index, "uv", version, hashes_in(lock_file)), into)
    except (OSError, ValueError) as failure:
        tried.append(f"Downloading the wheel of uv {version} from {index}: {failure}")
        remedy = (
            "Check the network; behind a mirror, set PIP_INDEX_URL to its address (and install python3-pip)."
        )
        raise SetupFailed("\n".join(["uv could not be installed. Tried:", *tried, remedy])) from failure


def wheel_from_index(index: str, project: str, version: str, hashes: set[str]) -> bytes:
    """A wheel for this machine from a package index (PEP 503), verified against pinned hashes.

    Raises OSError if the index can't be reached, ValueError if it has no such wheel.
    """
    page = f"{index.rstrip('/')}/{project}/"
    # Of the index's two forms this is the one that every mirror has.
    request = urllib.request.Request(page, headers={"Accept": "text/html"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        links = WHEEL_LINK.findall(answer.read().decode())
    libc = "manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"
    for address, digest in links:
        address = urllib.parse.urljoin(page, html.unescape(address))
        name = urllib.parse.unquote(address.rpartition("/")[2])
        fits = name.startswith(f"{project}-{version}-") and libc in name and platform.machine() in name
        if fits and digest in hashes:
            with urllib.request.urlopen(address, timeout=60) as answer:
                content: bytes = answer.read()
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError(f"{name} isn't what was pinned: its sha256 differs")
            return content
    raise ValueError(f"no wheel of {project} {version} for {platform.machine()} {libc}")


def _unpack_uv(wheel: bytes, into: Path) -> None:
    archive = into / "uv.whl"
    archive.write_bytes(wheel)
    with zipfile.ZipFile(archive) as contents:
        (into / "bin").mkdir()
        for name in contents.namelist():
            if name.endswith(".data/scripts/uv"):
                with contents.open(name) as source, (into / "bin" / "uv").open("wb") as target:
                    shutil.copyfileobj(source, target)
    archive.unlink()


def pinned_version(lock_file: Path, project: str) -> str:
    """The version of a project in a requirements lock."""
    found = re.search(rf"^{re.escape(project)}==(\S+)", lock_file.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{lock_file} doesn't pin {project}")
    return found[1]


def hashes_in(lock_file: Path) -> set[str]:
    """Every sha256 in a requirements lock."""
    return set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock_file.read_text()))
