"""Users' gateways: accounts, history, enrolments, tombstones, quarantine, keys and the lease."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEPT = sa.text("wanted <> 'deleted'")


def _moment(name: str, nullable: bool = True) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    """Make the seven tables."""
    op.create_table(
        "broker_accounts",
        sa.Column("id", sa.String(48), primary_key=True),
        sa.Column("user_id", sa.String(256), nullable=False),
        sa.Column("username", sa.String(64), nullable=False),
        sa.Column("username_index", sa.Integer, nullable=False),
        sa.Column("environment", sa.String(8), nullable=False),
        sa.Column("ib_username_hash", sa.String(64), nullable=False),
        sa.Column("wanted", sa.String(12), nullable=False),
        sa.Column("policy", sa.String(64), nullable=False, server_default="always"),
        sa.Column("unattended_live", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("status_reason", sa.String(64), nullable=False, server_default=""),
        sa.Column("status_detail", sa.Text, nullable=False, server_default=""),
        _moment("status_since", nullable=False),
        sa.Column("custom_data", sa.Text),
        sa.Column("do_droplet_id", sa.BigInteger),
        sa.Column("do_droplet_name", sa.String(255)),
        sa.Column("do_server_status", sa.String(16)),
        sa.Column("do_ip_address", sa.String(64)),
        sa.Column("do_region", sa.String(32)),
        _moment("do_last_status_check"),
        sa.Column("key_name", sa.String(512)),
        sa.Column("sealed_data_key", sa.LargeBinary),
        sa.Column("sealed_username", sa.LargeBinary),
        sa.Column("sealed_password", sa.LargeBinary),
        sa.Column("sealed_gateway_token", sa.LargeBinary),
        sa.Column("credentials_version", sa.Integer, nullable=False, server_default="1"),
        sa.Column("pushed_version", sa.Integer, nullable=False, server_default="0"),
        sa.Column("credentials_droplet_id", sa.BigInteger),
        sa.Column("push_sequence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("boot_id", sa.String(64), nullable=False, server_default=""),
        sa.Column("certificate", sa.Text),
        sa.Column("certificate_sha256", sa.String(64)),
        sa.Column("certificate_droplet_id", sa.BigInteger),
        sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
        _moment("create_started_at"),
        sa.Column("create_attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("action_kind", sa.String(16)),
        sa.Column("action_id", sa.BigInteger),
        _moment("action_since"),
        _moment("login_since"),
        sa.Column("failed_logins", sa.Integer, nullable=False, server_default="0"),
        _moment("retry_at"),
        _moment("restart_wanted_at"),
        _moment("last_used_at"),
        sa.Column("idempotency_key", sa.String(128)),
        sa.Column("idempotency_hash", sa.String(64)),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
        _moment("created_at", nullable=False),
        _moment("updated_at", nullable=False),
        sa.UniqueConstraint(
            "username", "environment", "username_index", name="uq_broker_accounts_droplet_name"
        ),
    )
    op.create_index(
        "uq_broker_accounts_ib_username",
        "broker_accounts",
        ["user_id", "environment", "ib_username_hash"],
        unique=True,
        postgresql_where=_KEPT,
    )
    op.create_index(
        "uq_broker_accounts_idempotency_key",
        "broker_accounts",
        ["user_id", "idempotency_key"],
        unique=True,
        postgresql_where=_KEPT,
    )
    op.create_index("ix_broker_accounts_user_id_created_at", "broker_accounts", ["user_id", "created_at"])
    op.create_table(
        "broker_account_events",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
        sa.Column("account_id", sa.String(48), sa.ForeignKey("broker_accounts.id"), nullable=False),
        _moment("at", nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("caused_by", sa.String(256), nullable=False),
    )
    op.create_index("ix_broker_account_events_account_id_id", "broker_account_events", ["account_id", "id"])
    op.create_table(
        "enrolments",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("token_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("account_id", sa.String(48), sa.ForeignKey("broker_accounts.id"), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        _moment("created_at", nullable=False),
        _moment("expires_at", nullable=False),
        _moment("used_at"),
        sa.Column("droplet_id", sa.BigInteger),
        sa.Column("refused", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_index("ix_enrolments_account_id", "enrolments", ["account_id"])
    op.create_table(
        "fleet_tombstones",
        sa.Column("droplet_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("account_id", sa.String(48), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        _moment("created_at", nullable=False),
        _moment("gone_at"),
    )
    op.create_table(
        "fleet_quarantine",
        sa.Column("droplet_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("account_id", sa.String(255), nullable=False),
        _moment("first_seen", nullable=False),
        _moment("last_seen", nullable=False),
    )
    op.create_table(
        "fleet_keys",
        sa.Column("name", sa.String(48), primary_key=True),
        sa.Column("key_name", sa.String(512), nullable=False),
        sa.Column("sealed_data_key", sa.LargeBinary, nullable=False),
        sa.Column("sealed_value", sa.LargeBinary, nullable=False),
        _moment("created_at", nullable=False),
    )
    op.create_table(
        "fleet_lease",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("holder", sa.String(64), nullable=False),
        _moment("expires_at", nullable=False),
    )


def downgrade() -> None:
    """Drop them. Droplets of accounts are forgotten and go on being billed: delete the accounts first."""
    for table in (
        "fleet_lease",
        "fleet_keys",
        "fleet_quarantine",
        "fleet_tombstones",
        "enrolments",
        "broker_account_events",
        "broker_accounts",
    ):
        op.drop_table(table)
