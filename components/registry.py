"""The Artifact Registry repository that the service's images are in.

Old images are removed, but never the last ten: a rollback needs the previous one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.options import child_options


@dataclass(frozen=True, slots=True)
class RegistryArgs:
    """`readers` are IAM members that pull images from elsewhere, as production does from staging."""

    location: str
    labels: Mapping[str, str]
    readers: Sequence[str] = ()


class Registry(pulumi.ComponentResource):
    """A Docker repository. `url` is the prefix of its images' names."""

    url: pulumi.Output[str]
    repository_name: pulumi.Output[str]

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:foundation:Registry", name, None, opts)

        repository = gcp.artifactregistry.Repository(
            f"{name}-repository",
            repository_id=name,
            location=args.location,
            format="DOCKER",
            labels=args.labels,
            cleanup_policies=[
                gcp.artifactregistry.RepositoryCleanupPolicyArgs(
                    id="keep-recent",
                    action="KEEP",
                    most_recent_versions=gcp.artifactregistry.RepositoryCleanupPolicyMostRecentVersionsArgs(
                        keep_count=10
                    ),
                ),
                gcp.artifactregistry.RepositoryCleanupPolicyArgs(
                    id="delete-old",
                    action="DELETE",
                    condition=gcp.artifactregistry.RepositoryCleanupPolicyConditionArgs(
                        older_than="7776000s"  # 90 days
                    ),
                ),
            ],
            opts=child_options(self, opts),
        )
        for number, member in enumerate(args.readers):
            gcp.artifactregistry.RepositoryIamMember(
                f"{name}-reader-{number}",
                repository=repository.name,
                location=args.location,
                role="roles/artifactregistry.reader",
                member=member,
                opts=pulumi.ResourceOptions(parent=self),
            )

        self.url = repository.registry_uri
        self.repository_name = repository.name
        self.register_outputs({"url": self.url})
