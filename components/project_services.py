"""The Google APIs that the stacks use, switched on in the project.

They stay on when a stack is destroyed: something else in the project may use them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_gcp as gcp

SERVICES = (
    "artifactregistry",
    "cloudkms",
    "cloudscheduler",
    "compute",
    "iam",
    "iamcredentials",
    "iap",
    "logging",
    "monitoring",
    "run",
    "secretmanager",
    "servicenetworking",
    "sqladmin",
    "sts",
    "vpcaccess",
)


class ProjectServices(pulumi.ComponentResource):
    """One resource an API; what uses an API waits for its resource in `enabled`."""

    enabled: dict[str, pulumi.Resource]

    def __init__(
        self, name: str, more: Sequence[str] = (), opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """`more` are switched on beside SERVICES."""
        super().__init__("ibkr:foundation:ProjectServices", name, None, opts)
        self.enabled = {
            service: gcp.projects.Service(
                f"{name}-{service}",
                service=f"{service}.googleapis.com",
                disable_on_destroy=False,
                opts=pulumi.ResourceOptions(parent=self),
            )
            for service in (*SERVICES, *more)
        }
        self.register_outputs({})
