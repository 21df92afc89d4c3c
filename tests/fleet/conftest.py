"""A real PostgreSQL for the fleet's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from broker.fleet.vault import LocalKeyWrapper, Vault
from broker.service.database import make_engine
from tests.service.conftest import empty_database, migrated, postgres

__all__ = ["empty_database", "migrated", "postgres"]

_TABLES = (
    "broker_accounts, broker_account_events, enrolments, fleet_tombstones, fleet_quarantine, fleet_keys,"
    " fleet_lease"
)


def clear(engine: Engine) -> None:
    """Empties the fleet's tables."""
    with engine.begin() as db:
        db.execute(text(f"truncate {_TABLES} cascade"))


@pytest.fixture(scope="session")
def fleet_engine(migrated: str) -> Iterator[Engine]:
    made = make_engine(migrated)
    yield made
    made.dispose()


@pytest.fixture
def engine(fleet_engine: Engine) -> Engine:
    """A database with the newest schema and empty tables of the fleet."""
    clear(fleet_engine)
    return fleet_engine


@pytest.fixture
def vault() -> Vault:
    return Vault(LocalKeyWrapper({"k1": b"1" * 32}))
