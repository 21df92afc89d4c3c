"""A disposable environment: network, gateway, database, service, droplets, wired to each other.

Which parts there are is decided by the settings; how a part is made, by its component.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_gcp as gcp

from components.egress import Egress, EgressArgs
from components.migration import Migration, MigrationArgs
from components.network import Network, NetworkArgs
from components.secret import SecretReference, grant_access
from components.turns import engine_turn
from stacks.database import declare_database, labels
from stacks.fingerprint import fingerprint
from stacks.foundation import Foundation
from stacks.service import ServiceParts, declare_service
from stacks.settings import Settings

if TYPE_CHECKING:
    from stacks.fleet import Droplets

# Where users connect their IBKR accounts (the integration document).
ACCOUNTS = "/api/v1/brokers/interactivebrokers"
MIGRATIONS = Path(__file__).resolve().parents[1] / "broker" / "service" / "migrations"


async def declare(settings: Settings, foundation: Foundation) -> dict[str, Any]:
    """Declares the environment and returns the stack's outputs."""
    prefix = settings.name_prefix
    api_account = _account(settings, foundation, "api", "the API service")
    migrate_account = _account(settings, foundation, "migrate", "the database migration")
    await engine_turn()
    network = Network(
        prefix,
        NetworkArgs(
            network_id=foundation.network_id,
            region=settings.region,
            subnet_range=settings.network.subnet_range,
            connector_range=settings.network.connector_range,
            connector_name=settings.connector_name,
        ),
        foundation.after("compute", "vpcaccess"),
    )
    await engine_turn()
    egress = Egress(
        prefix,
        EgressArgs(foundation.network_id, settings.region, network.subnet_ids),
        foundation.after("compute"),
    )
    await engine_turn()
    database_url, instance = _database(settings, foundation, api_account, migrate_account)
    await engine_turn()
    migration = Migration(
        f"{prefix}-migrate",
        MigrationArgs(
            location=settings.region,
            project=settings.project,
            image=settings.api.image,
            fingerprint=fingerprint(MIGRATIONS),
            service_account_email=migrate_account.email,
            connector_id=network.connector_id,
            database_url=database_url,
            labels=labels(settings),
        ),
        foundation.after("run"),
    )
    await engine_turn()
    gateway_host = None
    if settings.gateway.enabled:
        from stacks.gateway import declare_gateway

        gateway_host = declare_gateway(settings, foundation, network, egress)
    await engine_turn()
    droplets: Droplets | None = None
    if settings.uses_digitalocean:
        from stacks.fleet import declare_droplets

        droplets = declare_droplets(settings, egress.ip)
    await engine_turn()
    service = declare_service(
        settings,
        foundation,
        ServiceParts(
            account=api_account,
            connector_id=network.connector_id,
            nat_ip=egress.ip,
            database_url=database_url,
            gateway_host=gateway_host,
            droplets=droplets,
            ready=[migration.execution, egress.nat, *(droplets.kept if droplets else ())],
        ),
    )
    if settings.alerts.emails or settings.monitoring.dashboard or settings.checks_uptime:
        from stacks.monitoring import declare_monitoring

        await engine_turn()
        declare_monitoring(settings, foundation, service.url, instance)
    return {
        "service_url": service.url,
        "service_environment": service.environment,
        "accounts_url": service.url.apply(lambda base: base + ACCOUNTS) if settings.runs_fleet else None,
        "gateway_host": gateway_host,
        "gateway_port": settings.api_port if settings.gateway.enabled else None,
        "second_gateway_port": settings.second_api_port if settings.gateway.enabled else None,
        "nat_ip": egress.ip,
        "droplets": droplets.addresses if droplets else {},
        "database": instance,
    }


def _account(settings: Settings, foundation: Foundation, role: str, whose: str) -> gcp.serviceaccount.Account:
    """A service account for one workload; what it may do is granted where it is needed."""
    name = f"{settings.name_prefix}-{role}"
    return gcp.serviceaccount.Account(
        name, account_id=name, display_name=f"ibkr: {whose}", opts=foundation.after("iam")
    )


def _database(
    settings: Settings,
    foundation: Foundation,
    api: gcp.serviceaccount.Account,
    migrate: gcp.serviceaccount.Account,
) -> tuple[SecretReference, pulumi.Input[str]]:
    """The URL that service and migration read, and the instance's name: declared here, or kept elsewhere."""
    readers: dict[str, pulumi.Input[str]] = {"api": api.member, "migrate": migrate.member}
    if foundation.database_url is None:
        after = foundation.after("sqladmin", "secretmanager")
        database = declare_database(settings, foundation.network_id, foundation.peering, readers, after)
        return database.url.reference, database.instance_name
    url = foundation.database_url
    grants = [
        grant_access(
            f"{settings.name_prefix}-database-url-{role}", url.secret_id, member, pulumi.ResourceOptions()
        )
        for role, member in readers.items()
    ]
    assert foundation.database_instance is not None  # a foundation that has the URL has the instance
    return SecretReference(url.secret_id, url.version, grants), foundation.database_instance
