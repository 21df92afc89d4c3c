"""A pass of the fleet's reconciler every few minutes, asked for by Cloud Scheduler.

The service runs passes by itself; this is what has one run when its timer is lost. Scheduler signs a token of
a service account of its own. On a public service nobody but the app checks it, so the app does: issuer,
audience, email.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.options import child_options

PATH = "/api/v1/fleet/reconcile"


@dataclass(frozen=True, slots=True)
class ReconcileScheduleArgs:
    """`service_url` is also the tokens' audience. `invokes` is the service's name; None if it is public."""

    region: str
    minutes: int
    service_url: pulumi.Input[str]
    account: gcp.serviceaccount.Account
    invokes: pulumi.Input[str] | None
    service: pulumi.Resource


class ReconcileSchedule(pulumi.ComponentResource):
    """The job, and its right to call the service."""

    def __init__(
        self, name: str, args: ReconcileScheduleArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ibkr:ibeam:ReconcileSchedule", name, None, opts)
        child = child_options(self, opts)
        ready = [args.service]
        if args.invokes is not None:
            ready.append(
                gcp.cloudrunv2.ServiceIamMember(
                    f"{name}-invoker",
                    name=args.invokes,
                    location=args.region,
                    role="roles/run.invoker",
                    member=args.account.member,
                    opts=child,
                )
            )
        gcp.cloudscheduler.Job(
            f"{name}-job",
            name=name,
            region=args.region,
            schedule=cron(args.minutes),
            time_zone="Etc/UTC",
            # A pass that takes longer goes on by itself; the next call finds it done.
            attempt_deadline="180s",
            http_target=gcp.cloudscheduler.JobHttpTargetArgs(
                uri=pulumi.Output.from_input(args.service_url).apply(lambda url: url + PATH),
                http_method="POST",
                oidc_token=gcp.cloudscheduler.JobHttpTargetOidcTokenArgs(
                    service_account_email=args.account.email, audience=args.service_url
                ),
            ),
            opts=child.merge(pulumi.ResourceOptions(depends_on=ready)),
        )
        self.register_outputs({})


def cron(minutes: int) -> str:
    """A unix-cron schedule for every so many minutes of an hour."""
    return "* * * * *" if minutes == 1 else f"*/{minutes} * * * *"
