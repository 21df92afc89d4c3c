"""Where the users of accounts are alerted."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "account_alerts",
        sa.Column("account_id", sa.String(48), sa.ForeignKey("broker_accounts.id"), primary_key=True),
        sa.Column("scheme", sa.String(16), nullable=False),
        sa.Column("key_name", sa.String(512), nullable=False),
        sa.Column("sealed_data_key", sa.LargeBinary, nullable=False),
        sa.Column("sealed_alert_url", sa.LargeBinary, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Forget the addresses: users enter them again after the next upgrade."""
    op.drop_table("account_alerts")
