"""The service part of an environment: its variables, its own secrets, and the Cloud Run service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pulumi
import pulumi_gcp as gcp
from pydantic import SecretStr

from components import capacity
from components.api_service import ApiService, ApiServiceArgs
from components.secret import Secret, SecretArgs, SecretReference
from stacks.database import labels
from stacks.fingerprint import fingerprint
from stacks.foundation import Foundation
from stacks.sections import Limits
from stacks.settings import Settings

if TYPE_CHECKING:
    from stacks.fleet import Droplets

SOURCE = Path(__file__).resolve().parents[1] / "broker"


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """What the rest of the environment made for the service.

    `account` is the service's own. `ready` is what must exist before it, and go after it.
    """

    account: gcp.serviceaccount.Account
    connector_id: pulumi.Output[str]
    nat_ip: pulumi.Output[str]
    database_url: SecretReference
    gateway_host: pulumi.Output[str] | None
    droplets: Droplets | None
    ready: Sequence[pulumi.Resource]


def declare_service(settings: Settings, foundation: Foundation, parts: ServiceParts) -> ApiService:
    """Declares the API service."""
    api = settings.api
    fleet = None
    if settings.runs_fleet:
        from stacks.fleet_service import declare_fleet_service, schedule_passes

        fleet = declare_fleet_service(settings, foundation, parts.account, parts.nat_ip)
    # A broker's connection, which there may be one of, or the fleet's passes, which any instance runs.
    holds_connection = settings.broker_type in ("ibkr", "ibeam")
    service = ApiService(
        f"{settings.name_prefix}-api",
        ApiServiceArgs(
            location=settings.region,
            image=api.image,
            source="" if "@sha256:" in api.image else fingerprint(SOURCE),
            service_account_email=parts.account.email,
            connector_id=parts.connector_id,
            environment={**_environment(settings, parts), **(fleet.environment if fleet else {})},
            secrets={"DATABASE_URL": parts.database_url, **_own_secrets(settings, foundation, parts)},
            files=fleet.files if fleet else {},
            always_on=holds_connection or settings.runs_fleet,
            cpu=api.cpu,
            memory=api.memory,
            concurrency=api.concurrency,
            instances=settings.service_instances,
            public=api.public,
            deletion_protection=api.deletion_protection,
            labels=labels(settings),
            ready=[*parts.ready, *(fleet.ready if fleet else ())],
        ),
        foundation.after("run"),
    )
    if fleet:
        schedule_passes(settings, foundation, fleet, service)
    return service


def _environment(settings: Settings, parts: ServiceParts) -> dict[str, pulumi.Input[str]]:
    """The service's plain environment variables."""
    environment: dict[str, pulumi.Input[str]] = {
        "STACK": settings.stack,
        "BROKER_TYPE": settings.broker_type,
        "MARKET_DATA_SOURCE": settings.market_data_source,
        "LOG_LEVEL": settings.api.log_level,
        "STREAM_LIMIT": str(capacity.stream_limit(settings.api.concurrency)),
        "STREAM_SECONDS": str(capacity.STREAM_SECONDS),
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
    if settings.api.cors_origins:
        environment["CORS_ORIGINS"] = ",".join(settings.api.cors_origins)
    if parts.gateway_host is not None:
        environment |= {
            "IBKR_GATEWAY_HOST": parts.gateway_host,
            "IBKR_GATEWAY_PORT": str(settings.api_port),
            "IBKR_CLIENT_ID": str(settings.api.client_id),
        }
        if settings.second_api_port and settings.broker_type == "ibkr":
            environment["IBKR_SECOND_GATEWAY_PORT"] = str(settings.second_api_port)
    if parts.droplets and parts.droplets.default:
        environment["IBEAM_URL"] = parts.droplets.default.url
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
    settings: Settings, foundation: Foundation, parts: ServiceParts
) -> dict[str, SecretReference]:
    """Secrets that the service alone reads, by the environment variable that they become."""
    given: dict[str, tuple[str, SecretStr]] = {}
    if settings.alpaca.api_key and settings.alpaca.secret_key:
        given["ALPACA_API_KEY"] = ("alpaca-api-key", settings.alpaca.api_key)
        given["ALPACA_SECRET_KEY"] = ("alpaca-secret-key", settings.alpaca.secret_key)
    if settings.runs_fleet and settings.digitalocean_token:
        given["DIGITAL_OCEAN_API_KEY"] = ("digitalocean-token", settings.digitalocean_token)
    if settings.alert_urls:
        given["ALERT_URLS"] = ("alert-urls", settings.alert_urls)
    values: dict[str, tuple[str, pulumi.Output[str]]] = {
        variable: (name, pulumi.Output.secret(value.get_secret_value()))
        for variable, (name, value) in given.items()
    }
    if parts.droplets and parts.droplets.default:
        values["IBEAM_TOKEN"] = ("ibeam-token", parts.droplets.default.token)
    return {
        variable: Secret(
            f"{settings.name_prefix}-{name}",
            SecretArgs(value=value, readers={"api": parts.account.member}, labels=labels(settings)),
            foundation.after("secretmanager"),
        ).reference
        for variable, (name, value) in values.items()
    }
