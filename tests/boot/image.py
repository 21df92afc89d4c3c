"""The operating system that the boots start from: a root made by debootstrap, once, and kept.

It is the release that this machine runs (Debian 12 in continuous integration; Ubuntu on a laptop that runs
Ubuntu), from the mirror that this machine's apt uses. What our user data asks apt for is in it already, so a
boot needs no mirror; so are a certificate authority of the tests and its key, by which stand-ins for the
internet are believed inside. It lies in the cache folder under a name that changes with its recipe; boots
never write to it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.fleet.cloud_init import template_directory
from tools import debian
from tools.machine import cache_folder

_BASE = ("systemd", "systemd-sysv", "dbus", "python3", "iproute2", "ca-certificates", "udev")
# What Google's and DigitalOcean's Ubuntu images have and debootstrap's smallest variant has not.
_OF_A_CLOUD_IMAGE = (
    "cloud-init",
    "e2fsprogs",
    "libnss-systemd",
    "needrestart",
    "openssl",
    "tzdata",
    "unattended-upgrades",
)
_AUTHORITY = "usr/local/share/ca-certificates/boot-tests.crt"
_NEEDED = {
    "debootstrap": "debootstrap",
    "dpkg-deb": "dpkg",
    "gpg": "gpg",
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
_RECIPE = 1
"""Goes up when a root must be made anew for a reason that its packages don't show."""


class NoImage(Exception):
    """The root can't be made here; the message says why and what to do. Nothing is left behind."""


@dataclass(frozen=True)
class Image:
    """A root, read only, and the key of the authority that it trusts."""

    root: Path
    release: str
    codename: str
    authority: Path
    authority_key: Path


def image() -> Image:
    """The image, made if it isn't there: about two minutes, with a network. Raises NoImage."""
    _check_machine()
    system = _os_release()
    packages = sorted({*_OF_A_CLOUD_IMAGE, *asked_for()})
    recipe = hashlib.sha256(repr((_RECIPE, system["VERSION_CODENAME"], _BASE, packages)).encode()).hexdigest()
    folder = cache_folder() / "boot" / f"{system['ID']}-{system['VERSION_ID']}-{recipe[:12]}"
    with _alone(folder.parent):
        if not folder.exists():
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                _make(part, system["VERSION_CODENAME"], packages)
            except subprocess.CalledProcessError as failure:
                end = "\n".join((failure.stdout or "").splitlines()[-15:])
                raise NoImage(
                    f"{' '.join(failure.cmd[:4])} ... ended with {failure.returncode}:\n{end}"
                ) from None
            part.rename(folder)
    return Image(
        folder / "root",
        f"{system['ID']} {system['VERSION_ID']}",
        system["VERSION_CODENAME"],
        folder / "authority.pem",
        folder / "authority.key",
    )


def asked_for() -> set[str]:
    """The packages that our templates ask for, those of a snapshot's own image included."""
    found: set[str] = {"docker.io"}
    for template in template_directory().glob("*.yaml"):
        document = yaml.load(template.read_text(), Loader=_Untagged)  # noqa: S506 - derived from SafeLoader
        found.update(document.get("packages", []))
    return found


class _Untagged(yaml.SafeLoader):
    """Reads our templates' tags as nothing: only the lists of packages are of interest."""


_Untagged.add_multi_constructor("!", lambda loader, suffix, node: None)


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise NoImage(
            "a real boot needs root (namespaces, mounts): sudo make test PYTEST_ARGS=tests/boot, "
            "or leave them out: make test PYTEST_ARGS='--ignore=tests/boot'"
        )
    debian.ensure(_NEEDED, "a real boot")


def _os_release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    found = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
    if found.get("ID") not in ("debian", "ubuntu") or "VERSION_CODENAME" not in found:
        raise NoImage(
            f"debootstrap makes Debian and Ubuntu from their own apt, and this is {found.get('ID')}"
        )
    return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, codename: str, packages: list[str]) -> None:
    root = folder / "root"
    mirror = _mirror(codename)
    _run("debootstrap", "--variant=minbase", f"--include={','.join(_BASE)}", codename, str(root), mirror)
    apt = root / "etc/apt"
    _apt_of_this_machine(apt)
    no_services = root / "usr/sbin/policy-rc.d"  # nothing is started while it is installed
    no_services.write_text("#!/bin/sh\nexit 101\n")
    no_services.chmod(0o755)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    _inside(root, "apt-get", "update")
    # cloud-init comes now: debootstrap can't resolve a virtual package that it wants.
    _inside(root, "apt-get", "install", "-y", "--no-install-recommends", *packages)
    _inside(root, "apt-get", "clean")
    no_services.unlink()
    # No mirror from here on: what is installed is found in dpkg's own list, and `apt-get update` has nothing
    # to do.
    for file in (apt / "sources.list", *(apt / "sources.list.d").iterdir(), *_proxies(apt)):
        file.unlink(missing_ok=True)
    for listed in (root / "var/lib/apt/lists").glob("*_*"):
        listed.unlink()
    _make_authority(folder)
    (root / _AUTHORITY).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "authority.pem", root / _AUTHORITY)
    _inside(root, "update-ca-certificates")
    (root / "etc/machine-id").write_text("")
    (root / "etc/resolv.conf").write_text("")


def _mirror(codename: str) -> str:
    """The address from which this machine's apt has a release's packages."""
    asked = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    for line in subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines():
        found, _, address = line.partition(" ")
        if found == codename:
            return address
    raise NoImage(f"this machine's apt has no mirror of {codename}: apt-get update, and look into /etc/apt")


def _proxies(apt: Path) -> list[Path]:
    return [file for file in (apt / "apt.conf.d").iterdir() if "proxy" in file.name.lower()]


def _apt_of_this_machine(apt: Path) -> None:
    """The mirror's own lists, and how to reach it, as this machine has them."""
    (apt / "sources.list").unlink(missing_ok=True)
    here = Path("/etc/apt")
    lists = [
        here / "sources.list",
        *(here / "sources.list.d").glob("debian*"),
        *(here / "sources.list.d").glob("ubuntu*"),
    ]
    for source in filter(Path.is_file, lists):
        shutil.copy(source, apt / source.relative_to(here))
    for proxy in _proxies(here):
        shutil.copy(proxy, apt / "apt.conf.d" / proxy.name)


def _make_authority(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stand-ins of the boot tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "authority.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = folder / "authority.key"
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _inside(root: Path, *command: str) -> None:
    chroot = ["chroot", str(root), "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"]
    _run(*chroot, *command, options=[f"--mount-proc={root}/proc"])


def _run(*command: str, options: Sequence[str] = ()) -> None:
    # Namespaces of its own: what a package's script mounts or leaves running ends with the command.
    subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", *options, *command],
        check=True, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=900,
    )  # fmt: skip
