"""The stack `local`: Pulumi over the local cloud, with everything that it needs kept in one folder.

The commands of the Makefile use it with the folder `.local`; tests use other folders, each with a
network of its own, so that several stacks live side by side on one machine.
"""

import contextlib
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import cache, engine_log, failures, interrupted, local_config, pulumi_cli, pulumi_process
from tools.environments import CHECKOUT, MAIN
from tools.local_cloud import CommandFailed, LocalCloud
from tools.steps import Progress

STACK = local_config.STACK
POLICY = "policy"  # the pack's folder in a checkout
# What the person is told instead of the engine's lines; other commands' lines are what they were asked for.
TITLES = {
    "up": "Making what is declared",
    "refresh": "Comparing the state with what there is",
    "destroy": "Taking everything away",
}
SEE_ABOVE = {
    "refresh": "Not all is as the last `make up` left it: see above. `make refresh` takes over what there "
    "is, then `make up` makes it as declared.",
    "preview": "A preview found what stands in the way of `make up`: see above.",
}
# Never let a person's real clouds or other Pulumi settings reach the local stack's engine.
FOREIGN = ("PULUMI_", "DIGITALOCEAN_", "GOOGLE_", "CLOUDSDK_", "GCLOUD_", "GCP_")
QUIET = {
    "PULUMI_SKIP_UPDATE_CHECK": "true",
    # The providers are attached; without this the engine tries to download the real ones first.
    "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    # Only what the person has to act on.
    "PULUMI_DIY_BACKEND_NO_LEGACY_WARNING": "true",
    "PULUMI_SUPPRESS_NEO_LINK": "true",
}


