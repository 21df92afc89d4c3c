"""How a GitHub workflow becomes someone in the Google project, without any key.

Workload identity federation trusts GitHub's token, on the condition that it was issued to *this*
repository: without that, any workflow of any repository could ask. Two service accounts: preview may only
look, and every workflow of the repository may be it (pull requests of forks get no token from GitHub);
deploy may change things, and only a run on the deployment branch may be it.

With `environment` (production), a run must also be in that GitHub environment, which people approve, or, to
look for drift, in the one named after it. So not the workflow's text decides who is asked, but Google.

To preview is to run the program, which needs the stack's secrets: whoever may push a branch to the repository
can read those of a project without `environment`. It creates no service account keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.options import child_options

# What a preview and a look for drift read: resources, and the state in its bucket (granted there). The
# secrets' values too, since a refresh compares them, and the state that it decrypts holds them anyway.
PREVIEW_ROLES = (
    "artifactregistry.reader",
    "cloudscheduler.viewer",
    "cloudsql.viewer",
    "compute.viewer",
    "iam.securityReviewer",
    "logging.viewer",
    "monitoring.viewer",
    "run.viewer",
    "secretmanager.secretAccessor",
    "secretmanager.viewer",
    "vpcaccess.viewer",
)
# What a deployment changes, service by service; no primitive role. The roles that hand out roles are what
# grants on secrets, service accounts and the project need.
DEPLOY_ROLES = (
    "artifactregistry.admin",
    "cloudscheduler.admin",
    "cloudsql.admin",
    "compute.admin",
    "iam.serviceAccountAdmin",
    "iam.serviceAccountUser",
    "iap.admin",
    "logging.configWriter",
    "monitoring.editor",
    "resourcemanager.projectIamAdmin",
    "run.admin",
    "secretmanager.admin",
    "vpcaccess.admin",
)


@dataclass(frozen=True, slots=True)
class CiIdentityArgs:
    """`repository` is "owner/name" at GitHub; `state_bucket` holds the Pulumi state, if it is at Google.

    `environment` is the GitHub environment whose approval a run needs; None for none.
    """

    project: str
    repository: str
    deploy_branch: str
    environment: str | None
    pool: str
    state_bucket: str | None


class CiIdentity(pulumi.ComponentResource):
    """The pool, its provider, and the two service accounts."""

    provider_name: pulumi.Output[str]
    preview: gcp.serviceaccount.Account
    deploy: gcp.serviceaccount.Account

    def __init__(self, name: str, args: CiIdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:foundation:CiIdentity", name, None, opts)
        child = child_options(self, opts)

        pool = gcp.iam.WorkloadIdentityPool(
            f"{name}-pool",
            workload_identity_pool_id=args.pool,
            display_name="GitHub workflows",
            # A deleted pool's name stays reserved for 30 days.
            opts=child.merge(pulumi.ResourceOptions(protect=True)),
        )
        provider = gcp.iam.WorkloadIdentityPoolProvider(
            f"{name}-provider",
            workload_identity_pool_id=pool.workload_identity_pool_id,
            workload_identity_pool_provider_id="github",
            attribute_mapping={
                "google.subject": "assertion.sub",
                "attribute.repository": "assertion.repository",
                "attribute.deploy": deploy_attribute(args.deploy_branch, args.environment),
            },
            attribute_condition=admitted(args.repository, args.environment),
            oidc=gcp.iam.WorkloadIdentityPoolProviderOidcArgs(
                issuer_uri="https://token.actions.githubusercontent.com"
            ),
            opts=child.merge(pulumi.ResourceOptions(protect=True)),
        )
        self.preview = self._account(
            name, "preview", PREVIEW_ROLES, "roles/storage.objectViewer", args, child
        )
        self.deploy = self._account(name, "deploy", DEPLOY_ROLES, "roles/storage.objectAdmin", args, child)
        self._may_become(f"{name}-preview", self.preview, pool, f"attribute.repository/{args.repository}")
        self._may_become(f"{name}-deploy", self.deploy, pool, "attribute.deploy/yes")

        self.provider_name = provider.name
        self.register_outputs({"provider_name": self.provider_name})

    def _account(
        self,
        name: str,
        role: str,
        grants: tuple[str, ...],
        state_role: str,
        args: CiIdentityArgs,
        child: pulumi.ResourceOptions,
    ) -> gcp.serviceaccount.Account:
        account = gcp.serviceaccount.Account(
            f"{name}-{role}",
            account_id=f"{name}-{role}",
            display_name=f"GitHub workflows: {role}",
            opts=child,
        )
        for grant in grants:
            gcp.projects.IAMMember(
                f"{name}-{role}-{grant}",
                project=args.project,
                role=f"roles/{grant}",
                member=account.member,
                opts=child,
            )
        if args.state_bucket:
            gcp.storage.BucketIAMMember(
                f"{name}-{role}-state",
                bucket=args.state_bucket,
                role=state_role,
                member=account.member,
                opts=child,
            )
        return account

    def _may_become(
        self,
        name: str,
        account: gcp.serviceaccount.Account,
        pool: gcp.iam.WorkloadIdentityPool,
        who: str,
    ) -> None:
        gcp.serviceaccount.IAMMember(
            f"{name}-federation",
            service_account_id=account.name,
            role="roles/iam.workloadIdentityUser",
            member=pool.name.apply(lambda pool_name: f"principalSet://iam.googleapis.com/{pool_name}/{who}"),
            opts=pulumi.ResourceOptions(parent=self),
        )


def admitted(repository: str, environment: str | None) -> str:
    """The CEL condition that a GitHub token must meet to become anybody here.

    A job in an environment has it at the end of its subject, and no other job can: `:` is no letter of a
    branch's name.
    """
    condition = f"assertion.repository == '{repository}'"
    if environment is None:
        return condition
    return f"{condition} && ({_runs_in(environment)} || {_runs_in(f'{environment}-drift')})"


def deploy_attribute(branch: str, environment: str | None) -> str:
    """The CEL expression that is "yes" for a run on the deployment branch that a pull request can't start.

    The branch alone isn't enough: a `pull_request_target` run carries its base branch's name.
    """
    approved = f" && {_runs_in(environment)}" if environment else ""
    return (
        f"assertion.ref == 'refs/heads/{branch}' && assertion.event_name in ['push', 'workflow_dispatch']"
        f"{approved} ? 'yes' : 'no'"
    )


def _runs_in(environment: str) -> str:
    return f"assertion.sub.endsWith(':environment:{environment}')"
