"""The database's declaration, for whichever stack it belongs to."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi

from components.database import Database, DatabaseArgs
from stacks.settings import Settings


def labels(settings: Settings) -> dict[str, str]:
    """What everything that can carry labels is labelled with: whose it is, and who manages it."""
    return {"app": settings.name_prefix, "stack": settings.stack, "managed-by": "pulumi"}


def declare_database(
    settings: Settings,
    network_id: pulumi.Input[str],
    peering: pulumi.Resource | None,
    readers: Mapping[str, pulumi.Input[str]],
    opts: pulumi.ResourceOptions,
) -> Database:
    """Cloud SQL as the settings want it. `readers` may read its URL."""
    database, password = settings.database, settings.database_password
    assert password is not None  # stacks.relations: a stack that declares the database has one
    return Database(
        settings.name_prefix,
        DatabaseArgs(
            network_id=network_id,
            region=settings.region,
            tier=database.tier,
            version=database.version,
            disk_gb=database.disk_gb,
            high_availability=database.high_availability,
            backups=database.backups,
            require_tls=database.require_tls,
            deletion_protection=database.deletion_protection,
            password=pulumi.Output.secret(password.get_secret_value()),
            readers=readers,
            labels=labels(settings),
            peering=peering,
        ),
        opts,
    )
