"""The certificates that Client Portal gateways were first seen with."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "gateway_certificates",
        sa.Column("gateway", sa.String(262), primary_key=True),
        sa.Column("certificate", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("pinned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("pinned_by", sa.String(256), nullable=False),
    )


def downgrade() -> None:
    """Forget the pins: after the next upgrade the certificate that is seen first is pinned again."""
    op.drop_table("gateway_certificates")
