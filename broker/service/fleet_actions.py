"""What users do to their accounts, as blocking functions for a thread of the fleet.

Each may be repeated, and each reads the account again when a pass has written it meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from broker.fleet.account import Account, State, Wanted, droplet_user
from broker.fleet.agents import AgentUnreachable, PushRefused
from broker.fleet.digitalocean import DigitalOceanError
from broker.fleet.limits import TooManyAccounts, TooOften
from broker.fleet.pinned import CertificateChanged
from broker.fleet.policies import PolicyError, check_policy
from broker.fleet.repository import AlreadyConnected, Conflict, KeyReused
from broker.service.fleet import Fleet
from broker.service.fleet_problems import Refusal, unknown_account, wrong_field
from broker.service.fleet_schemas import ConnectBody, Credentials, IbAccountBody, PolicyBody

_ACCOUNT_ID = re.compile(r"ib-(demo|live|paper)-[0-9a-f]{8}")
_UNDER_WAY = (State.PROVISIONING, State.INITIALIZING, State.RUNNING)
#: as often a change is tried again that a pass came before
_TRIES = 20


def own(fleet: Fleet, account_id: str, user_id: str) -> Account:
    """A user's account, a deleted one too. Raises Refusal for any other id."""
    found = fleet.repository.get(account_id) if _ACCOUNT_ID.fullmatch(account_id) else None
    if found is None or found.user_id != user_id:
        raise unknown_account()
    return found


def connected(fleet: Fleet, user_id: str, asked: ConnectBody, key: str) -> Account | None:
    """The account that is there already. Raises Refusal, SQLAlchemyError."""
    try:
        return fleet.repository.connected(user_id, asked.environment, asked.credentials.username, key)
    except KeyReused as reused:
        raise _key_reused(reused) from None


def connect(fleet: Fleet, user_id: str, asked: ConnectBody, key: str) -> tuple[Account, bool]:
    """The account, and whether it is new. Raises Refusal, VaultError, SQLAlchemyError."""
    login = asked.credentials
    try:
        account = fleet.repository.connect(
            user_id,
            asked.environment,
            login.username,
            login.password.get_secret_value(),
            droplet_user(user_id),
            key,
            limits=fleet.limits,
        )
    except AlreadyConnected as first:
        return first.account, False
    except TooManyAccounts as enough:
        raise Refusal(409, "too-many-accounts", "No more accounts", str(enough)) from None
    except TooOften as often:
        raise _too_often(often) from None
    except KeyReused as reused:
        raise _key_reused(reused) from None
    fleet.changed(account.id)
    return account, True


def want(fleet: Fleet, account_id: str, user_id: str, wanted: Wanted) -> tuple[Account, bool]:
    """Running, stopped, hibernated or deleted: the account, and whether that is news. Raises Refusal."""

    def write(account: Account) -> Account | None:
        if account.wanted == wanted and (wanted is not Wanted.RUNNING or account.status in _UNDER_WAY):
            return None
        if wanted is Wanted.RUNNING:
            fleet.repository.check_logins(account, fleet.limits)
        return fleet.repository.want(account, wanted, user_id)

    return _change(fleet, account_id, user_id, write, deleted=wanted is Wanted.DELETED)


def restart(fleet: Fleet, account_id: str, user_id: str) -> tuple[Account, bool]:
    """The gateway's container anew, and a login with it. Raises Refusal."""

    def write(account: Account) -> Account | None:
        if account.restart_wanted_at is not None and account.wanted == Wanted.RUNNING:
            return None
        fleet.repository.check_logins(account, fleet.limits)
        return fleet.repository.want_restart(account, user_id)

    return _change(fleet, account_id, user_id, write)


