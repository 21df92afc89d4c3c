"""Which of a login's IBKR accounts is traded."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column: a login with one account needs no choice."""
    op.add_column(
        "broker_accounts", sa.Column("ib_account", sa.String(16), nullable=False, server_default="")
    )


def downgrade() -> None:
    """Forget what was chosen: a login with several accounts isn't traded until somebody chooses again."""
    op.drop_column("broker_accounts", "ib_account")
