"""The local cloud's daemon as the commands use it: where it gets its network, and what it is asked."""

import hashlib
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from localcloud.control import Connection, Daemon, DaemonError
from tools import cache, machine
from tools.environments import CHECKOUT, MAIN

IMAGE = "us-west1-docker.pkg.dev/local/ibkr/api:checkout"
DEFAULT_NETWORK = "127.20"
# A /16 of the loopback network for each local cloud of this machine, in this order.
NETWORKS = [f"127.{second}" for second in range(20, 120)]
API_HOST, API_PORT = "255.1", 8400


class CommandFailed(Exception):
    """A command can't do its work; the message says why and what to do. Shown without a traceback."""


class LocalCloud:
    """The local cloud of one home folder. Methods raise CommandFailed with what to do."""

    def __init__(self, home: Path, network: str | None = None, checkout: Path = CHECKOUT) -> None:
        self.home = home
        self._wanted = network
        self._checkout = checkout
        self._daemon = Daemon(home)
        self._code = home.parent / "cloud-code"

    def is_running(self) -> bool:
        """Whether the daemon runs."""
        return self._daemon.running()

    def network(self) -> str:
        """The first two numbers of the running daemon's addresses."""
        return str(self._about()["network"])

    def providers(self) -> str:
        """The running daemon's providers, for PULUMI_DEBUG_PROVIDERS."""
        ports = self._about()["providers"]
        return ",".join(f"{name}:{port}" for name, port in sorted(ports.items()))

    def start(self, keep_network: bool) -> None:
        """Start it if it doesn't run, and anew if its own code has changed since: its state outlives that.

        `keep_network` is for a stack that isn't empty: its resources have addresses of the network
        that was chosen for it, so another one won't do.
        """
        if self.runs_this_code():
            self._begin(None)  # waits for one that somebody else, perhaps killed meanwhile, has just started
            return
        self.stop()
        # One at a time on this machine: two that start at once would choose the same network.
        with cache.exclusive(machine.cache_folder() / "network.lock", "another local cloud's start"):
            network = self.choose_network(keep_network)
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._begin(network)
            (self.home.parent / "network").write_text(network + "\n")
            self._code.write_text(code_of(self._checkout))

    def runs_this_code(self) -> bool:
        """Whether it runs, and from the code that is there now: before a `git pull` it knew less."""
        if not self.is_running():
            return False
        return not self._code.exists() or self._code.read_text() == code_of(self._checkout)

    def _begin(self, network: str | None) -> None:
        try:
            self._daemon.start(network, {IMAGE: str(self._checkout)})
        except DaemonError as error:
            raise CommandFailed(f"The local cloud doesn't start: {error}") from None

    def remembered_network(self) -> str | None:
        """The network that was chosen for this home before."""
        try:
            return (self.home.parent / "network").read_text().strip()
        except FileNotFoundError:
            return None

    def choose_network(self, keep: bool) -> str:
        """The wanted or remembered network, or the first that no other local cloud occupies."""
        if self._wanted:
            return self._wanted
        remembered = self.remembered_network()
        if remembered and (keep or is_free(remembered)):
            return remembered
        for network in NETWORKS:
            if is_free(network):
                return network
        raise CommandFailed(
            f"All networks from {NETWORKS[0]} to {NETWORKS[-1]} are occupied by local clouds on this "
            "machine. End some with `make destroy` in their checkouts."
        )

    def stop(self) -> None:
        """Stop the daemon and all that it runs; nothing to do if it doesn't run."""
        try:
            self._daemon.stop()
        except DaemonError as error:
            raise CommandFailed(f"The local cloud doesn't stop: {error}") from None

    def service_environment(self) -> dict[str, str]:
        """What a client needs to reach the local cloud's APIs, as environment variables."""
        told: dict[str, str] = self._call("env")
        return told

    def add_user(self, name: str, password: str, mode: str) -> None:
        """Open an account at the paper exchange."""
        self._call("user_add", name=name, password=password, mode=mode)

    def find(self, kind: str, inputs: Mapping[str, Any]) -> list[str]:
        """The ids of resources of a type that were made with just these inputs."""
        told: list[str] = self._call("find", type=kind, inputs=dict(inputs))
        return told

    def token(self, *roles: str) -> str:
        """A bearer token for the service, with these roles; without any, good for reading and trading."""
        chosen = {"roles": list(roles)} if roles else {}
        told: dict[str, str] = self._call("token", user="demo", **chosen)
        return told["token"]

    def machines(self) -> list[dict[str, Any]]:
        """What runs: name, kind, status, address, ports."""
        told: list[dict[str, Any]] = self._call("machines")
        return told

    def kill_unit(self, machine: str, unit: str) -> int:
        """Kill the main process of a machine's service; the process that it was."""
        told: dict[str, Any] = self._call("kill_unit", name=machine, unit=unit)
        return int(told["pid"])

    def log(self, name: str) -> str:
        """The end of a machine's console."""
        try:
            with self._daemon.open("logs", name=name) as connection:
                return b"".join(connection.stream()).decode(errors="replace")
        except DaemonError as error:
            raise CommandFailed(str(error)) from None

    def follow(self, name: str, before: int) -> Iterator[str]:
        """The lines of a machine's console as they come, after the last `before` bytes of those that came."""
        try:
            connection = self._daemon.open("logs", name=name, follow=True, tail=before)
        except DaemonError as error:
            raise CommandFailed(str(error)) from None
        return lines_of(connection)

    def argv(self, command: str, *arguments: str) -> list[str]:
        """The local cloud's own command line."""
        return [str(MAIN.python), "-m", "localcloud", command, "--home", str(self.home), *arguments]

    def _about(self) -> dict[str, Any]:
        if not self.is_running():  # one that was killed leaves its announcement
            raise CommandFailed("The local cloud doesn't run. `make up` starts it.")
        try:
            return self._daemon.about()
        except DaemonError:
            raise CommandFailed("The local cloud doesn't run. `make up` starts it.") from None

    def _call(self, method: str, **params: Any) -> Any:
        self._about()
        try:
            return self._daemon.call(method, **params)
        except DaemonError as error:
            raise CommandFailed(f"The local cloud refused `{method}`: {error}") from None


def lines_of(connection: Connection) -> Iterator[str]:
    """The lines that come over a connection to the daemon, until it closes."""
    with connection:
        rest = b""
        for data in connection.stream():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")


def code_of(checkout: Path) -> str:
    """A fingerprint of the local cloud's own code."""
    found = hashlib.sha256()
    for file in sorted((checkout / "localcloud").rglob("*.py")):
        found.update(f"{file.relative_to(checkout)}\n".encode() + file.read_bytes())
    return found.hexdigest()


def is_free(network: str) -> bool:
    """Whether no local cloud serves its APIs in this network."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((f"{network}.{API_HOST}", API_PORT))
        except OSError:
            return False
    return True


def in_network(text: str, network: str) -> str:
    """A text with its addresses of the default network moved to another one."""
    return re.sub(rf"(?<![\d.]){re.escape(DEFAULT_NETWORK)}(?=\.\d)", network, text)
