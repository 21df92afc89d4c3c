"""The certificates of gateways, in the journal's database: the first one seen is the gateway's from then on.

In the service `broker/service/migrations` makes the table. A certificate that was accepted by a person takes
the place of the pinned one at the next connection of every process; none has to be started again.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from broker.errors import JournalUnavailable
from broker.tables import gateway_certificates

log = logging.getLogger(__name__)

T = TypeVar("T")
#: who pinned a certificate that nobody accepted
FIRST_SEEN = "first seen"
_ROW = gateway_certificates.c


@dataclass(frozen=True)
class Pinned:
    """A gateway's certificate: its SHA-256 (hex), since when (UTC) and by whom it is pinned."""

    gateway: str
    sha256: str
    pinned_at: datetime
    pinned_by: str


def gateway_of(url: str) -> str:
    """Host and port of a gateway's address."""
    address = urlsplit(url)
    return f"{(address.hostname or '').lower()}:{address.port or 443}"


class PinnedCertificates:
    """The table. Blocking, and usable from any thread. All raise `JournalUnavailable`."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._clock = clock

    def first_seen(self, gateway: str, certificate: bytes) -> str:
        """The SHA-256 of the gateway's certificate: the pinned one, or this (DER), pinned by the call."""

        def work(db: Connection) -> str:
            made = _insert(db, self._values(gateway, certificate, FIRST_SEEN)).on_conflict_do_nothing()
            new = db.execute(made.execution_options(preserve_rowcount=True)).rowcount == 1
            found = str(db.execute(select(_ROW.sha256).where(_ROW.gateway == gateway)).scalar_one())
            if new:
                log.warning("the certificate of %s is pinned as first seen: sha256 %s", gateway, found)
            return found

        return self._do(work)

    def find(self, gateway: str) -> Pinned | None:
        """The pinned certificate, or None: there was no connection yet."""
        query = select(_ROW.gateway, _ROW.sha256, _ROW.pinned_at, _ROW.pinned_by)
        row = self._do(lambda db: db.execute(query.where(_ROW.gateway == gateway)).first())
        if row is None:
            return None
        # SQLite gives times back without their zone; they were stored in UTC.
        moment = row.pinned_at if row.pinned_at.tzinfo else row.pinned_at.replace(tzinfo=UTC)
        return Pinned(row.gateway, row.sha256, moment, row.pinned_by)

    def accept(self, gateway: str, certificate: bytes, by: str) -> None:
        """From now on this certificate (DER) is the gateway's."""
        values = self._values(gateway, certificate, by[:256])

        def work(db: Connection) -> None:
            changed = {name: value for name, value in values.items() if name != "gateway"}
            db.execute(_insert(db, values).on_conflict_do_update(index_elements=["gateway"], set_=changed))

        self._do(work)
        log.warning("%s accepted another certificate of %s: sha256 %s", by, gateway, values["sha256"])

    def _values(self, gateway: str, certificate: bytes, by: str) -> dict[str, Any]:
        return {
            "gateway": gateway,
            "certificate": ssl.DER_cert_to_PEM_cert(certificate),
            "sha256": hashlib.sha256(certificate).hexdigest(),
            "pinned_at": self._clock(),
            "pinned_by": by,
        }

    def _do(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as db:
                return work(db)
        except SQLAlchemyError as failure:
            kind = type(getattr(failure, "orig", None) or failure).__name__
            raise JournalUnavailable(f"the pinned certificates can't be used: {kind}") from failure


def _insert(db: Connection, values: dict[str, Any]) -> Any:
    made = postgresql if db.dialect.name == "postgresql" else sqlite
    return made.insert(gateway_certificates).values(**values)
