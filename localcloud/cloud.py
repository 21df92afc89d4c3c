"""What every handler and API of the local cloud is given: settings, state, machines, network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localcloud.addresses import Addresses
    from localcloud.edge import Edge
    from localcloud.machines.registry import Machines
    from localcloud.processes import Supervisor
    from localcloud.state import Store

API_PORT = 8400
EXCHANGE_PORT = 4000


class CloudError(Exception):
    """A refusal by the cloud, with the status and words the real API would use.

    Handlers let it pass through; the provider or the REST API in front turns it into its own form.
    """

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason


@dataclass(frozen=True)
class Settings:
    """Where this cloud lives. Two clouds run side by side with different `home` and `network`.

    `network` is the first two octets of its /16 in 127.0.0.0/8; `run` is a short folder for
    sockets, made anew at every start, because a Unix socket's path is limited to 107 bytes.
    """

    home: Path
    network: str
    run: Path
    project: str = "local"
    images: Mapping[str, str] = field(default_factory=dict)

    @property
    def api_host(self) -> str:
        """Address of the local cloud's own APIs, without the port."""
        return f"{self.network}.255.1"

    @property
    def api_url(self) -> str:
        """Base URL of the local cloud's REST APIs."""
        return f"http://{self.api_host}:{API_PORT}"

    @property
    def exchange_address(self) -> str:
        """HOST:PORT of "IBKR's servers", the guarded front of the paper exchange."""
        return f"{self.network}.255.2:{EXCHANGE_PORT}"

    @property
    def log_folder(self) -> Path:
        """Where the daemon's and the machines' logs are."""
        return self.home / "logs"


class Cloud:
    """One local cloud. The daemon builds it once; everything else is handed it."""

    store: Store
    addresses: Addresses
    processes: Supervisor
    network: Edge
    machines: Machines

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log = logging.getLogger("localcloud")
        self.extensions: dict[str, Any] = {}


def open_cloud(settings: Settings) -> Cloud:
    """Build a cloud on its stored state. Starts nothing: `machines.resume()` does.

    Needs a running event loop's thread; raises `state.StoreDamagedError` when key and store don't fit.
    """
    from localcloud.addresses import Addresses
    from localcloud.edge import Edge
    from localcloud.machines.registry import Machines
    from localcloud.processes import Supervisor
    from localcloud.state import Store

    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings.log_folder.mkdir(exist_ok=True, mode=0o700)
    cloud = Cloud(settings)
    cloud.store = Store.open(settings.home)
    cloud.addresses = Addresses(cloud.store, settings.network)
    cloud.processes = Supervisor(settings.home, settings.run)
    cloud.network = Edge(cloud)
    cloud.machines = Machines(cloud)
    return cloud
