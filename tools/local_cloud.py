"""The local cloud's daemon as the commands use it: started, asked, stopped, never imported."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import cache, machine
from tools.environments import CHECKOUT, MAIN

IMAGE = "us-west1-docker.pkg.dev/local/ibkr/api:checkout"
DEFAULT_NETWORK = "127.20"
# A /16 of the loopback network for each local cloud of this machine, in this order.
NETWORKS = [f"127.{second}" for second in range(20, 120)]
API_HOST, API_PORT = "255.1", 8400


class CommandFailed(Exception):
    """A command can't do its work; the message says why and what to do. Shown without a traceback."""


@dataclass(frozen=True)
class Daemon:
    """A running daemon, from `daemon.json` in its home."""

    pid: int
    api_url: str
    network: str
    providers: dict[str, int]

    @property
    def debug_providers(self) -> str:
        """For PULUMI_DEBUG_PROVIDERS."""
        return ",".join(f"{name}:{port}" for name, port in sorted(self.providers.items()))


class LocalCloud:
    """The local cloud of one home folder."""

    def __init__(self, home: Path, network: str | None = None, checkout: Path = CHECKOUT) -> None:
        self.home = home
        self._wanted = network
        self._checkout = checkout

    def running(self) -> Daemon | None:
        """The daemon, if it runs and answers."""
        try:
            told = json.loads((self.home / "daemon.json").read_text())
            os.kill(told["pid"], 0)
            host, _, port = told["api_url"].rpartition("//")[2].partition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError):
            return None
        return Daemon(told["pid"], told["api_url"], told["network"], told["providers"])

    def start(self, keep_network: bool) -> Daemon:
        """Start it if it doesn't run. Raises CommandFailed.

        `keep_network` is for a stack that isn't empty: its resources have addresses of the network
        that was chosen for it, so another one won't do.
        """
        found = self.running()
        if found is not None:
            return found
        # One at a time on this machine: two that start at once would choose the same network.
        with cache.exclusive(machine.cache_folder() / "network.lock", "another local cloud's start"):
            network = self.choose_network(keep_network)
            image = f"{IMAGE}={self._checkout}"
            self.ask("start", "--network", network, "--image", image, timeout=120)
            (self.home.parent / "network").write_text(network + "\n")
        found = self.running()
        if found is None:
            raise CommandFailed(f"The local cloud was started, but doesn't answer. Look at {self.home}.")
        return found

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
        if (self.home / "daemon.json").exists():
            self.ask("stop", timeout=60)

    def service_environment(self) -> dict[str, str]:
        """What a client needs to reach the local cloud's APIs, as environment variables."""
        told: dict[str, str] = json.loads(self.ask("env", "--json"))
        return told

    def add_user(self, name: str, password: str, mode: str) -> None:
        """Open an account at the paper exchange."""
        self.ask("user", "add", name, "--mode", mode, "--password-stdin", text=password + "\n")

    def find(self, kind: str, inputs: Mapping[str, Any]) -> list[str]:
        """The ids of resources of a type that were made with just these inputs."""
        told: list[str] = json.loads(self.ask("find", kind, text=json.dumps(dict(inputs))))
        return told

    def token(self, arguments: Sequence[str] = ()) -> str:
        """A bearer token for the service."""
        return self.ask("token", *arguments).strip()

    def status(self) -> dict[str, Any]:
        """What the daemon says of itself and its machines."""
        told: dict[str, Any] = json.loads(self.ask("status", "--json"))
        return told

    def argv(self, command: str, *arguments: str) -> list[str]:
        """The command line of a subcommand."""
        return [str(MAIN.python), "-m", "localcloud", command, "--home", str(self.home), *arguments]

    def ask(self, command: str, *arguments: str, text: str = "", timeout: float = 60) -> str:
        """Run a subcommand; gives what it prints. Raises CommandFailed with what it says."""
        argv = self.argv(command, *arguments)
        try:
            answer = subprocess.run(
                argv, cwd=CHECKOUT, input=text, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"`localcloud {command}` didn't end within {timeout:.0f} s.") from None
        if answer.returncode != 0:
            said = (answer.stderr or answer.stdout).strip()
            raise CommandFailed(f"The local cloud refused `{command}`: {said or 'it said nothing'}")
        return answer.stdout


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
