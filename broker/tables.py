"""The tables. In the service `broker/service/migrations` makes them; a test compares."""

from __future__ import annotations

from sqlalchemy import JSON, Column, DateTime, Double, Index, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()

orders = Table(
    "orders",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("client_order_id", String(64), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("qty", Double, nullable=False),
    Column("order_type", String(16), nullable=False),
    Column("limit_price", Double),
    Column("time_in_force", String(8), nullable=False),
    Column("placed_by", String(256), nullable=False, server_default=""),
    Column("status", String(32), nullable=False),
    Column("broker_status", String(64)),
    Column("broker_order_id", String(64)),
    Column("permanent_id", String(64)),
    Column("reason", Text),
    Column("reason_code", String(64)),
    Column("warnings", JSON, nullable=False),
    Column("filled_qty", Double, nullable=False),
    Column("filled_price", Double),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("sent_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("account", "client_order_id", name="uq_orders_account_client_order_id"),
)
Index("ix_orders_account_created_at", orders.c.account, orders.c.created_at)
Index("ix_orders_account_permanent_id", orders.c.account, orders.c.permanent_id)

#: who holds what only one process may hold; times are the database's, never a client's
leases = Table(
    "leases",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("holder", String(64), nullable=False, server_default=""),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    #: who asked for the hand-over, and when
    Column("wanted_by", String(64), nullable=False, server_default=""),
    Column("wanted_at", DateTime(timezone=True)),
)
