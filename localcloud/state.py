"""The local cloud's memory: one SQLite file, every value in it encrypted.

Kind, id and key of a row are readable (they are names); what was declared is not, because it holds
passwords and tokens. The key lies beside the store in a file that only its owner can read: that
guards a copied or backed-up store, not a machine that somebody else controls.
"""

# ruff: noqa: A002 -- `type` and `id` are what Pulumi calls them
from __future__ import annotations

import copy
import json
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class StoreDamagedError(Exception):
    """The store can't be read with the key beside it. Remove the home folder to start anew."""


@dataclass
class Resource:
    """One thing that exists in the cloud, as Pulumi sees it (camelCase inputs and outputs)."""

    type: str
    id: str
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)


class Store:
    """Resources and free-form notes. What it returns are copies: change one, then `put` it.

    It is read whole when opened (a stack is some hundred rows) and written through, so that reads
    cost no disk and a daemon killed at any moment loses nothing that was acknowledged.
    """

    def __init__(self, database: sqlite3.Connection, key: bytes) -> None:
        self._database = database
        self.revision = 0  # grows with every change, so that what is derived from it can be cached
        self._cipher = AESGCM(key)
        self._resources: dict[str, dict[str, Resource]] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._load()

    @classmethod
    def open(cls, home: Path) -> Store:
        """Open or create the store in `home`. Raises `StoreDamagedError` when the key doesn't fit."""
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = home / "store.sqlite"
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS resources"
            " (type TEXT, id TEXT, value BLOB NOT NULL, PRIMARY KEY (type, id))"
        )
        database.execute(
            "CREATE TABLE IF NOT EXISTS notes"
            " (namespace TEXT, key TEXT, value BLOB NOT NULL, PRIMARY KEY (namespace, key))"
        )
        return cls(database, _key(home / "store.key"))

    def close(self) -> None:
        """Close the file. The store can't be used afterwards."""
        self._database.close()

    def get(self, type: str, id: str) -> Resource | None:
        """The resource of that type and id, or None."""
        found = self._resources.get(type, {}).get(id)
        return copy.deepcopy(found) if found else None

    def put(self, resource: Resource) -> None:
        """Create or replace a resource."""
        self.revision += 1
        value = self.seal([resource.inputs, resource.outputs], f"r/{resource.type}/{resource.id}")
        self._database.execute(
            "INSERT INTO resources VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (resource.type, resource.id, value),
        )
        self._resources.setdefault(resource.type, {})[resource.id] = copy.deepcopy(resource)

    def delete(self, type: str, id: str) -> None:
        """Forget a resource. Forgetting what isn't there is not an error."""
        self.revision += 1
        self._database.execute("DELETE FROM resources WHERE type = ? AND id = ?", (type, id))
        self._resources.get(type, {}).pop(id, None)

    def all(self, type: str) -> list[Resource]:
        """Every resource of a type, in the order of creation."""
        return [copy.deepcopy(found) for found in self._resources.get(type, {}).values()]

    def find(self, type: str, **input_equals: Any) -> list[Resource]:
        """Resources of a type whose inputs have exactly these values."""
        return [
            copy.deepcopy(found)
            for found in self._resources.get(type, {}).values()
            if all(found.inputs.get(name) == value for name, value in input_equals.items())
        ]

    def note(self, namespace: str, key: str, value: Any) -> None:
        """Remember a JSON value under a name: reserved names, machine specs, keys ..."""
        self.revision += 1
        sealed = self.seal(value, f"n/{namespace}/{key}")
        self._database.execute(
            "INSERT INTO notes VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (namespace, key, sealed),
        )
        self._notes.setdefault(namespace, {})[key] = copy.deepcopy(value)

    def notes(self, namespace: str) -> dict[str, Any]:
        """Everything noted in a namespace, in the order of first writing."""
        return copy.deepcopy(self._notes.get(namespace, {}))

    def noted(self, namespace: str, key: str) -> Any:
        """One note, or None."""
        return copy.deepcopy(self._notes.get(namespace, {}).get(key))

    def forget(self, namespace: str, key: str) -> None:
        """Forget a note. Forgetting what isn't there is not an error."""
        self.revision += 1
        self._database.execute("DELETE FROM notes WHERE namespace = ? AND key = ?", (namespace, key))
        self._notes.get(namespace, {}).pop(key, None)

    def seal(self, value: Any, purpose: str) -> bytes:
        """Encrypt a JSON value. It can be opened only for the same `purpose`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, json.dumps(value).encode(), purpose.encode())

    def unseal(self, sealed: bytes, purpose: str) -> Any:
        """Open what `seal` made. Raises `StoreDamagedError` for anything else."""
        try:
            opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
        except (InvalidTag, ValueError):
            raise StoreDamagedError(
                "The local cloud's store can't be read with its key (store.key); "
                "stop the local cloud and remove its home folder to start anew."
            ) from None
        return json.loads(opened)

    def _load(self) -> None:
        for type_, id_, value in self._database.execute(
            "SELECT type, id, value FROM resources ORDER BY rowid"
        ):
            inputs, outputs = self.unseal(value, f"r/{type_}/{id_}")
            self._resources.setdefault(type_, {})[id_] = Resource(type_, id_, inputs, outputs)
        for namespace, key, value in self._database.execute(
            "SELECT namespace, key, value FROM notes ORDER BY rowid"
        ):
            self._notes.setdefault(namespace, {})[key] = self.unseal(value, f"n/{namespace}/{key}")


def _key(path: Path) -> bytes:
    """The store's key, made at the first start. Written in one step: a half key would lose a store."""
    if not path.exists():
        draft = path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(AESGCM.generate_key(bit_length=256))
            os.fsync(file.fileno())
        draft.rename(path)
    return path.read_bytes()