def set_policy(fleet: Fleet, account_id: str, user_id: str, asked: PolicyBody) -> tuple[Account, bool]:
    """When the account has a server at all. Raises Refusal."""

    def write(account: Account) -> Account | None:
        try:
            check_policy(asked.policy, account.environment, asked.unattended_live)
        except PolicyError as wrong:
            raise wrong_field("policy", str(wrong)) from None
        if (account.policy, account.unattended_live) == (asked.policy, asked.unattended_live):
            return None
        values = {"policy": asked.policy, "unattended_live": asked.unattended_live}
        return fleet.repository.change(account, "policy", user_id, asked.policy, **values)

    return _change(fleet, account_id, user_id, write)


def set_ib_account(fleet: Fleet, account_id: str, user_id: str, asked: IbAccountBody) -> tuple[Account, bool]:
    """Which account of the login is traded; IBKR alone knows whether there is one. Raises Refusal."""

    def write(account: Account) -> Account | None:
        if account.ib_account == asked.ib_account:
            return None
        return fleet.repository.change(
            account, "ib_account", user_id, asked.ib_account, ib_account=asked.ib_account
        )

    return _change(fleet, account_id, user_id, write)


def set_credentials(fleet: Fleet, account_id: str, user_id: str, login: Credentials) -> tuple[Account, bool]:
    """Another login for the same server. Raises Refusal, VaultError."""

    def write(account: Account) -> Account:
        fleet.repository.check_credentials(account, login.username, fleet.limits)
        password = login.password.get_secret_value()
        return fleet.repository.set_credentials(account, login.username, password, user_id)

    try:
        return _change(fleet, account_id, user_id, write)
    except AlreadyConnected as other:
        said = f"account {other.account.id} has this IBKR user name already: delete one of them first"
        raise Refusal(
            409, "already-connected", "The user name is in use", said, account_id=other.account.id
        ) from None


def last_lines(fleet: Fleet, account_id: str, user_id: str, lines: int) -> list[str]:
    """The end of the gateway's log. Raises Refusal when there is no server, or it doesn't answer."""
    account = own(fleet, account_id, user_id)
    now: dict[str, Any] = {
        "account_status": account.status,
        "reason": account.status_reason,
        "since": account.status_since.isoformat(),
    }
    try:
        if account.credentials_droplet_id is None or account.do_server_status != "active":
            raise Conflict(account_id)
        return fleet.agents.logs(fleet.repository.endpoint(account), lines)
    except Conflict:
        raise Refusal(409, "no-gateway", "There is no gateway now", account.message, **now) from None
    except (AgentUnreachable, CertificateChanged, PushRefused) as failure:
        said = f"the server doesn't give its log ({type(failure).__name__}): {account.message}"
        raise Refusal(
            503, "server-unreachable", "The server doesn't answer", said, retry_after=5, **now
        ) from None


def _change(
    fleet: Fleet,
    account_id: str,
    user_id: str,
    write: Callable[[Account], Account | None],
    deleted: bool = False,
) -> tuple[Account, bool]:
    """Reads, decides and writes, again while somebody else writes. `deleted`: of a deleted account too."""
    for _ in range(_TRIES):
        account = own(fleet, account_id, user_id)
        if account.wanted == Wanted.DELETED and not deleted:
            said = "this account was deleted: connect again for a new one"
            raise Refusal(409, "account-deleted", "The account is deleted", said)
        try:
            written = write(account)
        except Conflict:
            continue
        except TooOften as often:
            raise _too_often(often) from None
        if written is None:
            return account, False
        fleet.changed(account_id)
        return written, True
    said = "the account is being changed all the time: try again"
    raise Refusal(503, "account-busy", "The account is busy", said, retry_after=2)


def _too_often(often: TooOften) -> Refusal:
    return Refusal(429, "too-often", "Too often", str(often), retry_after=often.wait)


def _key_reused(reused: KeyReused) -> Refusal:
    return Refusal(409, "idempotency-key-reused", "The key names another request", str(reused))


def check_room(fleet: Fleet, environment: str) -> None:
    """Refuses what DigitalOcean can't make; if it doesn't answer, the passes find out. Raises Refusal."""
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
