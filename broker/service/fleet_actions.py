"""What users do to their accounts, as blocking functions for a thread of the fleet.

Each may be repeated, and each reads the account again when a pass has written it meanwhile.
"""

from __future__ import annotations

import re

from broker.fleet.account import Account, droplet_user
from broker.fleet.digitalocean import DigitalOceanError
from broker.fleet.repository import AlreadyConnected, KeyReused
from broker.service.fleet import Fleet
from broker.service.fleet_problems import Refusal, unknown_account
from broker.service.fleet_schemas import ConnectBody

_ACCOUNT_ID = re.compile(r"ib-(demo|live|paper)-[0-9a-f]{8}")


def own(fleet: Fleet, account_id: str, user_id: str) -> Account:
    """A user's account, a deleted one too. Raises Refusal for any other id."""
    found = fleet.repository.get(account_id) if _ACCOUNT_ID.fullmatch(account_id) else None
    if found is None or found.user_id != user_id:
        raise unknown_account()
    return found


def connect(fleet: Fleet, user_id: str, asked: ConnectBody, key: str) -> tuple[Account, bool]:
    """The account, and whether it is new. Raises Refusal, VaultError, SQLAlchemyError."""
    login = asked.credentials
    _check_room(fleet, asked.environment)
    try:
        account = fleet.repository.connect(
            user_id,
            asked.environment,
            login.username,
            login.password.get_secret_value(),
            droplet_user(user_id),
            key,
        )
    except AlreadyConnected as there:
        return there.account, False
    except KeyReused as reused:
        raise Refusal(409, "idempotency-key-reused", "The key names another request", str(reused)) from None
    fleet.changed(account.id)
    return account, True


def _check_room(fleet: Fleet, environment: str) -> None:
    """Refuses what DigitalOcean can't make; if it doesn't answer, the passes find out."""
    try:
        room = fleet.room(environment)
    except DigitalOceanError:
        return
    if room.problem:
        raise Refusal(
            503, room.reason.replace("_", "-"), "No server can be made now", room.problem, retry_after=600
        )
    if room.left <= 0:
        said = "the DigitalOcean team has as many droplets as it may have: ask its owner for more"
        raise Refusal(503, "quota-reached", "No server can be made now", said, retry_after=300)
