"""The exchange's book on disk: one SQLite file, in which everything a restart must find again is kept.

Rows are JSON documents under a key: the shapes are those of the dataclasses, and the file belongs to this
program alone. Writes are grouped by `commit`.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    kind TEXT NOT NULL, key TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (kind, key)
)
"""


class Book:
    """Documents by kind (users, accounts, positions, orders, executions, prices, settings) and key."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "exchange.sqlite3"
        # Password hashes live in it: nobody but the owner reads the file.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(SCHEMA)
        self._database.commit()

    def put(self, kind: str, key: str, document: dict[str, Any]) -> None:
        """Writes a document; durable after `commit`."""
        self._database.execute(
            "INSERT INTO documents VALUES (?, ?, ?)"
            " ON CONFLICT (kind, key) DO UPDATE SET document = excluded.document",
            (kind, key, json.dumps(document)),
        )

    def delete(self, kind: str, key: str) -> None:
        """Removes a document if it is there."""
        self._database.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key))

    def all(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """All documents of a kind with their keys, in the order in which they were first written."""
        rows = self._database.execute(
            "SELECT key, document FROM documents WHERE kind = ? ORDER BY rowid", (kind,)
        )
        for key, document in rows:
            yield key, json.loads(document)

    def commit(self) -> None:
        """Makes everything written so far survive a crash of this process."""
        self._database.commit()

    def close(self) -> None:
        """Commits and closes the file."""
        self._database.commit()
        self._database.close()
