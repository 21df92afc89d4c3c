"""The tables of limits, kill switch and live lock: beside the orders, so that they share transactions."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from broker.tables import metadata

#: SQLite numbers rows by itself only where the key is INTEGER
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

#: one row, `name` "all": whether orders may leave
switches = Table(
    "trading_switches",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("halted", Boolean, nullable=False),
    Column("changed_at", DateTime(timezone=True)),
    Column("changed_by", String(256), nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
)

#: every halt and resume, for the question "who, when, why" afterwards
switch_changes = Table(
    "trading_switch_changes",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("action", String(8), nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    Column("changed_by", String(256), nullable=False),
    Column("reason", Text, nullable=False),
)

#: orders that the limits let through: what is counted against the next one, in any process
admissions = Table(
    "order_admissions",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False),
    Column("client_order_id", String(64), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("qty", Double, nullable=False),
    Column("reduces", Boolean, nullable=False),
    Column("admitted_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("account", "client_order_id", name="uq_order_admissions_account_client_order_id"),
    # Numbers tell what came later, so a deleted row's isn't given again.
    sqlite_autoincrement=True,
)
Index("ix_order_admissions_account_admitted_at", admissions.c.account, admissions.c.admitted_at)

#: what `make verify` found out about a gateway
verifications = Table(
    "live_verifications",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False),
    Column("gateway", String(64), nullable=False),
    Column("verified_by", String(256), nullable=False),
    Column("verified_at", DateTime(timezone=True), nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("results", JSON, nullable=False),
)
Index("ix_live_verifications_account_gateway", verifications.c.account, verifications.c.gateway)
