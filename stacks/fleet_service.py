"""What the service needs to run the fleet: its variables, its keys, and the schedule of its passes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pulumi
import pulumi_gcp as gcp

from components.api_service import ApiService
from components.reconcile_schedule import ReconcileSchedule, ReconcileScheduleArgs
from components.secret import SecretReference, grant_access
from components.wrapping_key import grant_use
from stacks.foundation import Foundation
from stacks.settings import Settings

KEY_FILE = "/secrets/fleet/key"


@dataclass(frozen=True, slots=True)
class FleetService:
    """What is added to the service. `url` is its own; `files` are secrets by the path of their mount."""

    url: pulumi.Input[str]
    scheduler: gcp.serviceaccount.Account
    environment: dict[str, pulumi.Input[str]]
    files: dict[str, SecretReference] = field(default_factory=dict)
    ready: list[pulumi.Resource] = field(default_factory=list)


def declare_fleet_service(
    settings: Settings,
    foundation: Foundation,
    account: gcp.serviceaccount.Account,
    client_address: pulumi.Output[str],
) -> FleetService:
    """Declares what must be there before the service; `account` is the service's own."""
    prefix, fleet, ibeam = settings.name_prefix, settings.fleet, settings.ibeam
    scheduler = gcp.serviceaccount.Account(
        f"{prefix}-scheduler",
        account_id=f"{prefix}-scheduler",
        display_name="ibkr: the schedule of the fleet's passes",
        opts=foundation.after("iam"),
    )
    url = own_url(settings)
    environment: dict[str, pulumi.Input[str]] = {
        "FLEET_ENABLED": "true",
        # Where droplets enrol: the service itself, or what stands before it.
        "FLEET_SERVICE_URL": fleet.service_url.rstrip("/") if fleet.service_url else url,
        "FLEET_CLIENT_ADDRESS": client_address,
        "FLEET_IBEAM_IMAGE": ibeam.container,
        "FLEET_ACCOUNTS_PER_USER": str(fleet.accounts_per_user),
        "FLEET_CONNECTS_PER_HOUR": str(fleet.connects_per_hour),
        "DIGITAL_OCEAN_REGION": fleet.region or ibeam.region,
        "DIGITAL_OCEAN_SIZE": fleet.size or ibeam.size,
        "DIGITAL_OCEAN_DEMO_SIZE": fleet.demo_size or ibeam.demo_size,
        "DIGITAL_OCEAN_IMAGE_ID": settings.fleet_image,
        "SCHEDULER_AUDIENCE": url,
        "SCHEDULER_EMAIL": scheduler.email,
    }
    if fleet.digitalocean_api:
        environment["DIGITAL_OCEAN_API_URL"] = fleet.digitalocean_api
    if settings.local:
        # The local cloud has one issuer, for its users' tokens and for its scheduler's.
        environment["SCHEDULER_ISSUER"] = str(settings.auth.issuer)
        environment["SCHEDULER_JWKS_URL"] = str(settings.auth.jwks_url)
    made = FleetService(url, scheduler, environment)
    _use_wrapping_key(settings, foundation, account, made)
    return made


def _use_wrapping_key(
    settings: Settings, foundation: Foundation, account: gcp.serviceaccount.Account, made: FleetService
) -> None:
    """Let the service, and nobody else, use the key."""
    name, key = f"{settings.name_prefix}-fleet-key-api", foundation.wrapping_key
    assert key is not None  # a fleet's foundation has one, or `up` has ended
    if key.kms_key is not None:
        made.environment["FLEET_KMS_KEY"] = key.kms_key
        made.ready.extend(grant_use(name, key.kms_key, account.member, foundation.after("cloudkms")))
    if key.file is not None:
        grant = grant_access(
            name, key.file.secret_id, account.member, pulumi.ResourceOptions(depends_on=[*key.file.ready])
        )
        made.environment["FLEET_KEY_FILE"] = KEY_FILE
        made.files[KEY_FILE] = SecretReference(key.file.secret_id, key.file.version, (grant,))


def schedule_passes(
    settings: Settings, foundation: Foundation, fleet: FleetService, service: ApiService
) -> None:
    """Has Cloud Scheduler ask the service for passes."""
    ReconcileSchedule(
        f"{settings.name_prefix}-reconcile",
        ReconcileScheduleArgs(
            region=settings.region,
            minutes=settings.fleet.reconcile_minutes,
            service_url=fleet.url,
            account=fleet.scheduler,
            invokes=None if settings.api.public else service.name,
            service=service.service,
        ),
        foundation.after("cloudscheduler", "run"),
    )


def own_url(settings: Settings) -> pulumi.Input[str]:
    """The service's own address, known before it is made.

    The service gets it as a variable, so it can't come from the service's own resource: that would be a
    circle. Cloud Run's deterministic URL is made of the service's name, the project's number and the region
    (cloud.google.com/run/docs/triggering/https-request#deterministic), and the number is asked for. The local
    cloud's services have no names, so there the configuration says it.
    """
    if settings.local:
        return str(settings.fleet.service_url).rstrip("/")
    project = gcp.organizations.get_project_output(project_id=settings.project)
    return project.number.apply(
        lambda number: deterministic_url(f"{settings.name_prefix}-api", number, settings.region)
    )


def deterministic_url(service: str, project_number: str, region: str) -> str:
    """Cloud Run's address of a service."""
    return f"https://{service}-{project_number}.{region}.run.app"
