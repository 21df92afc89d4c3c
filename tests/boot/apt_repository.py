"""Google's apt repository as the boots have it: a package in place of the Ops Agent, signed with an own key.

The package does what a machine can tell of the real one: it has a configuration file of its own (dpkg must
leave ours), units of the real names, and starts them when it is installed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.boot.internet import Answer, Request

NAME = "packages.cloud.google.com"
PACKAGE = "google-cloud-ops-agent"
_STAND_INS = Path(__file__).parent / "stand_ins"
_SERVICE = """\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""
_PARTS = {
    f"{PACKAGE}-fluent-bit.service": f"/opt/{PACKAGE}/logs",
    f"{PACKAGE}-opentelemetry-collector.service": "/bin/sleep infinity",
}
_UNITS = {
    f"{PACKAGE}.service": f"[Unit]\nWants={' '.join(_PARTS)}\n{_SERVICE}",
    **{name: f"[Service]\nExecStart={command}\n" for name, command in _PARTS.items()},
}
_CONTROL = f"""\
Package: {PACKAGE}
Version: 2.60.0
Architecture: all
Maintainer: the boot tests <nobody@localhost>
Description: in the place of Google's Ops Agent
"""
_POSTINST = f"#!/bin/sh\nset -e\nsystemctl daemon-reload\nsystemctl enable --now {PACKAGE}.service\n"


class AptRepository:
    """A context manager. `fingerprint` is the signing key's; `site` serves it for a release's codename."""

    def __init__(self, codename: str) -> None:
        self._suite = f"{PACKAGE}-{codename}-2"
        # Here, and not in the test's own folder: gpg's socket needs a short path.
        self._folder = Path(tempfile.mkdtemp(prefix="apt"))
        self._files: dict[str, bytes] = {}
        self.fingerprint = ""

    def __enter__(self) -> AptRepository:
        self._gpg("--quick-generate-key", "Boot tests <nobody@localhost>", "ed25519", "sign", "never")
        shown = self._gpg("--list-keys", "--with-colons").decode().splitlines()
        self.fingerprint = next(line.split(":")[9] for line in shown if line.startswith("fpr:"))
        package = self._package()
        pool = f"pool/{PACKAGE}.deb"
        digest = hashlib.sha256(package).hexdigest()
        listed = f"{_CONTROL}Filename: {pool}\nSize: {len(package)}\nSHA256: {digest}\n".encode()
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
        release = (
            f"Origin: {PACKAGE}\nSuite: {self._suite}\nCodename: {self._suite}\nDate: {date}\n"
            "Architectures: amd64 arm64\nComponents: main\nSHA256:\n"
        )
        digest = hashlib.sha256(listed).hexdigest()
        for architecture in ("amd64", "arm64"):
            packages = f"main/binary-{architecture}/Packages"
            release += f" {digest} {len(listed)} {packages}\n"
            self._files[f"dists/{self._suite}/{packages}"] = listed
        self._files["doc/apt-key.gpg"] = self._gpg("--armor", "--export")
        self._files[f"dists/{self._suite}/InRelease"] = self._gpg("--clearsign", stdin=release.encode())
        self._files[pool] = package
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["gpgconf", "--homedir", self._folder, "--kill", "all"], capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def site(self, request: Request) -> Answer:
        """What is served under the repository's name."""
        found = self._files.get(request.path.removeprefix("/apt/"))
        return Answer(404) if found is None else Answer(200, found)

    def _gpg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self._folder), "--batch", "--passphrase", "", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=60).stdout

    def _package(self) -> bytes:
        root = self._folder / "package"
        files = {
            "DEBIAN/control": _CONTROL,
            "DEBIAN/conffiles": f"/etc/{PACKAGE}/config.yaml\n",
            f"etc/{PACKAGE}/config.yaml": "# The package's own: everything is sent.\n",
            **{f"lib/systemd/system/{name}": text for name, text in _UNITS.items()},
        }
        programs = {
            "DEBIAN/postinst": _POSTINST,
            f"opt/{PACKAGE}/logs": (_STAND_INS / "ops-agent-logs").read_text(),
        }
        for name, text in {**files, **programs}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if name in programs else 0o644)
        built = self._folder / "package.deb"
        command = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(built)]
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        return built.read_bytes()
