"""What happened to each order, with its times."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table. Older orders have no lines in it, and their timelines say what isn't known."""
    op.create_table(
        "order_timeline",
        sa.Column("order_id", sa.String(32), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("status", sa.String(32)),
        sa.Column("was", sa.String(32)),
        sa.Column("broker_status", sa.String(64)),
        sa.Column("text", sa.Text),
        sa.Column("code", sa.String(64)),
        sa.Column("detail", sa.JSON),
    )


def downgrade() -> None:
    """Forget what happened in between; the orders stay as they are now."""
    op.drop_table("order_timeline")
