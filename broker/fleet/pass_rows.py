"""What a pass reads and writes: droplets that were seen, tombstones, quarantine, and the steps' records."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert

from broker.fleet.account import Account, State
from broker.fleet.bills import write_began, write_ended
from broker.fleet.decide import NEVER_ENROLLED
from broker.fleet.digitalocean import Droplet
from broker.fleet.models import (
    account_alerts,
    broker_accounts,
    enrolments,
    fleet_quarantine,
    fleet_tombstones,
)
from broker.fleet.rows import ACCOUNT_COLUMNS, NOW, Conflict, Rows, read_account, write_change

ENROLMENT_SECONDS = 1800
#: the account's action while a restart of its gateway isn't known to be done; `action_id` is its number
RESTART = "restart"


@dataclass(frozen=True, slots=True)
class NewEnrolment:
    """What a droplet about to be made gets: the id goes into a tag, the token into its user_data."""

    id: str
    token: str


class PassRows(Rows):
    """What the reconciler needs of the database. Blocking; usable from several threads."""

    # what a pass sees

    def to_reconcile(self, also: Collection[str] = (), only: Collection[str] | None = None) -> list[Account]:
        """All accounts that aren't gone for good, or `only` some; of those that are gone the given ids."""
        column = broker_accounts.c
        query = select(*ACCOUNT_COLUMNS).where((column.status != State.DELETED) | column.id.in_(list(also)))
        if only is not None:
            query = query.where(column.id.in_([*only, *also]))
        with self._engine.connect() as db:
            return [read_account(row) for row in db.execute(query.order_by(column.id))]

    def on_the_way(self, since: datetime) -> list[str]:
        """Ids of accounts that aren't at rest or were written since then."""
        column = broker_accounts.c
        moving = column.status.in_([State.PROVISIONING, State.INITIALIZING])
        waiting = column.status_reason.in_(["stopping", "deleting"])
        query = select(column.id).where((column.updated_at >= since) | moving | waiting)
        with self._engine.connect() as db:
            return list(db.execute(query).scalars())

    def now(self) -> datetime:
        """The database's clock."""
        with self._engine.connect() as db:
            found: datetime = db.execute(select(NOW)).scalar_one()
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

    def begin_idleness_anew(self) -> None:
        """Accounts with a droplet that hibernate when they are idle count as used just now."""
        with self._engine.begin() as db:
            db.execute(
                text(
                    "update broker_accounts set last_used_at = clock_timestamp()"
                    " where policy like 'idle:%' and do_droplet_id is not null"
                )
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
                    first_seen=NOW,
                    last_seen=NOW,
                )
                again = made.on_conflict_do_update(
                    index_elements=["droplet_id"], set_={"last_seen": NOW}
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
                "create_started_at": NOW,
                "retry_at": None,
                "status": State.PROVISIONING,
                "status_reason": "creating",
                "status_detail": "",
            }
            written = write_change(db, account, "", "", "", values)
            db.execute(
                enrolments.insert().values(
                    id=made.id,
                    token_sha256=hashlib.sha256(made.token.encode()).hexdigest(),
                    account_id=account.id,
                    generation=written.generation,
                    created_at=NOW,
                    expires_at=NOW + text(f"interval '{int(seconds)} seconds'"),
                )
            )
        return written, made

    def adopt(self, account: Account, droplet: Droplet, custom_data: str | None = None) -> Account:
        """From now on this is the account's droplet. Raises Conflict."""
        values = {
            "do_droplet_id": droplet.id,
            "do_droplet_name": droplet.name,
            "do_server_status": droplet.status,
            "do_ip_address": droplet.address or None,
            "do_region": droplet.region,
            "custom_data": custom_data or account.custom_data,
            "create_started_at": account.create_started_at or NOW,
            "status": State.PROVISIONING,
            "status_reason": "creating",
            "status_detail": "",
        }
        with self._engine.begin() as db:
            write_began(db, account.id, droplet, json.loads(custom_data) if custom_data else {})
            return write_change(db, account, "adopt", "", f"droplet {droplet.id}", values)

    def condemn(self, account: Account, droplet_id: int, reason: str) -> Account:
        """A tombstone: the account's droplet may be deleted from now on, and nothing takes that back.

        One that never enrolled counts as a vain attempt. Raises Conflict: what was decided may not be
        wanted any more.
        """
        vain = {"create_attempts": account.create_attempts + 1} if reason == NEVER_ENROLLED else {}
        with self._engine.begin() as db:
            _condemn(db, account.id, droplet_id, reason)
            return write_change(db, account, "remove", "", f"droplet {droplet_id}: {reason}", vain)

    def condemn_unknown(self, account_id: str, droplet_id: int, reason: str) -> None:
        """A tombstone for a droplet that this database doesn't know; `account_id` as its tag has it."""
        with self._engine.begin() as db:
            _condemn(db, account_id, droplet_id, reason)

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
            db.execute(done.values(gone_at=func.coalesce(fleet_tombstones.c.gone_at, NOW)))
            write_ended(db, droplet_id)
            return write_change(db, account, "gone", "", f"droplet {droplet_id}", values)

    def forget(self, account: Account) -> Account:
        """A deleted account's credentials and alerts are wiped; row and history stay. Raises Conflict."""
        wiped: dict[str, Any] = dict.fromkeys(
            ("key_name", "sealed_data_key", "sealed_username", "sealed_password", "sealed_gateway_token")
        )
        values = {"status": State.DELETED, "status_reason": "", "status_detail": "", **wiped}
        with self._engine.begin() as db:
            db.execute(delete(account_alerts).where(account_alerts.c.account_id == account.id))
            return write_change(db, account, "", "", "", values)

    def begin_push(self, account: Account, restart: bool = False) -> tuple[Account, int, datetime]:
        """Writes down which droplet may hold the credentials, and takes the next number. Raises Conflict.

        The number is at least the clock's milliseconds, so that it goes on rising after the database was
        restored from a backup. A restart that isn't known to be done keeps its number (as the account's
        action), so that the agent, which may have done it, doesn't do it again.
        """
        column = broker_accounts.c
        # The statement's clock, which stands still in it: the number is written twice, and must be one.
        clock = func.extract("epoch", func.statement_timestamp()) * 1000
        following = func.greatest(column.push_sequence + 1, clock.cast(column.push_sequence.type))
        pending = account.action_id if account.action_kind == RESTART else None
        number = following if pending is None or not restart else literal(pending)
        action: dict[str, Any] = {"action_kind": RESTART, "action_id": number} if restart else {}
        if not restart and pending is not None:
            action = {"action_kind": None, "action_id": None}
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
                    push_sequence=number,
                    **action,
                    version=column.version + 1,
                    updated_at=NOW,
                )
                .returning(column.push_sequence, NOW, *ACCOUNT_COLUMNS)
            ).first()
        if row is None:
            raise Conflict(account.id)
        return read_account(row[2:]), row[0], row[1]


def _condemn(db: Connection, account_id: str, droplet_id: int, reason: str) -> None:
    made = insert(fleet_tombstones).values(
        droplet_id=droplet_id, account_id=account_id, reason=reason, created_at=NOW
    )
    db.execute(made.on_conflict_do_nothing())