class LocalStack:
    """The local stack of one home folder. Methods raise CommandFailed with what to do.

    `network` is the first two numbers of its addresses (`127.31`); left out, a free one is chosen at
    the first `up` and remembered. The engine's own lines go to the file `quiet`; without one, to `log`
    while progress is shown, or past the person as they come if it is `verbose`.
    """

    name = STACK

    def __init__(
        self,
        home: Path = CHECKOUT / ".local",
        network: str | None = None,
        checkout: Path = CHECKOUT,
        quiet: Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.home = home.resolve()
        self.cloud = LocalCloud(self.home / "cloud", network, checkout)
        self.config = local_config.LocalConfig(self.home / "project", checkout, self.home / "overrides.yaml")
        self._state = self.home / "state"
        self.log = self.home / "engine.log"
        self._quiet, self._verbose = quiet, verbose
        self._checkout = checkout
        self._cli: Path | None = None

    # What a person or a test does.

    def up(self, *options: str) -> None:
        """Make what is declared. Repeatable, also after an interrupted run."""
        with self._ready() as lock:
            self._pulumi("up", "--yes", "--skip-preview", *options, lock=lock)

    def preview(self, *options: str) -> None:
        """Show what `up` would do, and whether a policy forbids it.

        Only a preview asks the policy pack: half a second of processor is much beside an `up` without changes
        (docs/benchmarks.md), and here nobody's cloud is at stake. A local cloud that was started for it alone
        doesn't stay.
        """
        was_running = self.cloud.is_running()
        with self._ready() as lock:
            self._pulumi("preview", "--policy-pack", str(self._checkout / POLICY), *options, lock=lock)
        if not was_running and self.is_empty():
            self.cloud.stop()

    def drift(self) -> None:
        """Fail if anything is no longer as the last `up` left it. Changes nothing."""
        with self._ready() as lock:
            self._pulumi("refresh", "--preview-only", "--expect-no-changes", "--diff", lock=lock)

    def refresh(self, *options: str) -> None:
        """Compare the state with what there is, and take that over."""
        with self._ready() as lock:
            self._pulumi("refresh", "--yes", "--skip-preview", *options, lock=lock)

    def destroy(self, *options: str) -> None:
        """Take away what was made, then end the local cloud. Nothing to do if nothing was ever made."""
        if not self.is_empty():
            with self._ready() as lock:
                self._pulumi("destroy", "--yes", "--skip-preview", *options, lock=lock)
        self.cloud.stop()

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs; an empty map if it was never up. Secret ones are shown as such."""
        if not self._checkpoint():
            return {}
        told: dict[str, Any] = json.loads(self._ask("stack", "output", "--json", "--stack", STACK))
        return told

    def token(self, *roles: str) -> str:
        """A bearer token for the service, with these roles; without any, good for all that a trader does."""
        return self.cloud.token(*roles)

    def login(self) -> dict[str, Any]:
        """What to connect an account with: a paper login at this cloud's exchange, the same at every call."""
        file = self.cloud.home / "login.json"  # gone with the exchange that knows it
        if not file.exists():
            username, password = f"visitor{secrets.token_hex(3)}", secrets.token_urlsafe(18)
            self.cloud.add_user(username, password, "paper")
            credentials = {"username": username, "password": password}
            local_config.store(file, {"credentials": credentials, "environment": "demo"})
        return local_config.load(file)

    def is_empty(self) -> bool:
        """Whether the stack holds nothing: neither resources nor operations that were cut off."""
        latest = self._checkpoint()
        return not (latest.get("resources") or latest.get("pending_operations"))

    def resources(self) -> int:
        """How many resources the stack holds."""
        found = self._checkpoint().get("resources") or []
        internal = ("pulumi:pulumi:", "pulumi:providers:")
        return sum(not resource["type"].startswith(internal) for resource in found)

    def pulumi_environment(self) -> dict[str, str]:
        """The process environment in which the CLI works on this stack; the local cloud must run."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        for needed in ("PYTHONPATH", "PYTHONHOME"):
            own.pop(needed, None)
        return (
            own
            | self._base()
            | self.cloud.service_environment()
            | {"PULUMI_DEBUG_PROVIDERS": self.cloud.providers()}
        )

    def configuration(self) -> Mapping[str, Any]:
        """The configuration that the next `up` takes, without its secrets."""
        wanted: dict[str, Any] = self.config.wanted(self.cloud.network())["config"]
        return wanted

    def configure(self, path: str, value: str | bool) -> None:
        """Set a value on top of the tracked configuration (`overrides.yaml` in the home folder)."""
        self.config.set(path, value)

    # How it is done.

    @contextlib.contextmanager
    def _ready(self) -> Iterator[int]:
        """Everything is in place for the engine, and nobody else works on this stack meanwhile."""
        with self.locked() as lock:
            if self.cloud.runs_this_code():
                self.cloud.start(keep_network=True)
            else:
                with Progress("Starting the local cloud"):
                    self.cloud.start(keep_network=not self.is_empty())
            self._prepare()
            yield lock

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the stack: one command at a time."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with cache.exclusive(self.home / "lock", "another command on this stack") as lock:
            yield lock

    def _prepare(self) -> None:
        self._state.mkdir(exist_ok=True)
        salt = (self._checkpoint().get("secrets_providers") or {}).get("state", {}).get("salt")
        config = self.config.write(self.cloud.network(), salt)
        file = interrupted.stack_file(self._state)
        if local_config.SALT not in config and self.is_empty():
            file.unlink(missing_ok=True)  # an interrupted `stack init`: begun anew
        if not file.exists():
            self._ask("stack", "init", "--stack", STACK, "--no-select")
        self._make_secrets(self.config.read()["config"])
        if interrupted.needs_repair(self._state):
            with Progress("Settling what an interrupted run left"):
                interrupted.repair(self._state, self.cloud.find, self._ask)

    def _make_secrets(self, config: Mapping[str, Any]) -> None:
        """Open the accounts that the configuration declares and set the secrets that it lacks."""
        opened = OpenedAccounts(self.cloud)
        for mode, key in local_config.gateways(config).items():
            self._make_login(config.get(key), Login(key, key, "gateway", mode), opened)
        for index, user in enumerate(local_config.users(config)):
            path = f"{local_config.IBEAM}.users[{index}]"
            owner = f"{local_config.IBEAM}:{local_config.identity(user)}"
            mode = "live" if user.get("environment") == "live" else "paper"
            self._make_login(user, Login(path, owner, str(user.get("name", "user")), mode), opened)
        if local_config.DATABASE_PASSWORD not in config:
            self._set_secret(local_config.DATABASE_PASSWORD, secrets.token_urlsafe(24))
        told = self.cloud.service_environment()
        if local_config.uses_alpaca(config):
            self._take_alpaca_keys(config.get(local_config.ALPACA) or {}, told, opened)
        token = told["DIGITALOCEAN_TOKEN"]
        for key in local_config.DIGITALOCEAN_TOKENS:
            if key not in config or not opened.knows(key, token):
                self._set_secret(key, token)
                opened.remember(key, token)

    def _take_alpaca_keys(
        self, kept: Mapping[str, Any], told: Mapping[str, str], opened: "OpenedAccounts"
    ) -> None:
        """Set the keys of the local cloud's own paper account, unless a person has set others."""
        for name, variable in local_config.ALPACA_KEYS.items():
            path, value = f"{local_config.ALPACA}.{name}", told[variable]
            made_here = isinstance(kept.get(name), dict)  # an override is plain text
            if name not in kept or (made_here and not opened.knows(path, value)):
                self._set_secret(path, value)
                opened.remember(path, value)

    def _make_login(self, kept: Mapping[str, Any] | None, login: "Login", opened: "OpenedAccounts") -> None:
        complete = kept is not None and "username" in kept and "password" in kept
        if complete and opened.knows(login.owner, login.who + login.mode):
            return
        # A name of its own each time: an interrupted run may have opened an account and not said so.
        username, password = f"{login.who}{secrets.token_hex(3)}", secrets.token_urlsafe(18)
        self.cloud.add_user(username, password, login.mode)
        self._set_secret(f"{login.path}.username", username)
        self._set_secret(f"{login.path}.password", password)
        opened.remember(login.owner, login.who + login.mode)

    def _set_secret(self, path: str, value: str) -> None:
        self._ask("config", "set", "--stack", STACK, "--secret", "--path", path, text=value)

    def _pulumi(self, command: str, *options: str, lock: int) -> None:
        argv = [str(self._pulumi_program()), command, "--stack", STACK, "--suppress-outputs", *options]
        argv.append("--suppress-permalink=true")
        env, folder = self.pulumi_environment(), self.config.folder
        if self._quiet or self._verbose or command not in TITLES or "--preview-only" in options:
            if pulumi_process.watched(argv, env, folder, quiet=self._quiet, lock=lock) != 0:
                raise CommandFailed(
                    SEE_ABOVE.get(command, f"`make {command}` didn't get to its end: see above.")
                )
            return
        code, engine = engine_log.run(argv, env, folder, TITLES[command], self.log, lock)
        for line in engine.named_changes():
            print(f"  {line}", file=sys.stderr)
        if code != 0:
            runs = self.cloud.is_running()
            raise CommandFailed(failures.of_engine(command, engine, self.log, self.tail, runs))

    def tail(self, machine: str) -> list[str]:
        """The last lines of a machine's log, to be shown with a failure; none if they can't be had."""
        try:
            return self.cloud.log(machine).splitlines()
        except CommandFailed:
            return []

    def _ask(self, *arguments: str, text: str = "") -> str:
        argv = [str(self._pulumi_program()), *arguments]
        env = self.pulumi_environment() if self.cloud.is_running() else os.environ | self._base()
        return pulumi_process.answer(argv, env, self.config.folder, text)

    def _pulumi_program(self) -> Path:
        self._cli = self._cli or pulumi_cli.locate()
        if self._cli is None:
            raise CommandFailed("There is no Pulumi CLI. `make up` fetches or builds it.")
        return self._cli / "pulumi"

    def _base(self) -> dict[str, str]:
        return (
            pulumi_process.search_path(self._pulumi_program().parent, MAIN.python)
            | QUIET
            | {
                "PULUMI_BACKEND_URL": f"file://{self._state}",
                "PULUMI_HOME": str(self.home / "pulumi"),
                "PULUMI_CONFIG_PASSPHRASE_FILE": str(self._passphrase()),
            }
        )

    def _passphrase(self) -> Path:
        """The file that holds what the stack's secrets are encrypted with; made at first use."""
        file = self.home / "passphrase"
        if not file.exists():
            draft = self.home / f".passphrase.{os.getpid()}"
            draft.touch(mode=0o600)
            draft.write_text(secrets.token_urlsafe(32))
            draft.rename(file)
        return file

    def _checkpoint(self) -> dict[str, Any]:
        return interrupted.checkpoint(self._state)


@dataclass(frozen=True)
class Login:
    """A login that the configuration declares: at which path, whose, and for which trading.

    `owner` says who it is wherever the entry stands in its list: entries come and go.
    """

    path: str
    owner: str
    who: str
    mode: str


class OpenedAccounts:
    """What was made at this very local cloud: lost with its folder, so that it is made again then.

    Keeps digests only; what they are of (user and mode, a token) is no business of this file.
    """

    def __init__(self, cloud: LocalCloud) -> None:
        self._file = cloud.home / "stack-accounts.json"

    def knows(self, path: str, what: str) -> bool:
        """Whether this was made here."""
        return self._read().get(path) == digest(what)

    def remember(self, path: str, what: str) -> None:
        """It was made here."""
        local_config.store(self._file, self._read() | {path: digest(what)})

    def _read(self) -> dict[str, str]:
        return local_config.load(self._file) if self._file.exists() else {}


def digest(text: str) -> str:
    """A fingerprint that doesn't give the text away."""
    return hashlib.sha256(text.encode()).hexdigest()
