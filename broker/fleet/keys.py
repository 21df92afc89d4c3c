"""The fleet's own secrets in the database, and the change of the wrapping key.

The key that signs pushes and the one that hashes IBKR user names are made at their first use, by whichever
instance comes first, and sealed like credentials.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Engine, Table, func, select, update
from sqlalchemy.dialects.postgresql import insert

from broker.fleet.models import account_alerts, broker_accounts, fleet_keys
from broker.fleet.vault import Sealed, Vault

_BATCH = 500


class FleetKeys:
    """The signing key of pushes and the hash key of user names. Usable from any thread."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        """Reads both, makes what isn't there. Raises SQLAlchemyError and VaultError."""
        signing = base64.b64decode(_secret(engine, vault, "push"))
        self._signing = Ed25519PrivateKey.from_private_bytes(signing)
        self._hashing = base64.b64decode(_secret(engine, vault, "username"))

    @property
    def push_key(self) -> str:
        """What a droplet checks pushes with: the raw public key, base64."""
        public = self._signing.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(public).decode()

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature."""
        return self._signing.sign(message)

    def username_hash(self, ib_username: str) -> str:
        """64 hexadecimal digits, the same for names that IBKR takes for the same (it ignores case)."""
        return hmac.new(self._hashing, ib_username.casefold().encode(), hashlib.sha256).hexdigest()


def _secret(engine: Engine, vault: Vault, name: str) -> str:
    column = fleet_keys.c
    query = select(column.key_name, column.sealed_data_key, column.sealed_value).where(column.name == name)
    with engine.begin() as db:
        row = db.execute(query).first()
        if row is None:
            sealed = vault.seal(name, {"value": base64.b64encode(secrets.token_bytes(32)).decode()})
            made = insert(fleet_keys).values(
                name=name,
                key_name=sealed.key_name,
                sealed_data_key=sealed.data_key,
                sealed_value=sealed.values["value"],
                created_at=func.clock_timestamp(),
            )
            db.execute(made.on_conflict_do_nothing())
            row = db.execute(query).one()  # another instance may have been first
    return vault.unseal(name, Sealed(row[0], row[1], {"value": row[2]}))["value"]


def rewrap(engine: Engine, vault: Vault) -> int:
    """Wraps every data key by the current wrapping key; how many weren't. Safe to repeat and to break off.

    The service may run meanwhile: a row that it writes at the same moment is left to the writer, whose
    key is the current one. Raises SQLAlchemyError and VaultError.
    """
    tables = ((broker_accounts, "id"), (account_alerts, "account_id"), (fleet_keys, "name"))
    return sum(_rewrap(engine, vault, table, owner) for table, owner in tables)


def _rewrap(engine: Engine, vault: Vault, table: Table, owner: str) -> int:
    changed, last = 0, ""
    key = table.c[owner]
    query = select(key, table.c.key_name, table.c.sealed_data_key).where(table.c.sealed_data_key.is_not(None))
    while True:
        with engine.connect() as db:
            rows = db.execute(query.where(key > last).order_by(key).limit(_BATCH)).all()
        if not rows:
            return changed
        for name, key_name, data_key in rows:
            wrapped = vault.rewrap(name, key_name, data_key)
            if wrapped is None:
                continue
            same = (key == name) & (table.c.sealed_data_key == data_key)
            values = {"key_name": wrapped[0], "sealed_data_key": wrapped[1]}
            with engine.begin() as db:
                changed += db.execute(update(table).where(same).values(values)).rowcount
        last = rows[-1][0]
