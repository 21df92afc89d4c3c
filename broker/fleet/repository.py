"""The fleet in PostgreSQL: accounts, their history, enrolments, tombstones, quarantine and the lease.

Whoever changes an account says which version of the row it has read; if somebody else has written since,
`Conflict` is raised and nothing is written. So a process that froze and woke up can't overwrite anything.
Times are the database's clock: the clocks of several instances may differ.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from broker.fleet.account import Account, State, Wanted, message_of
from broker.fleet.agents import Endpoint, Login
from broker.fleet.digitalocean import Droplet
from broker.fleet.keys import FleetKeys
from broker.fleet.models import (
    broker_account_events,
    broker_accounts,
    enrolments,
    fleet_quarantine,
    fleet_tombstones,
)
from broker.fleet.vault import Sealed, Vault

ENROLMENT_SECONDS = 1800
_SECRETS = ("username", "password", "gateway_token")
_COLUMNS = [broker_accounts.c[f.name] for f in fields(Account)]
_NOW = func.clock_timestamp()


class Conflict(Exception):
    """Somebody else has changed the account since it was read; nothing was written. Read it again."""


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


@dataclass(frozen=True, slots=True)
class NewEnrolment:
    """What a droplet about to be made gets: the id goes into a tag, the token into its user_data."""

    id: str
    token: str


class Repository:
    """Blocking; usable from several threads. All raise SQLAlchemyError when the database is away."""

    def __init__(self, engine: Engine, vault: Vault, keys: FleetKeys) -> None:
        self._engine = engine
        self._vault = vault
        self._keys = keys

    # accounts

    def connect(
        self,
        user_id: str,
        environment: str,
        ib_username: str,
        password: str,
        droplet_user: str,
        idempotency_key: str = "",
        unattended_live: bool = False,
    ) -> Account:
        """A new account that wants to run.

        Raises AlreadyConnected with the one that is there, for the same user, environment and IBKR user
        name or for the same idempotency key; KeyReused for a key that was used for something else.
        """
        name_hash = self._keys.username_hash(ib_username)
        key_hash = hashlib.sha256(f"{environment}\0{name_hash}".encode()).hexdigest()
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
                    found = self._existing(db, user_id, environment, name_hash, idempotency_key, key_hash)
                    if found is not None:
                        raise AlreadyConnected(found)
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
                            status_since=_NOW,
                            last_used_at=_NOW,
                            idempotency_key=idempotency_key or None,
                            idempotency_hash=key_hash if idempotency_key else None,
                            created_at=_NOW,
                            updated_at=_NOW,
                            **_sealed_columns(sealed),
                        )
                        .returning(*_COLUMNS)
                    ).one()
                    account = _account(row)
                    _note(db, account, "connect", user_id)
                    return account
            except IntegrityError:
                # Somebody took the id, the name's index or this very connect at the same moment.
                continue

    def _existing(
        self, db: Connection, user_id: str, environment: str, name_hash: str, key: str, key_hash: str
    ) -> Account | None:
        column = broker_accounts.c
        mine = (column.user_id == user_id) & (column.wanted != Wanted.DELETED)
        if key:
            row = db.execute(
                select(column.idempotency_hash, *_COLUMNS).where(mine, column.idempotency_key == key)
            ).first()
            if row is not None:
                if row[0] != key_hash:
                    raise KeyReused("this Idempotency-Key was used for another request: use a new one")
                return _account(row[1:])
        same = (column.environment == environment) & (column.ib_username_hash == name_hash)
        row = db.execute(select(*_COLUMNS).where(mine, same)).first()
        return None if row is None else _account(row)

    def get(self, account_id: str) -> Account | None:
        """An account by its id, whoever's it is."""
        with self._engine.connect() as db:
            row = db.execute(select(*_COLUMNS).where(broker_accounts.c.id == account_id)).first()
        return None if row is None else _account(row)

    def of_user(self, user_id: str, limit: int = 50, after: str = "") -> list[Account]:
        """A user's accounts that aren't deleted, by id; those behind `after`."""
        column = broker_accounts.c
        query = (
            select(*_COLUMNS)
            .where(column.user_id == user_id, column.wanted != Wanted.DELETED, column.id > after)
            .order_by(column.id)
            .limit(limit)
        )
        with self._engine.connect() as db:
            return [_account(row) for row in db.execute(query)]

    def to_reconcile(self, also: Collection[str] = ()) -> list[Account]:
        """All accounts that aren't gone for good, and of the others those of the given ids."""
        column = broker_accounts.c
        query = select(*_COLUMNS).where((column.status != State.DELETED) | column.id.in_(list(also)))
        with self._engine.connect() as db:
            return [_account(row) for row in db.execute(query.order_by(column.id))]

    def change(
        self, account: Account, kind: str = "", by: str = "", detail: str = "", **values: Any
    ) -> Account:
        """Writes columns of the version that was read; the row as it is now.

        A new status or reason sets `status_since` and goes into the history, as does a given `kind`.
        Raises Conflict.
        """
        with self._engine.begin() as db:
            return self._change(db, account, kind, by, detail, values)

    def _change(
        self, db: Connection, account: Account, kind: str, by: str, detail: str, values: Mapping[str, Any]
    ) -> Account:
        status = values.get("status", account.status)
        reason = values.get("status_reason", account.status_reason)
        moved = (status, reason) != (account.status, account.status_reason)
        more = {"status_since": _NOW} if moved else {}
        column = broker_accounts.c
        row = db.execute(
            update(broker_accounts)
            .where(column.id == account.id, column.version == account.version)
            .values(**values, **more, version=column.version + 1, updated_at=_NOW)
            .returning(*_COLUMNS)
        ).first()
        if row is None:
            raise Conflict(account.id)
        written = _account(row)
        if moved or kind:
            _note(db, written, kind or "status", by, detail)
        return written

    def want(self, account: Account, wanted: Wanted, by: str) -> Account:
        """What the user asks for from now on. A start also counts as a new try. Raises Conflict."""
        values: dict[str, Any] = {"wanted": wanted}
        if wanted is Wanted.RUNNING:
            values |= {"create_attempts": 0, "last_used_at": _NOW}
            if account.wanted == Wanted.RUNNING and account.status == State.ERROR:
                values["restart_wanted_at"] = _NOW
            if account.failed_logins == 0:
                values["retry_at"] = None
        return self.change(account, wanted.value, by, **values)

    def want_restart(self, account: Account, by: str) -> Account:
        """A restart of the gateway. Raises Conflict."""
        values: dict[str, Any] = {"restart_wanted_at": _NOW, "last_used_at": _NOW, "create_attempts": 0}
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

    def touch(self, account_id: str) -> None:
        """The account's connection is being used: at most one write in a minute."""
        column = broker_accounts.c
        recently = column.last_used_at > _NOW - text("interval '1 minute'")
        with self._engine.begin() as db:
            db.execute(
                update(broker_accounts)
                .where(column.id == account_id, func.coalesce(~recently, text("true")))
                .values(last_used_at=_NOW)
            )

    def note(self, account: Account, kind: str, detail: str, by: str = "") -> None:
        """Something for the history that changes nothing."""
        with self._engine.begin() as db:
            _note(db, account, kind, by, detail)

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

    # what a pass sees

    def now(self) -> datetime:
        """The database's clock."""
        with self._engine.connect() as db:
            found: datetime = db.execute(select(_NOW)).scalar_one()
        return found

    def known_enrolments(self, ids: Collection[str]) -> dict[str, str]:
        """Of the ids that droplets carry those that this database gave, with their accounts."""
        query = select(enrolments.c.id, enrolments.c.account_id).where(enrolments.c.id.in_(list(ids)))
        with self._engine.connect() as db:
            return {row[0]: row[1] for row in db.execute(query)}

    def tombstones(self) -> set[int]:
        """Droplets that are condemned and, as far as is known, not gone yet."""
        query = select(fleet_tombstones.c.droplet_id).where(fleet_tombstones.c.gone_at.is_(None))
        with self._engine.connect() as db:
            return set(db.execute(query).scalars())

    def note_seen(self, seen: Mapping[str, Droplet]) -> None:
        """What the list showed of accounts' droplets; only this writes these columns of an adopted one."""
        if not seen:
            return
        rows = [
            {"account": a, "number": d.id, "state": d.status, "address": d.address or None}
            for a, d in seen.items()
        ]
        with self._engine.begin() as db:
            db.execute(
                text(
                    "update broker_accounts set do_server_status = :state,"
                    " do_ip_address = coalesce(:address, do_ip_address)"
                    " where id = :account and do_droplet_id = :number"
                    " and (do_server_status, do_ip_address) is distinct from"
                    " (:state, coalesce(:address, do_ip_address))"
                ),
                rows,
            )

    def note_checked(self, accounts: Iterable[str]) -> None:
        """When these were looked at: one statement for all."""
        ids = list(accounts)
        if ids:
            with self._engine.begin() as db:
                db.execute(
                    text(
                        "update broker_accounts set do_last_status_check = clock_timestamp()"
                        " where id = any(:ids)"
                    ),
                    {"ids": ids},
                )

    def quarantine(self, droplets: Iterable[Droplet]) -> list[Droplet]:
        """Notes unknown droplets; those that weren't noted before."""
        new = []
        with self._engine.begin() as db:
            for droplet in droplets:
                made = insert(fleet_quarantine).values(
                    droplet_id=droplet.id,
                    name=droplet.name[:255],
                    account_id=droplet.tag("account")[:255],
                    first_seen=_NOW,
                    last_seen=_NOW,
                )
                again = made.on_conflict_do_update(
                    index_elements=["droplet_id"], set_={"last_seen": _NOW}
                ).returning(text("xmax = 0"))
                if db.execute(again).scalar_one():
                    new.append(droplet)
        return new

    # steps

    def begin_create(
        self, account: Account, seconds: float = ENROLMENT_SECONDS
    ) -> tuple[Account, NewEnrolment]:
        """Writes down, before a create is sent, that it is, and what the droplet will show.

        Raises Conflict.
        """
        made = NewEnrolment(secrets.token_hex(8), secrets.token_urlsafe(32))
        with self._engine.begin() as db:
            values = {
                "generation": account.generation + 1,
                "create_started_at": _NOW,
                "retry_at": None,
                "status": State.PROVISIONING,
                "status_reason": "creating",
                "status_detail": "",
            }
            written = self._change(db, account, "", "", "", values)
            db.execute(
                enrolments.insert().values(
                    id=made.id,
                    token_sha256=hashlib.sha256(made.token.encode()).hexdigest(),
                    account_id=account.id,
                    generation=written.generation,
                    created_at=_NOW,
                    expires_at=_NOW + text(f"interval '{int(seconds)} seconds'"),
                )
            )
        return written, made

    def adopt(self, account: Account, droplet: Droplet, custom_data: str | None = None) -> Account:
        """From now on this is the account's droplet. Raises Conflict."""
        return self.change(
            account,
            "adopt",
            detail=f"droplet {droplet.id}",
            do_droplet_id=droplet.id,
            do_droplet_name=droplet.name,
            do_server_status=droplet.status,
            do_ip_address=droplet.address or None,
            do_region=droplet.region,
            custom_data=custom_data or account.custom_data,
            create_started_at=account.create_started_at or _NOW,
            status=State.PROVISIONING,
            status_reason="creating",
            status_detail="",
        )

    def condemn(self, account_id: str, droplet_id: int, reason: str) -> None:
        """A tombstone: the droplet may be deleted from now on, and nothing takes that back."""
        made = insert(fleet_tombstones).values(
            droplet_id=droplet_id, account_id=account_id, reason=reason, created_at=_NOW
        )
        with self._engine.begin() as db:
            db.execute(made.on_conflict_do_nothing())

    def gone(self, account: Account, droplet_id: int) -> Account:
        """DigitalOcean has no such droplet any more: nothing of it counts. Raises Conflict."""
        values: dict[str, Any] = {}
        if account.do_droplet_id == droplet_id:
            values |= dict.fromkeys(
                ("do_droplet_id", "do_droplet_name", "do_server_status", "do_ip_address", "do_region",
                 "create_started_at", "action_kind", "action_id", "action_since", "custom_data")
            )  # fmt: skip
        if account.credentials_droplet_id == droplet_id:
            values |= {"credentials_droplet_id": None, "boot_id": ""}
        if account.certificate_droplet_id == droplet_id:
            values |= dict.fromkeys(("certificate", "certificate_sha256", "certificate_droplet_id"))
        with self._engine.begin() as db:
            done = update(fleet_tombstones).where(fleet_tombstones.c.droplet_id == droplet_id)
            db.execute(done.values(gone_at=func.coalesce(fleet_tombstones.c.gone_at, _NOW)))
            return self._change(db, account, "gone", "", f"droplet {droplet_id}", values)

    def forget(self, account: Account) -> Account:
        """A deleted account's credentials are wiped; its row and history stay. Raises Conflict."""
        wiped: dict[str, Any] = dict.fromkeys(
            ("key_name", "sealed_data_key", "sealed_username", "sealed_password", "sealed_gateway_token")
        )
        return self.change(account, status=State.DELETED, status_reason="", status_detail="", **wiped)

    def begin_push(self, account: Account) -> tuple[Account, int, datetime]:
        """Writes down which droplet may hold the credentials, and takes the next number. Raises Conflict.

        The number is at least the clock's milliseconds, so that it goes on rising after the database was
        restored from a backup.
        """
        column = broker_accounts.c
        following = func.greatest(
            column.push_sequence + 1, (func.extract("epoch", _NOW) * 1000).cast(column.push_sequence.type)
        )
        with self._engine.begin() as db:
            row = db.execute(
                update(broker_accounts)
                .where(
                    column.id == account.id,
                    column.version == account.version,
                    column.certificate_droplet_id == account.do_droplet_id,
                    func.coalesce(column.credentials_droplet_id, account.do_droplet_id)
                    == account.do_droplet_id,
                )
                .values(
                    credentials_droplet_id=account.do_droplet_id,
                    push_sequence=following,
                    version=column.version + 1,
                    updated_at=_NOW,
                )
                .returning(column.push_sequence, _NOW, *_COLUMNS)
            ).first()
        if row is None:
            raise Conflict(account.id)
        return _account(row[2:]), row[0], row[1]

    # enrolments

    def find_enrolment(self, account_id: str, token: str) -> Row[Any] | None:
        """The enrolment of a token: id, used_at, whether it is expired. None for a token that isn't one."""
        column = enrolments.c
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        query = select(column.id, column.used_at, (column.expires_at <= _NOW).label("expired")).where(
            column.token_sha256 == digest, column.account_id == account_id
        )
        with self._engine.connect() as db:
            return db.execute(query).first()

    def use_enrolment(self, account: Account, enrolment: str, certificate: str, digest: str) -> Account:
        """Notes a droplet's certificate; a token works once. Raises Conflict."""
        column = enrolments.c
        with self._engine.begin() as db:
            used = db.execute(
                update(enrolments)
                .where(column.id == enrolment, column.used_at.is_(None), column.expires_at > _NOW)
                .values(used_at=_NOW, droplet_id=account.do_droplet_id)
            )
            if used.rowcount != 1:
                raise Conflict(account.id)
            values = {
                "certificate": certificate,
                "certificate_sha256": digest,
                "certificate_droplet_id": account.do_droplet_id,
                "create_attempts": 0,
            }
            return self._change(db, account, "enrolled", "", f"droplet {account.do_droplet_id}", values)

    def refuse_enrolment(self, enrolment: str) -> None:
        """Counts a refusal."""
        column = enrolments.c
        with self._engine.begin() as db:
            db.execute(update(enrolments).where(column.id == enrolment).values(refused=column.refused + 1))


