"""Passes of the reconciler over many running accounts, in a process of its own.

    python -m benchmarks.fleet_pass DATABASE_URL API_URL AGENT_PORT PASSES

Prints a line of JSON for each pass: seconds, accounts, probes that found a gateway ready, CPU seconds and the
most memory that the process has had so far, in MiB. A line on its input starts the next one.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from sqlalchemy import create_engine

from benchmarks.fleet_stubs import STACK
from broker.fleet.agents import TlsAgents
from broker.fleet.digitalocean import Budget, PydoDroplets
from broker.fleet.keys import FleetKeys
from broker.fleet.reconciler import FleetSettings, Reconciler
from broker.fleet.repository import FleetLease, Repository
from broker.fleet.spec import DropletSettings
from broker.fleet.vault import LocalKeyWrapper, Vault

WRAPPING_KEY = {"k1": b"1" * 32}


def main(url: str, api: str, port: str, passes: str) -> None:
    """Runs them."""
    engine = create_engine(url)
    vault = Vault(LocalKeyWrapper(WRAPPING_KEY))
    keys = FleetKeys(engine, vault)
    reconciler = Reconciler(
        FleetSettings(STACK, "https://service.example", keys.push_key, DropletSettings("203.0.113.9")),
        Repository(engine, vault, keys),
        PydoDroplets("token", api, Budget(10**6, 10**6)),  # one pass after the other, without waiting
        TlsAgents(keys.sign, port=int(port)),
        FleetLease(engine, STACK),
    )
    for _ in range(int(passes)):
        sys.stdin.readline()
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        told = reconciler.run_pass()
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_SELF)
        assert told is not None
        shown = {
            "seconds": seconds,
            "accounts": told.accounts,
            "ready": told.probes["ready"],
            "problem": told.problem,
            "moving": told.moving,
            "cpu": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
            "memory": used.ru_maxrss / 1024,
        }
        print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
