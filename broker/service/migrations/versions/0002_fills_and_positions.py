"""Order types beyond market and limit, fills with commissions, and positions as last compared."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_PRICES = ("stop_price", "notional", "trail_amount", "trail_percent", "take_profit_price", "stop_loss_price")
_ADDED = (*_PRICES, "extended_hours", "commission", "parent_id", "replaces", "legs", "change", "asked")


def upgrade() -> None:
    """Add the columns with defaults that hold for older rows, and make both tables.

    The revision before this one goes on working beside it: it neither reads nor must write what is new.
    """
    for name in (*_PRICES, "commission"):
        op.add_column("orders", sa.Column(name, sa.Double))
    op.add_column(
        "orders", sa.Column("extended_hours", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("orders", sa.Column("parent_id", sa.String(32)))
    op.add_column("orders", sa.Column("replaces", sa.String(32)))
    op.add_column("orders", sa.Column("legs", sa.JSON, nullable=False, server_default=sa.text("'[]'")))
    op.add_column("orders", sa.Column("change", sa.JSON))
    op.add_column("orders", sa.Column("asked", sa.JSON))
    op.create_table(
        "fills",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("execution", sa.String(128), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
        sa.Column("execution_id", sa.String(128), nullable=False),
        sa.Column("order_id", sa.String(32), nullable=False, server_default=""),
        sa.Column("client_order_id", sa.String(64), nullable=False, server_default=""),
        sa.Column("symbol", sa.String(32), nullable=False),
        sa.Column("side", sa.String(4), nullable=False),
        sa.Column("qty", sa.Double, nullable=False),
        sa.Column("price", sa.Double, nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("commission", sa.Double),
        sa.Column("currency", sa.String(8), nullable=False, server_default="USD"),
        sa.UniqueConstraint("account", "execution", name="uq_fills_account_execution"),
    )
    op.create_index("ix_fills_account_time", "fills", ["account", "time"])
    op.create_index("ix_fills_account_symbol", "fills", ["account", "symbol"])
    op.create_index("ix_fills_order_id", "fills", ["order_id"])
    op.create_table(
        "positions",
        sa.Column("account", sa.String(64), primary_key=True),
        sa.Column("symbol", sa.String(32), primary_key=True),
        sa.Column("qty", sa.Double, nullable=False),
        sa.Column("filled", sa.Double, nullable=False),
        sa.Column("compared_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Drop what was added. Orders of the new types stay, without the prices that make them so."""
    op.drop_table("positions")
    op.drop_index("ix_fills_order_id", table_name="fills")
    op.drop_index("ix_fills_account_symbol", table_name="fills")
    op.drop_index("ix_fills_account_time", table_name="fills")
    op.drop_table("fills")
    for name in reversed(_ADDED):
        op.drop_column("orders", name)
