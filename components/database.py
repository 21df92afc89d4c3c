"""Cloud SQL for PostgreSQL on a private address, its database and user, and their URL as a secret.

The instance has no public address: with all egress through the connector, the service reaches it inside
the VPC, and nothing else does (a laptop neither, which is why migrations run as a Cloud Run job). Its name
is left to Pulumi, which adds a random suffix: Google keeps a deleted instance's name reserved for a week,
and `destroy` followed by `up` must work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import pulumi
import pulumi_gcp as gcp

from components.options import child_options
from components.places import backup_location
from components.secret import Secret, SecretArgs


@dataclass(frozen=True, slots=True)
class DatabaseArgs:
    """`password` becomes the user's. `peering` is the network's private service access, None where another
    stack declares it.

    `readers` are those who may read the URL, as of `Secret`.
    """

    network_id: pulumi.Input[str]
    region: str
    tier: str
    version: str
    disk_gb: int
    high_availability: bool
    backups: bool
    require_tls: bool
    deletion_protection: bool
    password: pulumi.Input[str]
    readers: Mapping[str, pulumi.Input[str]]
    labels: Mapping[str, str]
    peering: pulumi.Resource | None


class Database(pulumi.ComponentResource):
    """An instance with one database, and the URL that the service connects with."""

    instance_name: pulumi.Output[str]
    private_ip: pulumi.Output[str]
    url: Secret

    def __init__(self, name: str, args: DatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:database:Database", name, None, opts)
        child = child_options(self, opts)
        keep = child.merge(pulumi.ResourceOptions(protect=args.deletion_protection))

        instance = gcp.sql.DatabaseInstance(
            f"{name}-instance",
            region=args.region,
            database_version=args.version,
            deletion_protection=args.deletion_protection,
            settings=instance_settings(args),
            opts=keep.merge(pulumi.ResourceOptions(depends_on=[args.peering] if args.peering else [])),
        )
        database = gcp.sql.Database(f"{name}-database", name=name, instance=instance.name, opts=child)
        user = gcp.sql.User(
            f"{name}-user",
            name=name,
            instance=instance.name,
            password=pulumi.Output.secret(args.password),
            # PostgreSQL refuses to drop a role that owns tables, so the user goes with its instance.
            deletion_policy="ABANDON",
            opts=child.merge(pulumi.ResourceOptions(depends_on=[database])),
        )
        url = Secret(
            f"{name}-database-url",
            SecretArgs(
                value=pulumi.Output.all(
                    user=user.name,
                    password=args.password,
                    host=instance.private_ip_address,
                    database=database.name,
                ).apply(lambda part: database_url(**part)),
                readers=args.readers,
                labels=args.labels,
            ),
            child,
        )

        self.instance_name = instance.name
        self.private_ip = instance.private_ip_address
        self.url = url
        self.register_outputs({"instance_name": self.instance_name})


def instance_settings(args: DatabaseArgs) -> gcp.sql.DatabaseInstanceSettingsArgs:
    """What the instance runs on, how it is reached and how it is backed up."""
    return gcp.sql.DatabaseInstanceSettingsArgs(
        # The small tiers exist in this edition only, and Google's default is the other one.
        edition="ENTERPRISE",
        tier=args.tier,
        availability_type="REGIONAL" if args.high_availability else "ZONAL",
        disk_size=args.disk_gb,
        disk_type="PD_SSD",
        deletion_protection_enabled=args.deletion_protection,
        user_labels=args.labels,
        ip_configuration=gcp.sql.DatabaseInstanceSettingsIpConfigurationArgs(
            ipv4_enabled=False,
            private_network=args.network_id,
            ssl_mode="ENCRYPTED_ONLY" if args.require_tls else "ALLOW_UNENCRYPTED_AND_ENCRYPTED",
        ),
        backup_configuration=gcp.sql.DatabaseInstanceSettingsBackupConfigurationArgs(
            enabled=args.backups,
            point_in_time_recovery_enabled=args.backups,
            start_time="09:00",  # UTC: before the US markets open
            # Backups outlive the region. The log of changes, which leads to a minute, is kept in the region.
            location=backup_location(args.region) if args.backups else None,
            transaction_log_retention_days=7 if args.backups else None,
        ),
    )


def database_url(user: str, password: str, host: str, database: str) -> str:
    """SQLAlchemy's URL for psycopg; user and password may hold any characters."""
    return f"postgresql+psycopg://{quote(user, safe='')}:{quote(password, safe='')}@{host}:5432/{database}"
