"""What limits, kill switch and live lock remember."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the four tables."""
    op.create_table(
        "trading_switches",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("halted", sa.Boolean, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True)),
        sa.Column("changed_by", sa.String(256), nullable=False, server_default=""),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
    )
    op.create_table(
        "trading_switch_changes",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_by", sa.String(256), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "order_admissions",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("client_order_id", sa.String(64), nullable=False),
        sa.Column("symbol", sa.String(32), nullable=False),
        sa.Column("side", sa.String(4), nullable=False),
        sa.Column("qty", sa.Double, nullable=False),
        sa.Column("reduces", sa.Boolean, nullable=False),
        sa.Column("admitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("account", "client_order_id", name="uq_order_admissions_account_client_order_id"),
    )
    op.create_index("ix_order_admissions_account_admitted_at", "order_admissions", ["account", "admitted_at"])
    op.create_table(
        "live_verifications",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("gateway", sa.String(64), nullable=False),
        sa.Column("verified_by", sa.String(256), nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("results", sa.JSON, nullable=False),
    )
    op.create_index("ix_live_verifications_account_gateway", "live_verifications", ["account", "gateway"])


def downgrade() -> None:
    """Drop them. A halt is forgotten with its table: only while nothing trades."""
    op.drop_index("ix_live_verifications_account_gateway", table_name="live_verifications")
    op.drop_table("live_verifications")
    op.drop_index("ix_order_admissions_account_admitted_at", table_name="order_admissions")
    op.drop_table("order_admissions")
    op.drop_table("trading_switch_changes")
    op.drop_table("trading_switches")
