"""The database migration: a Cloud Run job, and its execution as a part of `up`.

The database has a private address, so neither a laptop nor a CI runner can migrate it; a job in the same
network can. The job runs whenever the image or the migrations change, and `up` fails when it fails,
before any new instance of the service starts. A migration that ran already does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_command as command
import pulumi_gcp as gcp

from components.options import child_options
from components.secret import SecretReference


@dataclass(frozen=True, slots=True)
class MigrationArgs:
    """`fingerprint` changes when the migrations do, for images that are named by a moving tag."""

    location: str
    project: str
    image: str
    fingerprint: str
    service_account_email: pulumi.Input[str]
    connector_id: pulumi.Input[str]
    database_url: SecretReference
    labels: Mapping[str, str]


class Migration(pulumi.ComponentResource):
    """The job and its execution. What needs the schema depends on `execution`."""

    execution: pulumi.Resource

    def __init__(self, name: str, args: MigrationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:database:Migration", name, None, opts)
        child = child_options(self, opts)

        job = gcp.cloudrunv2.Job(
            f"{name}-job",
            name=name,
            location=args.location,
            deletion_protection=False,  # it holds nothing
            labels=args.labels,
            template=gcp.cloudrunv2.JobTemplateArgs(
                template=gcp.cloudrunv2.JobTemplateTemplateArgs(
                    service_account=args.service_account_email,
                    max_retries=1,
                    timeout="600s",
                    vpc_access=gcp.cloudrunv2.JobTemplateTemplateVpcAccessArgs(
                        connector=args.connector_id, egress="ALL_TRAFFIC"
                    ),
                    containers=[
                        gcp.cloudrunv2.JobTemplateTemplateContainerArgs(
                            image=args.image,
                            args=["migrate"],
                            envs=[_database_url(args.database_url)],
                        )
                    ],
                ),
            ),
            opts=child.merge(pulumi.ResourceOptions(depends_on=list(args.database_url.ready))),
        )
        execution = command.local.Command(
            f"{name}-execution",
            create="python3 components/scripts/run_job.py",
            environment={
                "JOB_NAME": job.name,
                "JOB_LOCATION": args.location,
                "JOB_PROJECT": args.project,
            },
            triggers=[args.image, args.fingerprint, args.database_url.version],
            opts=child,
        )

        self.execution = execution
        self.register_outputs({})


def _database_url(secret: SecretReference) -> gcp.cloudrunv2.JobTemplateTemplateContainerEnvArgs:
    return gcp.cloudrunv2.JobTemplateTemplateContainerEnvArgs(
        name="DATABASE_URL",
        value_source=gcp.cloudrunv2.JobTemplateTemplateContainerEnvValueSourceArgs(
            secret_key_ref=gcp.cloudrunv2.JobTemplateTemplateContainerEnvValueSourceSecretKeyRefArgs(
                secret=secret.secret_id, version=secret.version
            )
        ),
    )
