"""Google's look at the service from outside, every minute and from all over the world.

It asks the public health path, `/health`: the process and its database, never the gateway, which is away
every night. Paths that end in z, as those of the probes, Google's front end answers itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import pulumi
import pulumi_gcp as gcp

from components.options import child_options

PATH = "/health"


@dataclass(frozen=True, slots=True)
class UptimeArgs:
    """`url` is the service's address, without a path."""

    project: str
    url: pulumi.Output[str]
    labels: Mapping[str, str]


class Uptime(pulumi.ComponentResource):
    """The uptime check; its alert policy is one of the alert rules."""

    check_id: pulumi.Output[str]

    def __init__(self, name: str, args: UptimeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:observability:Uptime", name, None, opts)
        check = gcp.monitoring.UptimeCheckConfig(
            f"{name}-check",
            display_name=f"{name}: {PATH}",
            period="60s",
            timeout="10s",
            monitored_resource=gcp.monitoring.UptimeCheckConfigMonitoredResourceArgs(
                type="uptime_url",
                labels={"project_id": args.project, "host": args.url.apply(host_of)},
            ),
            http_check=gcp.monitoring.UptimeCheckConfigHttpCheckArgs(
                path=PATH,
                port=args.url.apply(port_of),
                use_ssl=args.url.apply(is_tls),
                validate_ssl=args.url.apply(is_tls),
            ),
            user_labels=args.labels,
            opts=child_options(self, opts),
        )
        self.check_id = check.uptime_check_id
        self.register_outputs({"check_id": self.check_id})


def host_of(url: str) -> str:
    """The host that is asked."""
    return urlsplit(url).hostname or ""


def port_of(url: str) -> int:
    """Its port."""
    return urlsplit(url).port or (443 if is_tls(url) else 80)


def is_tls(url: str) -> bool:
    """Whether it is asked over TLS; only the local cloud's service isn't."""
    return url.startswith("https://")
