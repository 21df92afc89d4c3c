"""Enrolments in PostgreSQL: looked up by their token, used once, refusals counted."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Row, select, update

from broker.fleet.account import Account
from broker.fleet.models import enrolments
from broker.fleet.rows import NOW, Conflict, Rows, write_change


class EnrolmentRows(Rows):
    """What droplets that make themselves known need. Blocking; usable from several threads."""

    def find_enrolment(self, account_id: str, token: str) -> Row[Any] | None:
        """The enrolment of a token: id, used_at, whether it is expired. None for a token that isn't one."""
        column = enrolments.c
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        query = select(column.id, column.used_at, (column.expires_at <= NOW).label("expired")).where(
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
                .where(column.id == enrolment, column.used_at.is_(None), column.expires_at > NOW)
                .values(used_at=NOW, droplet_id=account.do_droplet_id)
            )
            if used.rowcount != 1:
                raise Conflict(account.id)
            values = {
                "certificate": certificate,
                "certificate_sha256": digest,
                "certificate_droplet_id": account.do_droplet_id,
                "create_attempts": 0,
            }
            return write_change(db, account, "enrolled", "", f"droplet {account.do_droplet_id}", values)

    def refuse_enrolment(self, enrolment: str) -> None:
        """Counts a refusal."""
        column = enrolments.c
        with self._engine.begin() as db:
            db.execute(update(enrolments).where(column.id == enrolment).values(refused=column.refused + 1))
