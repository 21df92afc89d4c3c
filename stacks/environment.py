"""A disposable environment: network, gateway, database, service, droplets, wired to each other.

Which parts there are is decided by the settings; how a part is made, by its component.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pulumi_gcp as gcp

from components.api_service import ApiService, ApiServiceArgs
from components.migration import Migration, MigrationArgs
from components.network import Network, NetworkArgs
from components.secret import Secret, SecretArgs, SecretReference, grant_access
from stacks.database import declare_database, labels
from stacks.fingerprint import fingerprint
from stacks.foundation import Foundation
from stacks.settings import Settings

MIGRATIONS = Path(__file__).resolve().parents[1] / "broker" / "service" / "migrations"


def declare(settings: Settings, foundation: Foundation) -> dict[str, Any]:
    """Declares the environment and returns the stack's outputs."""
    prefix = settings.name_prefix
    api_account = _account(settings, foundation, "api", "the API service")
    migrate_account = _account(settings, foundation, "migrate", "the database migration")
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
    database_url, instance = _database(settings, foundation, api_account, migrate_account)
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
    gateway_host = None
    if settings.gateway.enabled:
        from stacks.gateway import declare_gateway

        gateway_host = declare_gateway(settings, foundation, network)
    droplets: dict[str, pulumi.Output[str]] = {}
    before_service: list[pulumi.Resource] = [migration.execution, network.nat]
    if settings.uses_digitalocean:
        from stacks.fleet import declare_fleet

        droplets, fleet_resources = declare_fleet(settings, network.nat_ip)
        before_service += fleet_resources
    service = ApiService(
        f"{prefix}-api",
        ApiServiceArgs(
            location=settings.region,
            image=settings.api.image,
            service_account_email=api_account.email,
            connector_id=network.connector_id,
            environment=_environment(settings, gateway_host),
            secrets={"DATABASE_URL": database_url, **_api_secrets(settings, foundation, api_account)},
            holds_connection=settings.broker_type == "ibkr",
            cpu=settings.api.cpu,
            memory=settings.api.memory,
            concurrency=settings.api.concurrency,
            max_instances=settings.api.max_instances,
            public=settings.api.public,
            deletion_protection=settings.api.deletion_protection,
            labels=labels(settings),
            ready=before_service,
        ),
        foundation.after("run"),
    )
    return {
        "service_url": service.url,
        "gateway_host": gateway_host,
        "gateway_port": settings.api_port if settings.gateway.enabled else None,
        "nat_ip": network.nat_ip,
        "droplets": droplets,
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


def _environment(settings: Settings, gateway_host: pulumi.Output[str] | None) -> dict[str, pulumi.Input[str]]:
    """The service's plain environment variables."""
    environment: dict[str, pulumi.Input[str]] = {
        "STACK": settings.stack,
        "BROKER_TYPE": settings.broker_type,
        "MARKET_DATA_SOURCE": settings.market_data_source,
        "LOG_LEVEL": settings.api.log_level,
        "OIDC_ISSUER": str(settings.auth.issuer),
        "OIDC_AUDIENCE": settings.auth.audience,
        "OIDC_JWKS_URL": str(settings.auth.jwks_url),
        "DIGITAL_OCEAN_REGION": settings.ibeam.region,
        "DIGITAL_OCEAN_SIZE": settings.ibeam.size,
        "DIGITAL_OCEAN_IMAGE_ID": settings.ibeam.image,
        "IBKR_TRADING_MODE": settings.trading_mode,
    }
    if gateway_host is not None:
        environment |= {
            "IBKR_GATEWAY_HOST": gateway_host,
            "IBKR_GATEWAY_PORT": str(settings.api_port),
            "IBKR_CLIENT_ID": str(settings.api.client_id),
        }
    return environment


def _api_secrets(
    settings: Settings, foundation: Foundation, api: gcp.serviceaccount.Account
) -> dict[str, SecretReference]:
    """Secrets that the service alone reads, by the environment variable that they become."""
    values = {}
    if settings.alpaca:
        values["ALPACA_API_KEY"] = ("alpaca-api-key", settings.alpaca.api_key)
        values["ALPACA_SECRET_KEY"] = ("alpaca-secret-key", settings.alpaca.secret_key)
    if settings.digitalocean_token:
        values["DIGITAL_OCEAN_API_KEY"] = ("digitalocean-token", settings.digitalocean_token)
    return {
        variable: Secret(
            f"{settings.name_prefix}-{name}",
            SecretArgs(
                value=pulumi.Output.secret(value.get_secret_value()),
                readers={"api": api.member},
                labels=labels(settings),
            ),
            foundation.after("secretmanager"),
        ).reference
        for variable, (name, value) in values.items()
    }
