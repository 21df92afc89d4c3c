"""The tables. In the service `broker/service/migrations` makes them; a test compares."""

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
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

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
    Column("stop_price", Double),
    Column("notional", Double),
    Column("trail_amount", Double),
    Column("trail_percent", Double),
    Column("take_profit_price", Double),
    Column("stop_loss_price", Double),
    Column("extended_hours", Boolean, nullable=False, server_default=false()),
    Column("commission", Double),
    Column("parent_id", String(32)),
    Column("replaces", String(32)),
    Column("legs", JSON, nullable=False, server_default=text("'[]'")),
    #: a replacement that was sent and isn't confirmed yet
    Column("change", JSON(none_as_null=True)),
    #: the body as it was asked for, once a replacement has changed it
    Column("asked", JSON(none_as_null=True)),
    UniqueConstraint("account", "client_order_id", name="uq_orders_account_client_order_id"),
)
Index("ix_orders_account_created_at", orders.c.account, orders.c.created_at)
Index("ix_orders_account_permanent_id", orders.c.account, orders.c.permanent_id)

#: what happened to each order after it was entered, see `broker.timeline`
order_timeline = Table(
    "order_timeline",
    metadata,
    Column("order_id", String(32), primary_key=True),
    #: from 1, in the order in which the lines were written
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("status", String(32)),
    #: the status until then
    Column("was", String(32)),
    Column("broker_status", String(64)),
    Column("text", Text),
    Column("code", String(64)),
    Column("detail", JSON(none_as_null=True)),
)

#: executions; a correction takes the place of what it corrects
fills = Table(
    "fills",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False),
    #: the broker's id without what counts corrections
    Column("execution", String(128), nullable=False),
    Column("revision", Integer, nullable=False, server_default="0"),
    Column("execution_id", String(128), nullable=False),
    Column("order_id", String(32), nullable=False, server_default=""),
    Column("client_order_id", String(64), nullable=False, server_default=""),
    Column("symbol", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("qty", Double, nullable=False),
    Column("price", Double, nullable=False),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("commission", Double),
    Column("currency", String(8), nullable=False, server_default="USD"),
    UniqueConstraint("account", "execution", name="uq_fills_account_execution"),
)
Index("ix_fills_account_time", fills.c.account, fills.c.time)
Index("ix_fills_account_symbol", fills.c.account, fills.c.symbol)
Index("ix_fills_order_id", fills.c.order_id)

#: positions as last compared with the fills; a row with an empty symbol says that an account was compared
positions = Table(
    "positions",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("qty", Double, nullable=False),
    #: what all fills known then add up to, sales negative
    Column("filled", Double, nullable=False),
    Column("compared_at", DateTime(timezone=True), nullable=False),
)

#: which certificate a Client Portal gateway shows, see `broker.pins`
gateway_certificates = Table(
    "gateway_certificates",
    metadata,
    #: host:port
    Column("gateway", String(262), primary_key=True),
    #: PEM
    Column("certificate", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("pinned_at", DateTime(timezone=True), nullable=False),
    Column("pinned_by", String(256), nullable=False),
)

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
