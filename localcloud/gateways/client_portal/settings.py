"""Settings of the gateway: IBeam's environment variables and this program's options.

A login never comes as an argument. IBEAM_SECRETS_SOURCE is `env` (the variables are the values) or `fs` (they
are paths); --account-file and --password-file are `fs` by another name. Files are read at each login, so
credentials that are pushed later are found. As in IBeam, line ends at the end of a value are dropped
(`secrets_handler.py`: rstrip of CR and LF).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from cryptography.fernet import Fernet, InvalidToken

LINE_ENDS = "\r\n"


@dataclass(frozen=True)
class Login:
    """What the user would type."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class LoginSource:
    """Where the login comes from; see the module's docstring. `mounts` maps container paths to real ones."""

    environment: Mapping[str, str] = field(repr=False)
    account_file: Path | None = None
    password_file: Path | None = None
    mounts: Mapping[str, Path] = field(default_factory=dict)

    def read(self) -> Login | None:
        """The login, or None while there is none (no variable, no file, or an unreadable password)."""
        username = self._value("IBEAM_ACCOUNT", self.account_file)
        password = self._value("IBEAM_PASSWORD", self.password_file)
        key = self._value("IBEAM_KEY", None)
        if password is not None and key:
            try:
                password = Fernet(key).decrypt(password.encode()).decode()
            except (InvalidToken, ValueError):
                return None
        return Login(username, password) if username and password else None

    def _value(self, name: str, file: Path | None) -> str | None:
        given = self.environment.get(name)
        if file is None and given is not None and self.environment.get("IBEAM_SECRETS_SOURCE", "env") == "fs":
            file = self.real_path(given)
        if file is None:
            return given.rstrip(LINE_ENDS) if given is not None else None
        try:
            return file.read_bytes().decode().rstrip(LINE_ENDS)
        except (OSError, UnicodeDecodeError):
            return None

    def real_path(self, path: str) -> Path:
        """A path inside the container as it is outside."""
        for inside, outside in self.mounts.items():
            if path == inside or path.startswith(inside.rstrip("/") + "/"):
                return outside / path[len(inside) :].lstrip("/")
        return Path(path)


@dataclass(frozen=True)
class AddressRules:
    """The `ips` of the gateway's conf.yaml, with its peculiarities.

    `deny` is looked at first; `a.b.c.d`, `a.b.c.*` and `a.*` match, a CIDR or range never does; without a
    `deny`, everybody is let in.
    """

    allow: tuple[str, ...] = ("10.*", "192.*", "127.0.0.1", "131.216.*")
    deny: tuple[str, ...] | None = ("0.0.0.0/0",)

    @classmethod
    def read(cls, file: Path) -> AddressRules:
        """The rules of a conf.yaml, or the shipped ones where there is no such file."""
        if not file.is_file():
            return cls()
        rules = (yaml.safe_load(file.read_text("utf-8")) or {}).get("ips") or {}
        deny = rules.get("deny")
        allow = tuple(map(str, rules.get("allow") or ()))
        return cls(allow, tuple(map(str, deny)) if deny is not None else None)

    def admits(self, address: str) -> bool:
        """Whether a client of that address is answered."""
        if self.deny is None:
            return True
        if any(_matches(rule, address) for rule in self.deny):
            return False
        return any(_matches(rule, address) for rule in self.allow)


def _matches(rule: str, address: str) -> bool:
    if rule.endswith("*"):
        return address.startswith(rule[:-1])
    return rule == address


@dataclass(frozen=True)
class Settings:
    """Times in seconds. `penalty`: how long a client that broke a limit is refused everything."""

    login: LoginSource
    servers: str
    mode: str = "live"
    addresses: AddressRules | None = None
    maintenance_interval: float = 60.0
    oauth_timeout: float = 15.0
    max_failed_auth: int = 5
    count_timeout_as_failed: bool = False
    start_active: bool = True
    limits: bool = True
    penalty: float = 0.0
    positions_cache: float = 10.0


def _flag(environment: Mapping[str, str], name: str, default: bool) -> bool:
    return environment.get(name, str(default)).strip().lower() in ("true", "1", "yes")


def arguments() -> argparse.ArgumentParser:
    """The command line. It holds no secrets: everybody on a machine can read it."""
    parser = argparse.ArgumentParser(prog="python -m localcloud.gateways.client_portal", description=__doc__)
    parser.add_argument("--socket", type=Path, help="Unix socket for the API (HTTPS)")
    parser.add_argument("--listen", metavar="HOST:PORT", help="TCP address for the API (HTTPS)")
    parser.add_argument("--health-socket", type=Path, help="Unix socket for IBeam's health server (HTTP)")
    parser.add_argument("--health-listen", metavar="HOST:PORT", help="TCP address for the health server")
    parser.add_argument("--servers", help="the exchange, HOST:PORT or unix:PATH (default: $IBKR_SERVERS)")
    parser.add_argument("--account-file", type=Path)
    parser.add_argument("--password-file", type=Path)
    parser.add_argument("--cert", type=Path, help="PEM certificate; without one, a shipped-like one is made")
    parser.add_argument("--key", type=Path, help="PEM key of --cert")
    parser.add_argument("--log-file", type=Path, help="where the log goes, beside the standard output")
    parser.add_argument("--mount", action="append", default=[], metavar="INSIDE=OUTSIDE",
                        help="where a path of the container is; may be repeated")  # fmt: skip
    parser.add_argument("--penalty", type=float, default=0.0, help="seconds of refusal after a broken limit")
    return parser


def read_settings(options: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """The settings of a command line and an environment. Raises ValueError that names what is wrong."""
    servers = options.servers or environment.get("IBKR_SERVERS", "")
    if not servers:
        raise ValueError("the exchange's address is missing: --servers or IBKR_SERVERS")
    mounts = dict(mount.split("=", 1) for mount in options.mount)
    source = LoginSource(environment, options.account_file, options.password_file,
                         {inside: Path(outside) for inside, outside in mounts.items()})  # fmt: skip
    inputs = source.real_path(environment.get("IBEAM_INPUTS_DIR", "/srv/inputs/"))
    return Settings(
        login=source,
        servers=servers,
        mode="paper" if _flag(environment, "IBEAM_USE_PAPER_ACCOUNT", False) else "live",
        addresses=AddressRules.read(inputs / "conf.yaml"),
        maintenance_interval=float(environment.get("IBEAM_MAINTENANCE_INTERVAL", "60")),
        oauth_timeout=float(environment.get("IBEAM_OAUTH_TIMEOUT", "15")),
        max_failed_auth=int(environment.get("IBEAM_MAX_FAILED_AUTH", "5")),
        count_timeout_as_failed=_flag(environment, "IBEAM_COUNT_TIMEOUT_AS_FAILED", False),
        start_active=_flag(environment, "IBEAM_START_ACTIVE", True),
        penalty=options.penalty,
    )
