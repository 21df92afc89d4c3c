"""What accounts were worth, for the dashboard's plots."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "account_values",
        sa.Column("connection", sa.String(64), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
    )


def downgrade() -> None:
    """Forget the values: they are for looking at only."""
    op.drop_table("account_values")
