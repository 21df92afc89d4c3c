"""A process that runs passes and may be killed at a chosen point, with real connections open.

    python -m tests.fleet.pass_process DATABASE_URL API_URL API_TOKEN

Reads lines `KILL_AT PASSES` (0: not at all) and answers each with how that process ended: `killed` or `done`.
Every line is carried out by a process of its own, forked before any connection is opened: importing pydo and
making its client takes seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback

from broker.fleet.agents import TlsAgents
from broker.fleet.digitalocean import PydoDroplets
from broker.fleet.keys import FleetKeys
from broker.fleet.reconciler import FleetSettings, Reconciler
from broker.fleet.repository import FleetLease, Repository
from broker.fleet.spec import DropletSettings
from broker.fleet.vault import LocalKeyWrapper, Vault
from broker.service.database import make_engine
from tests.fleet.model import Effects

#: the writes around calls to DigitalOcean; test_reconciler kills at all of them, in one process
WRITES = ("adopt", "begin_create", "condemn", "forget", "gone")


class Deadly(Effects):
    """Ends this process as the kernel does when it is out of memory: nothing is closed or written."""

    def reach(self, name: str) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def run(url: str, client: PydoDroplets, kill_at: int, passes: int) -> None:
    engine = make_engine(url)
    vault = Vault(LocalKeyWrapper({"k1": b"1" * 32}))
    keys = FleetKeys(engine, vault)
    effects = Deadly()
    effects.kill_at = kill_at or None
    repository = effects.wrap(Repository(engine, vault, keys), *WRITES)
    droplets = effects.wrap(client, "create", "delete", "act")
    settings = FleetSettings(
        "test", "https://service.example", keys.push_key, DropletSettings("203.0.113.9"), probes=2, steps=1
    )
    reconciler = Reconciler(
        settings, repository, droplets, TlsAgents(keys.sign), FleetLease(engine, "test", seconds=60)
    )
    for _ in range(passes):
        assert reconciler.run_pass() is not None, "the lease is another's"
        time.sleep(0.05)  # the local API's droplets boot


def main() -> None:
    url, api, token = sys.argv[1:]
    client = PydoDroplets(token, api)  # once for all of them; it connects when it is used
    for line in sys.stdin:
        kill_at, passes = map(int, line.split())
        child = os.fork()
        if child == 0:
            try:
                run(url, client, kill_at, passes)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("killed" if killed else "done" if status == 0 else f"failed {status}", flush=True)


if __name__ == "__main__":
    main()
