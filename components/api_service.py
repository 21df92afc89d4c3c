"""The API service on Cloud Run: its environment, its secrets, its probes, and how many of it there are.

A broker's connection to a gateway lives in the service, so with BROKER_TYPE=ibkr or ibeam there is exactly
one instance, and its CPU is always allocated: with the default (`cpu_idle`) the event loop freezes between
requests and the gateway drops the connection. The fleet's passes need that CPU too, but any instance may run
them. That costs about 50 dollars a month. Without either the service scales to zero.

The probes look at the process and the database, never at the gateway: IBKR resets every night, and a
service that restarted for that would lose its connection again each time it had it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pulumi
import pulumi_gcp as gcp

from components import capacity
from components.options import child_options
from components.secret import SecretReference

PORT = 8080


@dataclass(frozen=True, slots=True)
class ApiServiceArgs:
    """`environment` holds plain values, `secrets` what is read from Secret Manager at an instance's start.

    `files` maps a path to the secret that is mounted there, in a folder of its own.

    `source` changes when the code does, for images that are named by a moving tag: Cloud Run looks a tag up
    when it makes a revision, so without a change to the template the old code would go on. Empty for an
    image that is pinned by digest.
    `always_on` is whether something runs between requests, `instances` how many there may be at most. `ready`
    must exist before the first instance: the database's schema, the way out, the sweep that must outlive the
    service.
    """

    location: str
    image: str
    source: str
    service_account_email: pulumi.Input[str]
    connector_id: pulumi.Input[str]
    environment: Mapping[str, pulumi.Input[str]]
    secrets: Mapping[str, SecretReference]
    files: Mapping[str, SecretReference]
    always_on: bool
    cpu: str
    memory: str
    concurrency: int
    instances: int
    public: bool
    deletion_protection: bool
    labels: Mapping[str, str]
    ready: Sequence[pulumi.Resource]


class ApiService(pulumi.ComponentResource):
    """The service and who may call it."""

    url: pulumi.Output[str]
    name: pulumi.Output[str]
    service: pulumi.Resource
    #: as it is declared, for who compares it with what was deployed; a secret only by name and version
    environment: pulumi.Output[dict[str, str]]

    def __init__(self, name: str, args: ApiServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:api:ApiService", name, None, opts)
        child = child_options(self, opts)
        secrets = [*args.secrets.values(), *args.files.values()]
        ready = [*args.ready, *(resource for secret in secrets for resource in secret.ready)]

        service = gcp.cloudrunv2.Service(
            f"{name}-service",
            name=name,
            location=args.location,
            ingress="INGRESS_TRAFFIC_ALL",
            deletion_protection=args.deletion_protection,
            labels=args.labels,
            template=gcp.cloudrunv2.ServiceTemplateArgs(
                annotations={"ibkr-source": args.source} if args.source else None,
                service_account=args.service_account_email,
                timeout=f"{capacity.REQUEST_SECONDS}s",
                max_instance_request_concurrency=args.concurrency,
                scaling=gcp.cloudrunv2.ServiceTemplateScalingArgs(
                    min_instance_count=1 if args.always_on else 0,
                    max_instance_count=args.instances,
                ),
                vpc_access=gcp.cloudrunv2.ServiceTemplateVpcAccessArgs(
                    connector=args.connector_id, egress="ALL_TRAFFIC"
                ),
                volumes=_volumes(args) or None,
                containers=[_container(args)],
            ),
            opts=child.merge(pulumi.ResourceOptions(depends_on=ready)),
        )
        if args.public:
            gcp.cloudrunv2.ServiceIamMember(
                f"{name}-invoker",
                name=service.name,
                location=args.location,
                role="roles/run.invoker",
                # The URL is open; the app asks for a bearer token.
                member="allUsers",
                opts=child,
            )

        self.url, self.name, self.service = service.uri, service.name, service
        references = {
            name: pulumi.Output.concat("secret ", secret.secret_id, ", version ", secret.version)
            for name, secret in args.secrets.items()
        }
        self.environment = pulumi.Output.all(**args.environment, **references)
        self.register_outputs({"url": self.url})


def _container(args: ApiServiceArgs) -> gcp.cloudrunv2.ServiceTemplateContainerArgs:
    return gcp.cloudrunv2.ServiceTemplateContainerArgs(
        image=args.image,
        ports=gcp.cloudrunv2.ServiceTemplateContainerPortsArgs(container_port=PORT),
        resources=gcp.cloudrunv2.ServiceTemplateContainerResourcesArgs(
            limits={"cpu": args.cpu, "memory": args.memory},
            cpu_idle=not args.always_on,
            startup_cpu_boost=True,
        ),
        envs=_variables(args),
        volume_mounts=[
            gcp.cloudrunv2.ServiceTemplateContainerVolumeMountArgs(
                name=_volume_name(path), mount_path=str(PurePosixPath(path).parent)
            )
            for path in args.files
        ]
        or None,
        # A start may take two minutes: the libraries are large and the CPU is shared.
        startup_probe=gcp.cloudrunv2.ServiceTemplateContainerStartupProbeArgs(
            http_get=gcp.cloudrunv2.ServiceTemplateContainerStartupProbeHttpGetArgs(
                path="/healthz", port=PORT
            ),
            period_seconds=2,
            timeout_seconds=2,
            failure_threshold=60,
        ),
        liveness_probe=gcp.cloudrunv2.ServiceTemplateContainerLivenessProbeArgs(
            http_get=gcp.cloudrunv2.ServiceTemplateContainerLivenessProbeHttpGetArgs(
                path="/healthz", port=PORT
            ),
            period_seconds=15,
            timeout_seconds=5,
            failure_threshold=4,
        ),
        readiness_probe=gcp.cloudrunv2.ServiceTemplateContainerReadinessProbeArgs(
            http_get=gcp.cloudrunv2.ServiceTemplateContainerReadinessProbeHttpGetArgs(
                path="/readyz", port=PORT
            ),
            period_seconds=5,
            timeout_seconds=3,
            failure_threshold=3,
        ),
    )


def _variables(args: ApiServiceArgs) -> list[gcp.cloudrunv2.ServiceTemplateContainerEnvArgs]:
    return [
        *(
            gcp.cloudrunv2.ServiceTemplateContainerEnvArgs(name=name, value=value)
            for name, value in args.environment.items()
        ),
        *(
            gcp.cloudrunv2.ServiceTemplateContainerEnvArgs(
                name=name,
                value_source=gcp.cloudrunv2.ServiceTemplateContainerEnvValueSourceArgs(
                    secret_key_ref=gcp.cloudrunv2.ServiceTemplateContainerEnvValueSourceSecretKeyRefArgs(
                        secret=secret.secret_id, version=secret.version
                    )
                ),
            )
            for name, secret in args.secrets.items()
        ),
    ]


def _volumes(args: ApiServiceArgs) -> list[gcp.cloudrunv2.ServiceTemplateVolumeArgs]:
    return [
        gcp.cloudrunv2.ServiceTemplateVolumeArgs(
            name=_volume_name(path),
            secret=gcp.cloudrunv2.ServiceTemplateVolumeSecretArgs(
                secret=secret.secret_id,
                items=[
                    gcp.cloudrunv2.ServiceTemplateVolumeSecretItemArgs(
                        path=PurePosixPath(path).name, version=secret.version
                    )
                ],
            ),
        )
        for path, secret in args.files.items()
    ]


def _volume_name(path: str) -> str:
    """A volume's name: its path's words, with hyphens."""
    return "-".join(PurePosixPath(path).parts[1:])
