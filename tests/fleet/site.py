"""A fleet with nothing made up but the cloud: real database, client, wire and agents.

    with serving_site(tmp_path) as site:
        fleet = Fleet(engine, vault, site)

`Site` stands where `tests.fleet.model.World` stands in tests that are quicker and know less.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broker.fleet.agents import TlsAgents
from broker.fleet.digitalocean import Budget, PydoDroplets
from broker.fleet.enrolment import Enroller, EnrolmentLater, EnrolmentRefused
from tests.fleet.droplets import DropletMachines, Machine, free_port
from tests.fleet.local_digitalocean import LocalDigitalOcean, serving

#: requests a minute: a test makes more of them than a fleet would
MANY = 1_000_000


class Site:
    """DigitalOcean and the agents, as `Droplets` and `Agents`, over their real clients."""

    def __init__(self, home: Path, api: LocalDigitalOcean, droplets: DropletMachines, port: int) -> None:
        self.home, self.api, self.machines, self.port = home, api, droplets, port
        self.client = PydoDroplets(api.token, api.url, Budget(MANY, MANY), timeout=5)
        self.agents: TlsAgents | None = None
        self.foreign: set[int] = set()
        self.may_delete: Any = None

    def sign_with(self, sign: Any) -> None:
        """The service's key, which a fleet's database holds."""
        self.agents = TlsAgents(sign, port=self.port)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client if hasattr(self.client, name) else self.agents, name)

    @property
    def problems(self) -> list[str]:
        return self.machines.problems

    def settle(self) -> None:
        """Returns once no action is running."""
        self.api.settle()

    def proceed(self, enroller: Enroller | None) -> None:
        """Actions end, and agents enrol."""
        self.settle()
        for machine in list(self.machines.all.values()):
            if enroller is not None and machine.up and not machine.has_asked:
                self.enrol(machine, enroller)

    def enrol(self, machine: Machine, enroller: Enroller) -> None:
        """As the agent does: asked again until there is a clear answer."""
        try:
            enroller.enrol(machine.account, machine.token, machine.certificate)
        except EnrolmentLater:
            return
        except EnrolmentRefused:
            pass
        machine.note_asked()

    def number(self, machine: Machine) -> int:
        """A machine's droplet."""
        return int(machine.name.rpartition("/")[2])

    def delete_by_hand(self, number: int) -> None:
        """In DigitalOcean's console."""
        self.api.run(self.api.account.delete_droplet(number))

    def add_foreign(self, *tags: str, name: str = "x") -> int:
        """Somebody else's droplet."""
        request = {"name": name, "region": "nyc1", "size": "s-1vcpu-1gb", "image": "ubuntu-24-04-x64"}
        made = self.api.run(self.api.account.create_droplet({**request, "tags": list(tags)}))
        self.settle()
        self.foreign.add(int(made["droplet"]["id"]))
        return int(made["droplet"]["id"])


@contextlib.contextmanager
def serving_site(home: Path) -> Iterator[Site]:
    """A cloud until the context ends."""
    port = free_port()
    machines = DropletMachines(home, port)
    with serving(home, machines) as api:
        api.note("droplet_limit", 1000)
        api.note("rate_limits", {"hour": MANY, "minute": MANY})
        yield Site(home, api, machines, port)
