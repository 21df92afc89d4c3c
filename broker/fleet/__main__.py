"""What an operator does to the fleet by hand.

    python -m broker.fleet new-key                 put a new wrapping key before the others in FLEET_KEY_FILE
    python -m broker.fleet rewrap                  wrap all data keys by the current wrapping key
    python -m broker.fleet quarantine              list unknown droplets
    python -m broker.fleet condemn ID --yes        let the next pass delete an unknown droplet

DATABASE_URL says where the database is, FLEET_KEY_FILE or FLEET_KMS_KEY where the wrapping key is.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from broker.fleet.keys import FleetKeys, rewrap
from broker.fleet.repository import Repository
from broker.fleet.vault import KeyWrapper, KmsWrapper, LocalKeyWrapper, Vault, VaultError


def main(arguments: list[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Runs one command; the process's exit code: 0, 1 for a refusal, 2 for settings."""
    parser = argparse.ArgumentParser(prog="python -m broker.fleet", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("new-key", help="put a new wrapping key before the others in FLEET_KEY_FILE")
    commands.add_parser("rewrap", help="wrap all data keys by the current wrapping key")
    commands.add_parser("quarantine", help="list unknown droplets")
    condemn = commands.add_parser("condemn", help="let the next pass delete an unknown droplet")
    condemn.add_argument("id", type=int)
    condemn.add_argument("--yes", action="store_true", help="really: a droplet and its data are gone then")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "new-key":
            return _new_key(environment)
        url = environment.get("DATABASE_URL", "")
        if not url:
            raise VaultError("DATABASE_URL isn't set: say where the database is")
        engine = create_engine(url, pool_pre_ping=True)
        try:
            vault = Vault(open_wrapper(environment))
            if chosen.command == "rewrap":
                print(f"wrapped {rewrap(engine, vault)} data keys anew")
                return 0
            repository = Repository(engine, vault, FleetKeys(engine, vault))
            if chosen.command == "quarantine":
                return _list(repository)
            return _condemn(repository, chosen.id, chosen.yes)
        finally:
            engine.dispose()
    except VaultError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2
    except SQLAlchemyError as failure:
        sys.stderr.write(f"the database can't be used: {type(failure).__name__}\n")
        return 2


def open_wrapper(environment: Mapping[str, str]) -> KeyWrapper:
    """The wrapping key that the environment names. Raises VaultError."""
    path, key = environment.get("FLEET_KEY_FILE", ""), environment.get("FLEET_KMS_KEY", "")
    if bool(path) == bool(key):
        raise VaultError("set one of FLEET_KEY_FILE (a key file) and FLEET_KMS_KEY (a key of Cloud KMS)")
    return LocalKeyWrapper.open(Path(path)) if path else KmsWrapper(key)


def _new_key(environment: Mapping[str, str]) -> int:
    path = environment.get("FLEET_KEY_FILE", "")
    if not path:
        raise VaultError(
            "FLEET_KEY_FILE isn't set: say where the key file is (Cloud KMS rotates its keys itself)"
        )
    name = LocalKeyWrapper.add_key(Path(path))
    print(f"{name} is the current key: restart the service, run rewrap, then the older lines may go")
    return 0


def _list(repository: Repository) -> int:
    for one in repository.quarantined(None):
        print(
            f"{one.droplet_id}  {one.name}  account {one.account_id or '?'}  "
            f"first seen {one.first_seen:%F %T}, last {one.last_seen:%F %T} UTC"
        )
    return 0


def _condemn(repository: Repository, number: int, really: bool) -> int:
    found = next((one for one in repository.quarantined(None) if one.droplet_id == number), None)
    if found is None:
        sys.stderr.write(f"droplet {number} isn't in quarantine: `quarantine` lists those that are\n")
        return 1
    if not really:
        sys.stderr.write(
            f"droplet {number} ({found.name}) would be deleted with all its data: repeat with --yes\n"
        )
        return 1
    repository.condemn_unknown(found.account_id, number, "an operator condemned it")
    print(f"the next pass deletes droplet {number} ({found.name})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
