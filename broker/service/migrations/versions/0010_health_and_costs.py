"""What the dashboard's health page and costs are made of: past alerts, past passes, past droplets."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make them; of the droplets before this there are those that accounts have now."""
    op.create_table(
        "account_droplets",
        sa.Column("droplet_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("account_id", sa.String(48), sa.ForeignKey("broker_accounts.id"), nullable=False),
        sa.Column("size", sa.String(64), nullable=False),
        sa.Column("price_monthly", sa.Double),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_account_droplets_account_id", "account_droplets", ["account_id"])
    op.execute(
        "insert into account_droplets (droplet_id, account_id, size, price_monthly, began_at)"
        " select do_droplet_id, id, coalesce(custom_data::json ->> 'size', ''),"
        " (custom_data::json ->> 'price_monthly')::double precision, coalesce(create_started_at, created_at)"
        " from broker_accounts where do_droplet_id is not null"
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("ix_alerts_at", "alerts", ["at"])
    op.add_column("fleet_lease", sa.Column("passed_at", sa.DateTime(timezone=True)))
    op.add_column("fleet_lease", sa.Column("passed", sa.Text))


def downgrade() -> None:
    """Forget them: they are for looking at only."""
    op.drop_column("fleet_lease", "passed")
    op.drop_column("fleet_lease", "passed_at")
    op.drop_table("alerts")
    op.drop_table("account_droplets")
