"""Orders (the journal) and leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "orders",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("client_order_id", sa.String(64), nullable=False),
        sa.Column("symbol", sa.String(32), nullable=False),
        sa.Column("side", sa.String(4), nullable=False),
        sa.Column("qty", sa.Double, nullable=False),
        sa.Column("order_type", sa.String(16), nullable=False),
        sa.Column("limit_price", sa.Double),
        sa.Column("time_in_force", sa.String(8), nullable=False),
        sa.Column("placed_by", sa.String(256), nullable=False, server_default=""),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("broker_status", sa.String(64)),
        sa.Column("broker_order_id", sa.String(64)),
        sa.Column("permanent_id", sa.String(64)),
        sa.Column("reason", sa.Text),
        sa.Column("reason_code", sa.String(64)),
        sa.Column("warnings", sa.JSON, nullable=False),
        sa.Column("filled_qty", sa.Double, nullable=False),
        sa.Column("filled_price", sa.Double),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("account", "client_order_id", name="uq_orders_account_client_order_id"),
    )
    op.create_index("ix_orders_account_created_at", "orders", ["account", "created_at"])
    op.create_index("ix_orders_account_permanent_id", "orders", ["account", "permanent_id"])
    op.create_table(
        "leases",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("holder", sa.String(64), nullable=False, server_default=""),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("wanted_by", sa.String(64), nullable=False, server_default=""),
        sa.Column("wanted_at", sa.DateTime(timezone=True)),
    )


def downgrade() -> None:
    """Drop both tables, and with them what was sent: only for an environment that is given up."""
    op.drop_table("leases")
    op.drop_index("ix_orders_account_permanent_id", table_name="orders")
    op.drop_index("ix_orders_account_created_at", table_name="orders")
    op.drop_table("orders")
