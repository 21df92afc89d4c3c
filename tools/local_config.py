"""The configuration that the stack `local` runs with: the tracked one, completed, in a folder of its own.

The tracked `Pulumi.local.yaml` is never written to. The CLI writes into a stack's file (the
encryption salt at `stack init`, secrets at `config set`), and although most commands take
`--config-file`, `stack init` and `stack output` don't: they use the file beside `Pulumi.yaml`. So
the CLI works in `.local/project/`, which has a `Pulumi.yaml` of its own whose `main` is this
checkout, and beside it the completed configuration: the tracked one with this cloud's addresses,
what a test or a person sets on top, the salt, and the encrypted secrets.
"""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.local_cloud import CommandFailed, in_network

STACK = "local"
NAMESPACE = "ibkr"
SALT = "encryptionsalt"
# What secrets the stack gets, beside the IBeam users' logins.
GATEWAY = "ibkr:gatewayCredentials"
# In its place where both gateways run, by mode.
BOTH = {"paper": "ibkr:paperCredentials", "live": "ibkr:liveCredentials"}
ALPACA = "ibkr:alpaca"
# Within it, and the variables in which the local cloud tells them.
ALPACA_KEYS = {"apiKey": "ALPACA_API_KEY", "secretKey": "ALPACA_SECRET_KEY"}
DATABASE_PASSWORD = "ibkr:databasePassword"  # noqa: S105 - a key's name
DIGITALOCEAN_TOKENS = ("digitalocean:token", "ibkr:digitaloceanToken")
IBEAM = "ibkr:ibeam"

Tree = dict[str, Any]


class LocalConfig:
    """The project folder of one local stack."""

    def __init__(self, folder: Path, checkout: Path, overrides: Path) -> None:
        self.folder = folder
        self.file = folder / f"Pulumi.{STACK}.yaml"
        self._checkout = checkout
        self._overrides = overrides
        # Every login that was made, encrypted: a user whose entry is gone for a while, or mistyped, gets the
        # same one back, since another one would replace the droplet.
        self._logins = folder / "logins.yaml"

    def write(self, network: str, salt: str | None) -> Tree:
        """Write the folder anew, keeping the secrets that it has; returns the configuration.

        `salt` is the stack's, for when the folder was lost and the stack wasn't.
        """
        kept = self.read()
        project = load(self._checkout / "Pulumi.yaml")
        project["main"] = str(self._checkout)
        tree = self.wanted(network)
        if kept.get(SALT) or salt:
            tree[SALT] = kept.get(SALT) or salt
        known = with_logins(load(self._logins) if self._logins.exists() else {}, kept.get("config", {}))
        carry_secrets(known, tree["config"])
        self.folder.mkdir(parents=True, exist_ok=True)
        store(self._logins, known)
        store(self.folder / "Pulumi.yaml", project)
        store(self.file, tree)
        return tree

    def read(self) -> Tree:
        """The completed configuration as it stands; secrets are encrypted in it."""
        return load(self.file) if self.file.exists() else {}

    def wanted(self, network: str) -> Tree:
        """The tracked configuration with this cloud's addresses and the overrides, without secrets."""
        tracked = self._checkout / f"Pulumi.{STACK}.yaml"
        tree = parsed(in_network(tracked.read_text(), network), tracked)
        tree["config"] = merged(tree.get("config") or {}, self._own())
        return tree

    def set(self, path: str, value: Any) -> None:
        """Set a value on top of the tracked configuration: `ibkr:network.allowConnector`, False."""
        own = self._own()
        *parents, last = path.split(".")
        node = own
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
        store(self._overrides, own)

    def unset(self, path: str) -> None:
        """Take a value that was set off again; the tracked configuration's counts then."""
        own = self._own()
        *parents, last = path.split(".")
        node = own
        for part in parents:
            node = node.get(part, {})
        node.pop(last, None)
        store(self._overrides, own)

    def _own(self) -> Tree:
        return load(self._overrides) if self._overrides.exists() else {}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Both trees; where they meet, maps are merged and anything else is taken from `over`."""
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def with_logins(known: Tree, config: Mapping[str, Any]) -> Tree:
    """What is known of secrets and users' logins, and what a configuration adds to it."""
    logins = {identity(user): user for user in [*users(known), *users(config)] if "password" in user}
    keys = (GATEWAY, *BOTH.values(), ALPACA, DATABASE_PASSWORD, *DIGITALOCEAN_TOKENS)
    now = {key: config[key] for key in keys if key in config}
    return {**known, **now, IBEAM: {"users": list(logins.values())}}


def carry_secrets(kept: Tree, wanted: Tree) -> None:
    """Copy encrypted values from the configuration that was to the one that shall be, in place.

    Users of the IBeam list are the same if their names and environments are, wherever they stand.
    """
    for key in (GATEWAY, *BOTH.values(), DATABASE_PASSWORD, *DIGITALOCEAN_TOKENS):
        if key in kept:
            wanted.setdefault(key, kept[key])
    if uses_alpaca(wanted):
        for key in ALPACA_KEYS:
            if key in (kept.get(ALPACA) or {}):
                wanted.setdefault(ALPACA, {}).setdefault(key, kept[ALPACA][key])
    before = {identity(user): user for user in users(kept)}
    for user in users(wanted):
        for key in ("username", "password"):
            if key in before.get(identity(user), {}):
                user.setdefault(key, before[identity(user)][key])


def uses_alpaca(config: Mapping[str, Any]) -> bool:
    """Whether the service needs Alpaca's keys."""
    return "alpaca" in (config.get("ibkr:brokerType"), config.get("ibkr:marketDataSource"))


def gateways(config: Mapping[str, Any]) -> dict[str, str]:
    """The trading mode of each gateway that runs, and the key of its login."""
    if (config.get("ibkr:gateway") or {}).get("mode") == "both":
        return BOTH
    # One that is neither is for the settings' check to refuse, together with all else that is wrong.
    return {"live" if config.get("ibkr:tradingMode") == "live" else "paper": GATEWAY}


def users(config: Mapping[str, Any]) -> list[Tree]:
    """The IBeam users that a configuration declares."""
    found: list[Tree] = (config.get(IBEAM) or {}).get("users") or []
    return [user for user in found if isinstance(user, dict)]


def identity(user: Mapping[str, Any]) -> tuple[str, str, int]:
    """What tells one declared droplet from another."""
    return (str(user.get("name")), str(user.get("environment", "paper")), int(user.get("index", 1)))


def load(file: Path) -> Tree:
    """A YAML file's content. Raises CommandFailed."""
    return parsed(file.read_text(), file)


def parsed(text: str, file: Path) -> Tree:
    """YAML that came from a file. Raises CommandFailed."""
    try:
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise CommandFailed(
            f"{file}{where} isn't YAML: {getattr(error, 'problem', error)}. Mend it."
        ) from None
    if not isinstance(content, dict):
        raise CommandFailed(
            f"{file} holds {type(content).__name__}, and names with values are needed. Mend it."
        )
    return content


def store(file: Path, content: Tree) -> None:
    """Write a YAML file that only its owner can read, complete or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        yaml.safe_dump(content, out, sort_keys=False, allow_unicode=True)
    draft.rename(file)
