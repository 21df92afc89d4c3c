"""The fleet's tables: accounts and what they want, enrolments, tombstones, quarantine, keys and the lease.

In the service `broker/service/migrations` makes them; a test compares. Times are the database's clock.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from broker.tables import metadata

_KEPT = text("wanted <> 'deleted'")

broker_accounts = Table(
    "broker_accounts",
    metadata,
    Column("id", String(48), primary_key=True),
    #: the token's subject
    Column("user_id", String(256), nullable=False),
    #: the user's part of the droplet's name, and what keeps names apart that sanitise alike
    Column("username", String(64), nullable=False),
    Column("username_index", Integer, nullable=False),
    Column("environment", String(8), nullable=False),
    #: keyed hash of the IBKR user name: unique without being readable
    Column("ib_username_hash", String(64), nullable=False),
    Column("wanted", String(12), nullable=False),
    Column("policy", String(64), nullable=False, server_default="always"),
    #: the user knows that a live login needs a person at every start, and wants a policy all the same
    Column("unattended_live", Boolean, nullable=False, server_default=false()),
    #: which of the login's IBKR accounts is the connection's own; empty while there is but one
    Column("ib_account", String(16), nullable=False, server_default=""),
    Column("status", String(16), nullable=False),
    Column("status_reason", String(64), nullable=False, server_default=""),
    Column("status_detail", Text, nullable=False, server_default=""),
    Column("status_since", DateTime(timezone=True), nullable=False),
    # The integration document's columns; custom_data is JSON: size, image, price of the droplet.
    Column("custom_data", Text),
    Column("do_droplet_id", BigInteger),
    Column("do_droplet_name", String(255)),
    Column("do_server_status", String(16)),
    Column("do_ip_address", String(64)),
    Column("do_region", String(32)),
    Column("do_last_status_check", DateTime(timezone=True)),
    # Credentials: see broker.fleet.vault. Null once the account is deleted.
    Column("key_name", String(512)),
    Column("sealed_data_key", LargeBinary),
    Column("sealed_username", LargeBinary),
    Column("sealed_password", LargeBinary),
    Column("sealed_gateway_token", LargeBinary),
    #: counts changes of the credentials; what the droplet has is `pushed_version`
    Column("credentials_version", Integer, nullable=False, server_default="1"),
    Column("pushed_version", Integer, nullable=False, server_default="0"),
    #: the one droplet that may hold the credentials, written before the first push to it
    Column("credentials_droplet_id", BigInteger),
    Column("push_sequence", BigInteger, nullable=False, server_default="0"),
    #: the boot of the droplet that was pushed to last
    Column("boot_id", String(64), nullable=False, server_default=""),
    #: the droplet's own certificate, PEM, and whose it is
    Column("certificate", Text),
    Column("certificate_sha256", String(64)),
    Column("certificate_droplet_id", BigInteger),
    #: counts the droplets that were asked for
    Column("generation", Integer, nullable=False, server_default="0"),
    #: a create that was or may have been sent and isn't known to have made a droplet
    Column("create_started_at", DateTime(timezone=True)),
    Column("create_attempts", Integer, nullable=False, server_default="0"),
    Column("action_kind", String(16)),
    Column("action_id", BigInteger),
    Column("action_since", DateTime(timezone=True)),
    #: when the gateway was given what it needs to log in
    Column("login_since", DateTime(timezone=True)),
    Column("failed_logins", Integer, nullable=False, server_default="0"),
    #: nothing is tried before
    Column("retry_at", DateTime(timezone=True)),
    Column("restart_wanted_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Column("idempotency_key", String(128)),
    Column("idempotency_hash", String(64)),
    #: counts writes: whoever writes says which one it has read
    Column("version", BigInteger, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("username", "environment", "username_index", name="uq_broker_accounts_droplet_name"),
)
Index(
    "uq_broker_accounts_ib_username",
    broker_accounts.c.user_id,
    broker_accounts.c.environment,
    broker_accounts.c.ib_username_hash,
    unique=True,
    postgresql_where=_KEPT,
)
Index(
    "uq_broker_accounts_idempotency_key",
    broker_accounts.c.user_id,
    broker_accounts.c.idempotency_key,
    unique=True,
    postgresql_where=_KEPT,
)
Index("ix_broker_accounts_user_id_created_at", broker_accounts.c.user_id, broker_accounts.c.created_at)

#: history: every change of status, and what else a person wants to know afterwards
broker_account_events = Table(
    "broker_account_events",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("account_id", String(48), ForeignKey("broker_accounts.id"), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("caused_by", String(256), nullable=False),
)
Index(
    "ix_broker_account_events_account_id_id", broker_account_events.c.account_id, broker_account_events.c.id
)

#: every droplet that an account has had: what it was billed for, see broker.fleet.bills
account_droplets = Table(
    "account_droplets",
    metadata,
    Column("droplet_id", BigInteger, primary_key=True, autoincrement=False),
    Column("account_id", String(48), ForeignKey("broker_accounts.id"), nullable=False),
    Column("size", String(64), nullable=False),
    #: dollars, as DigitalOcean told when it was made
    Column("price_monthly", Double),
    Column("began_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
)
Index("ix_account_droplets_account_id", account_droplets.c.account_id)

#: where an account's user is alerted; sealed like credentials, under a data key of its own
account_alerts = Table(
    "account_alerts",
    metadata,
    Column("account_id", String(48), ForeignKey("broker_accounts.id"), primary_key=True),
    Column("scheme", String(16), nullable=False),
    Column("key_name", String(512), nullable=False),
    Column("sealed_data_key", LargeBinary, nullable=False),
    Column("sealed_alert_url", LargeBinary, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)

#: one for every create: the droplet carries the id as a tag, its user_data holds the token
enrolments = Table(
    "enrolments",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("token_sha256", String(64), nullable=False, unique=True),
    Column("account_id", String(48), ForeignKey("broker_accounts.id"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("used_at", DateTime(timezone=True)),
    Column("droplet_id", BigInteger),
    Column("refused", Integer, nullable=False, server_default="0"),
)
Index("ix_enrolments_account_id", enrolments.c.account_id)

#: droplets that may be deleted; nothing else is
fleet_tombstones = Table(
    "fleet_tombstones",
    metadata,
    Column("droplet_id", BigInteger, primary_key=True, autoincrement=False),
    Column("account_id", String(48), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("gone_at", DateTime(timezone=True)),
)

#: droplets with our tags that this database can't explain: never touched, told to a person
fleet_quarantine = Table(
    "fleet_quarantine",
    metadata,
    Column("droplet_id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(255), nullable=False),
    Column("account_id", String(255), nullable=False),
    Column("first_seen", DateTime(timezone=True), nullable=False),
    Column("last_seen", DateTime(timezone=True), nullable=False),
)

#: the fleet's own secrets (signing key, hash key), sealed like credentials
fleet_keys = Table(
    "fleet_keys",
    metadata,
    Column("name", String(48), primary_key=True),
    Column("key_name", String(512), nullable=False),
    Column("sealed_data_key", LargeBinary, nullable=False),
    Column("sealed_value", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

#: who may run passes, and what the last whole one found
fleet_lease = Table(
    "fleet_lease",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("passed_at", DateTime(timezone=True)),
    #: JSON: `Pass.figures`
    Column("passed", Text),
)
