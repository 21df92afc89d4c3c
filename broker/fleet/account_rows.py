"""Users' accounts in PostgreSQL: made, read, what is wanted of them, their history and credentials."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, select, text, update
from sqlalchemy.exc import IntegrityError

from broker.fleet.account import Account, State, Wanted
from broker.fleet.agents import Endpoint, Login
from broker.fleet.keys import FleetKeys
from broker.fleet.limits import Limits
from broker.fleet.models import broker_account_events, broker_accounts
from broker.fleet.pass_rows import RESTART
from broker.fleet.rows import ACCOUNT_COLUMNS, NOW, Conflict, Rows, read_account, write_event
from broker.fleet.vault import Sealed, Vault

_SECRETS = ("username", "password", "gateway_token")


class AlreadyConnected(Exception):
    """An account of this user, environment and IBKR user name is there already."""

    def __init__(self, account: Account) -> None:
        super().__init__(account.id)
        self.account = account


class KeyReused(Exception):
    """An idempotency key came again with another request; nothing was done."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an account's history."""

    at: datetime
    kind: str
    status: str
    reason: str
    detail: str
    caused_by: str


class AccountRows(Rows):
    """What users and operators do with accounts. Blocking; usable from several threads."""

    def __init__(self, engine: Engine, vault: Vault, keys: FleetKeys) -> None:
        super().__init__(engine)
        self._vault = vault
        self._keys = keys

    def connect(
        self,
        user_id: str,
        environment: str,
        ib_username: str,
        password: str,
        droplet_user: str,
        idempotency_key: str = "",
        unattended_live: bool = False,
        limits: Limits | None = None,
    ) -> Account:
        """A new account that wants to run, within the limits.

        Raises AlreadyConnected with the one that is there, for the same user, environment and IBKR user
        name or for the same idempotency key; KeyReused for a key that was used for something else;
        TooManyAccounts and TooOften.
        """
        name_hash = self._keys.username_hash(ib_username)
        key_hash = _request_hash(environment, name_hash)
        while True:
            account_id = f"ib-{environment}-{secrets.token_hex(4)}"
            login = {
                "username": ib_username,
                "password": password,
                "gateway_token": secrets.token_urlsafe(32),
            }
            sealed = self._vault.seal(account_id, login)
            try:
                with self._engine.begin() as db:
                    if limits is not None:
                        limits.lock(db, user_id, name_hash)
                    found = self._existing(db, user_id, environment, name_hash, idempotency_key, key_hash)
                    if found is not None:
                        raise AlreadyConnected(found)
                    if limits is not None:
                        limits.check_connect(db, user_id, name_hash)
                    used = select(func.coalesce(func.max(broker_accounts.c.username_index), 0)).where(
                        broker_accounts.c.username == droplet_user,
                        broker_accounts.c.environment == environment,
                    )
                    row = db.execute(
                        broker_accounts.insert()
                        .values(
                            id=account_id,
                            user_id=user_id,
                            username=droplet_user,
                            username_index=db.execute(used).scalar_one() + 1,
                            environment=environment,
                            ib_username_hash=name_hash,
                            wanted=Wanted.RUNNING,
                            unattended_live=unattended_live,
                            status=State.PROVISIONING,
                            status_since=NOW,
                            last_used_at=NOW,
                            idempotency_key=idempotency_key or None,
                            idempotency_hash=key_hash if idempotency_key else None,
                            created_at=NOW,
                            updated_at=NOW,
                            **_sealed_columns(sealed),
                        )
                        .returning(*ACCOUNT_COLUMNS)
                    ).one()
                    account = read_account(row)
                    write_event(db, account, "connect", user_id)
                    return account
            except IntegrityError:
                # Somebody took the id, the name's index or this very connect at the same moment.
                continue

    def connected(
        self, user_id: str, environment: str, ib_username: str, idempotency_key: str = ""
    ) -> Account | None:
        """The account that a connect of these would find. Raises KeyReused."""
        name_hash = self._keys.username_hash(ib_username)
        with self._engine.connect() as db:
            return self._existing(
                db, user_id, environment, name_hash, idempotency_key, _request_hash(environment, name_hash)
            )

    def _existing(
        self, db: Connection, user_id: str, environment: str, name_hash: str, key: str, key_hash: str
    ) -> Account | None:
        column = broker_accounts.c
        mine = (column.user_id == user_id) & (column.wanted != Wanted.DELETED)
        if key:
            row = db.execute(
                select(column.idempotency_hash, *ACCOUNT_COLUMNS).where(mine, column.idempotency_key == key)
            ).first()
            if row is not None:
                if row[0] != key_hash:
                    raise KeyReused("this Idempotency-Key was used for another request: use a new one")
                return read_account(row[1:])
        same = (column.environment == environment) & (column.ib_username_hash == name_hash)
        row = db.execute(select(*ACCOUNT_COLUMNS).where(mine, same)).first()
        return None if row is None else read_account(row)

    def get(self, account_id: str) -> Account | None:
        """An account by its id, whoever's it is."""
        with self._engine.connect() as db:
            row = db.execute(select(*ACCOUNT_COLUMNS).where(broker_accounts.c.id == account_id)).first()
        return None if row is None else read_account(row)

    def of_user(self, user_id: str, limit: int = 50, after: str = "") -> list[Account]:
        """A user's accounts that aren't deleted, by id; those behind `after`."""
        column = broker_accounts.c
        query = (
            select(*ACCOUNT_COLUMNS)
            .where(column.user_id == user_id, column.wanted != Wanted.DELETED, column.id > after)
            .order_by(column.id)
            .limit(limit)
        )
        with self._engine.connect() as db:
            return [read_account(row) for row in db.execute(query)]

    def want(self, account: Account, wanted: Wanted, by: str) -> Account:
        """What the user asks for from now on. A start also counts as a new try. Raises Conflict."""
        values: dict[str, Any] = {"wanted": wanted}
        if wanted is Wanted.RUNNING:
            values |= {"create_attempts": 0, "last_used_at": NOW}
            if account.wanted == Wanted.RUNNING and account.status == State.ERROR:
                values |= _restart_wanted(account)
            if account.failed_logins == 0:
                values["retry_at"] = None
        return self.change(account, wanted.value, by, **values)

    def want_restart(self, account: Account, by: str) -> Account:
        """A restart of the gateway; one that is asked for again before it is done is one. Raises Conflict."""
        values = {**_restart_wanted(account), "last_used_at": NOW, "create_attempts": 0}
        return self.change(account, "restart", by, wanted=Wanted.RUNNING, **values)

    def set_credentials(self, account: Account, ib_username: str, password: str, by: str) -> Account:
        """Other credentials, pushed at the next pass; the droplet stays.

        Raises Conflict, AlreadyConnected, VaultError.
        """
        token = self.login(account)[0].gateway_token
        login = {"username": ib_username, "password": password, "gateway_token": token}
        sealed = self._vault.seal(account.id, login)
        name_hash = self._keys.username_hash(ib_username)
        try:
            return self.change(
                account,
                "credentials",
                by,
                ib_username_hash=name_hash,
                credentials_version=account.credentials_version + 1,
                failed_logins=0,
                retry_at=None,
                **_sealed_columns(sealed),
            )
        except IntegrityError:
            with self._engine.connect() as db:
                found = self._existing(db, account.user_id, account.environment, name_hash, "", "")
            raise AlreadyConnected(found or account) from None

    def history(self, account_id: str, limit: int = 50, before: int | None = None) -> list[tuple[int, Event]]:
        """An account's events with their numbers, the newest first; those before a number."""
        column = broker_account_events.c
        query = select(
            column.id, column.at, column.kind, column.status, column.reason, column.detail, column.caused_by
        ).where(column.account_id == account_id)
        if before is not None:
            query = query.where(column.id < before)
        with self._engine.connect() as db:
            rows = db.execute(query.order_by(column.id.desc()).limit(limit)).all()
        return [(row[0], Event(*row[1:])) for row in rows]

    def several(self, account_ids: Collection[str]) -> dict[str, Account]:
        """Those of the accounts that there are, by id, with one statement."""
        query = select(*ACCOUNT_COLUMNS).where(broker_accounts.c.id.in_(list(account_ids)))
        with self._engine.connect() as db:
            return {account.id: account for account in map(read_account, db.execute(query))}

    def touch(self, account_id: str) -> Account | None:
        """The account's connection is being used: at most one write in a minute. The account as it is then.

        The write counts as a new version: a pass that was about to let the account rest gets Conflict.
        """
        column = broker_accounts.c
        recently = column.last_used_at > NOW - text("interval '1 minute'")
        with self._engine.begin() as db:
            db.execute(
                update(broker_accounts)
                .where(column.id == account_id, func.coalesce(~recently, text("true")))
                .values(last_used_at=NOW, version=column.version + 1)
            )
            row = db.execute(select(*ACCOUNT_COLUMNS).where(column.id == account_id)).first()
        return None if row is None else read_account(row)

    def note(self, account: Account, kind: str, detail: str, by: str = "") -> None:
        """Something for the history that changes nothing."""
        with self._engine.begin() as db:
            write_event(db, account, kind, by, detail)

    def login(self, account: Account) -> tuple[Login, int]:
        """The credentials in clear and their version. Raises VaultError, and Conflict when they are wiped."""
        column = broker_accounts.c
        with self._engine.connect() as db:
            row = db.execute(
                select(
                    column.credentials_version,
                    column.key_name,
                    column.sealed_data_key,
                    *(column[f"sealed_{name}"] for name in _SECRETS),
                ).where(column.id == account.id)
            ).one()
        if row[1] is None:
            raise Conflict(account.id)
        sealed = Sealed(row[1], row[2], dict(zip(_SECRETS, row[3:], strict=True)))
        return Login(**self._vault.unseal(account.id, sealed), paper=account.environment != "live"), row[0]

    def endpoint(self, account: Account) -> Endpoint:
        """Where the account's agent is, with the gateway's token. Raises VaultError, Conflict."""
        column = broker_accounts.c
        with self._engine.connect() as db:
            row = db.execute(
                select(column.key_name, column.sealed_data_key, column.sealed_gateway_token).where(
                    column.id == account.id
                )
            ).one()
        if row[0] is None or not account.do_ip_address or not account.certificate_sha256:
            raise Conflict(account.id)
        token = self._vault.unseal(account.id, Sealed(row[0], row[1], {"gateway_token": row[2]}))
        return Endpoint(account.do_ip_address, account.certificate_sha256, token["gateway_token"])


def _request_hash(environment: str, name_hash: str) -> str:
    """What a connect with an idempotency key asked for."""
    return hashlib.sha256(f"{environment}\0{name_hash}".encode()).hexdigest()


def _restart_wanted(account: Account) -> dict[str, Any]:
    """A restart from now on, unless one is wanted already. A new one doesn't go by an old one's number."""
    if account.restart_wanted_at is not None:
        return {}
    no_action = {"action_kind": None, "action_id": None} if account.action_kind == RESTART else {}
    return {"restart_wanted_at": NOW, **no_action}


def _sealed_columns(sealed: Sealed) -> dict[str, Any]:
    return {
        "key_name": sealed.key_name,
        "sealed_data_key": sealed.data_key,
        **{f"sealed_{name}": sealed.values[name] for name in _SECRETS},
    }
