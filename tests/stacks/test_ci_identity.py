"""That the identities of CI may do what a deployment and a look for drift need, whatever is declared."""

from __future__ import annotations

import pytest

from components.ci_identity import DEPLOY_ROLES, PREVIEW_ROLES
from tests.stacks.inventory import VARIANTS
from tests.stacks.plan import plan_of, settings_of

# Google service -> what changes it, and what reads it. "": another grant than a role on the project.
NEEDED = {
    "artifactregistry": ("artifactregistry.admin", "artifactregistry.reader"),
    "cloudrunv2": ("run.admin", "run.viewer"),
    "cloudscheduler": ("cloudscheduler.admin", "cloudscheduler.viewer"),
    "compute": ("compute.admin", "compute.viewer"),
    "iap": ("iap.admin", "iam.securityReviewer"),
    "kms": (
        "",
        "iam.securityReviewer",
    ),  # grants on the fleet's key: the foundation lets the deployer make them
    "logging": ("logging.configWriter", "logging.viewer"),
    "monitoring": ("monitoring.editor", "monitoring.viewer"),
    "projects": ("resourcemanager.projectIamAdmin", "iam.securityReviewer"),
    "secretmanager": ("secretmanager.admin", "secretmanager.viewer"),
    "serviceaccount": ("iam.serviceAccountAdmin", "iam.securityReviewer"),
    "sql": ("cloudsql.admin", "cloudsql.viewer"),
    "vpcaccess": ("vpcaccess.admin", "vpcaccess.viewer"),
}
ENVIRONMENTS = [name for name, (stack, _) in VARIANTS.items() if stack in ("staging", "prod")]


@pytest.mark.parametrize("variant", ENVIRONMENTS)
def test_a_deployment_may_change_and_a_look_may_read_all_that_an_environment_declares(variant: str) -> None:
    services = {
        found.type.split(":")[1].partition("/")[0]
        for found in plan_of(settings_of(*VARIANTS[variant])).resources
        if found.type.startswith("gcp:")
    }
    for service in sorted(services):
        assert service in NEEDED, f"{service} is new: which roles do CI's identities need for it?"
        changes, reads = NEEDED[service]
        assert not changes or changes in DEPLOY_ROLES, f"a deployment can't change {service}"
        assert reads in PREVIEW_ROLES, f"a look for drift can't read {service}"


def test_who_only_looks_may_change_nothing() -> None:
    for role in PREVIEW_ROLES:
        reads = role.rpartition(".")[2] in ("reader", "viewer", "securityReviewer", "secretAccessor")
        assert reads, f"{role} isn't one of Google's reading roles"