class FleetLease:
    """Who may run passes. On the database's clock; a holder stops using it before it runs out there."""

    def __init__(self, engine: Engine, name: str, seconds: float = 60.0) -> None:
        """`name`: one for a stack."""
        self._engine = engine
        self._values = {"name": name, "holder": secrets.token_hex(8), "ttl": seconds}
        self._seconds = seconds
        self._until = 0.0

    def take(self, clock: Callable[[], float] = time.monotonic) -> bool:
        """Takes a free lease or renews ours."""
        began = clock()
        with self._engine.begin() as db:
            row = db.execute(_TAKE, self._values).first()
        self._until = began + 0.8 * self._seconds if row is not None else 0.0
        return row is not None

    def held(self, clock: Callable[[], float] = time.monotonic) -> bool:
        """Whether it may still be used."""
        return clock() < self._until

    def release(self) -> None:
        """Frees it, if it is ours."""
        self._until = 0.0
        with self._engine.begin() as db:
            db.execute(
                text(
                    "update fleet_lease set holder = '', expires_at = clock_timestamp()"
                    " where name = :name and holder = :holder"
                ),
                self._values,
            )


_TAKE = text("""
    insert into fleet_lease as held (name, holder, expires_at)
    values (:name, :holder, clock_timestamp() + :ttl * interval '1 second')
    on conflict (name) do update
       set holder = excluded.holder, expires_at = clock_timestamp() + :ttl * interval '1 second'
     where held.holder = excluded.holder or held.expires_at <= clock_timestamp()
    returning 1
""")


def _account(row: Any) -> Account:
    return Account(*row)


def _sealed_columns(sealed: Sealed) -> dict[str, Any]:
    return {
        "key_name": sealed.key_name,
        "sealed_data_key": sealed.data_key,
        **{f"sealed_{name}": sealed.values[name] for name in _SECRETS},
    }


def _note(db: Connection, account: Account, kind: str, by: str, detail: str = "") -> None:
    db.execute(
        broker_account_events.insert().values(
            account_id=account.id,
            at=_NOW,
            kind=kind,
            status=account.status,
            reason=account.status_reason,
            detail=detail or account.status_detail or message_of(account.status, account.status_reason),
            caused_by=by,
        )
    )
