"""The service part of an environment: its variables, its own secrets, and the Cloud Run service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pulumi
import pulumi_gcp as gcp

from components.api_service import ApiService, ApiServiceArgs
from components.network import Network
from components.secret import Secret, SecretArgs, SecretReference
from stacks.database import labels
from stacks.fingerprint import fingerprint
from stacks.foundation import Foundation
from stacks.sections import Limits
from stacks.settings import Settings

SOURCE = Path(__file__).resolve().parents[1] / "broker"


def declare_service(
    settings: Settings,
    foundation: Foundation,
    network: Network,
    account: gcp.serviceaccount.Account,
    database_url: SecretReference,
    gateway_host: pulumi.Output[str] | None,
    ready: Sequence[pulumi.Resource],
) -> pulumi.Output[str]:
    """Declares the API service and returns its URL. `ready` is what must exist before it, and go after."""
    api = settings.api
    service = ApiService(
        f"{settings.name_prefix}-api",
        ApiServiceArgs(
            location=settings.region,
            image=api.image,
            source="" if "@sha256:" in api.image else fingerprint(SOURCE),
            service_account_email=account.email,
            connector_id=network.connector_id,
            environment=_environment(settings, gateway_host),
            secrets={"DATABASE_URL": database_url, **_own_secrets(settings, foundation, account)},
            holds_connection=settings.broker_type == "ibkr",
            cpu=api.cpu,
            memory=api.memory,
            concurrency=api.concurrency,
            max_instances=api.max_instances,
            public=api.public,
            deletion_protection=api.deletion_protection,
            labels=labels(settings),
            ready=ready,
        ),
        foundation.after("run"),
    )
    return service.url


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
        **_alpaca(settings),
        **_limits(settings.limits),
    }
    if gateway_host is not None:
        environment |= {
            "IBKR_GATEWAY_HOST": gateway_host,
            "IBKR_GATEWAY_PORT": str(settings.api_port),
            "IBKR_CLIENT_ID": str(settings.api.client_id),
        }
    return environment


def _alpaca(settings: Settings) -> dict[str, str]:
    """Which Alpaca it is, and where, if not at its own addresses. Nothing without its keys."""
    alpaca = settings.alpaca
    if not alpaca.api_key:
        return {}
    values = {
        "ALPACA_PAPER": "true" if settings.trading_mode == "paper" else "false",
        "ALPACA_ENDPOINT": alpaca.endpoint,
        "ALPACA_DATA_ENDPOINT": alpaca.data_endpoint,
        "ALPACA_STREAM_ENDPOINT": alpaca.stream_endpoint,
    }
    return {variable: value for variable, value in values.items() if value is not None}


def _limits(limits: Limits) -> dict[str, str]:
    """The limits that are set, as `broker.risk.limits` reads them; the others have its defaults."""
    return {
        f"RISK_{name.upper()}": _as_text(value)
        for name, value in limits.model_dump(exclude_none=True).items()
    }


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _own_secrets(
    settings: Settings, foundation: Foundation, account: gcp.serviceaccount.Account
) -> dict[str, SecretReference]:
    """Secrets that the service alone reads, by the environment variable that they become."""
    values = {}
    if settings.alpaca.api_key and settings.alpaca.secret_key:
        values["ALPACA_API_KEY"] = ("alpaca-api-key", settings.alpaca.api_key)
        values["ALPACA_SECRET_KEY"] = ("alpaca-secret-key", settings.alpaca.secret_key)
    if settings.digitalocean_token:
        values["DIGITAL_OCEAN_API_KEY"] = ("digitalocean-token", settings.digitalocean_token)
    if settings.alert_urls:
        values["ALERT_URLS"] = ("alert-urls", settings.alert_urls)
    return {
        variable: Secret(
            f"{settings.name_prefix}-{name}",
            SecretArgs(
                value=pulumi.Output.secret(value.get_secret_value()),
                readers={"api": account.member},
                labels=labels(settings),
            ),
            foundation.after("secretmanager"),
        ).reference
        for variable, (name, value) in values.items()
    }
