"""Accounts, grants, secrets, keys, buckets and pools: rules and the names that outlive deletion."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.cloud import CloudError
from localcloud.iam import may_access_secret
from localcloud.providers.gcp.base import (
    ACCOUNT,
    BUCKET,
    CRYPTO_KEY,
    ENABLED,
    KEY_RING,
    REPOSITORY,
    SECRET,
    SECRET_VERSION,
)
from localcloud.providers.gcp.grants import BucketGrant, ProjectGrant, SecretGrant
from localcloud.providers.gcp.identity import CUSTOM_ROLE, POOL, POOL_PROVIDER, RESERVED
from localcloud.providers.gcp.keeping import OBJECT
from localcloud.secrets import access
from tests.providers.conftest import Declared, refusals

EMAIL = "api@local.iam.gserviceaccount.com"
ACCESSOR = "roles/secretmanager.secretAccessor"


@pytest.fixture
async def project(declared: Declared) -> Declared:
    """An account and a secret."""
    await declared(ACCOUNT, accountId="api")
    await declared(SECRET, secretId="token", replication={"auto": {}})
    return declared


async def test_an_account_has_an_email_and_a_member_name(project: Declared) -> None:
    found = project.provider.cloud.store.all(ACCOUNT)[0].outputs
    assert found["email"] == EMAIL
    assert found["member"] == f"serviceAccount:{EMAIL}"
    assert found["name"] == f"projects/local/serviceAccounts/{EMAIL}"
    with pytest.raises(CloudError) as refused:
        await project(ACCOUNT, accountId="api")
    assert refused.value.status == 409
    assert (await project(ACCOUNT, accountId="api", createIgnoreAlreadyExists=True)).outputs["email"] == EMAIL


async def test_a_secret_is_read_by_whom_it_is_granted_to_and_by_nobody_else(project: Declared) -> None:
    store = project.provider.cloud.store
    version = await project(SECRET_VERSION, secret="projects/local/secrets/token", secretData="hunter2")
    assert not may_access_secret(store, EMAIL, "token")
    grant = {"secretId": "token", "role": ACCESSOR, "member": f"serviceAccount:{EMAIL}"}
    made = await project(SecretGrant.token, **grant)
    assert made.id == f"projects/local/secrets/token/{ACCESSOR}/serviceAccount:{EMAIL}"
    assert access(project.provider.cloud, EMAIL, "token", version.outputs["version"]).data == b"hunter2"
    await project.handler(SecretGrant.token).delete(made.id)
    with pytest.raises(CloudError, match="denied"):
        access(project.provider.cloud, EMAIL, "token", "1")


async def test_versions_are_counted_up_and_never_used_twice(project: Declared) -> None:
    first = await project(SECRET_VERSION, secret="token", secretData="a")
    second = await project(SECRET_VERSION, secret="token", secretData="b")
    await project.handler(SECRET_VERSION).delete(second.id)
    third = await project(SECRET_VERSION, secret="token", secretData="c")
    assert [v.outputs["version"] for v in (first, second, third)] == ["1", "2", "3"]
    assert third.outputs["name"] == "projects/100000000001/secrets/token/versions/3"


async def test_a_version_may_name_its_secret_by_the_projects_number(project: Declared) -> None:
    made = await project(SECRET_VERSION, secret="projects/100000000001/secrets/token", secretData="a")
    assert made.id == "projects/local/secrets/token/versions/1"


async def test_a_secret_takes_its_versions_and_grants_along(project: Declared) -> None:
    version = await project(SECRET_VERSION, secret="token", secretData="a")
    member = f"serviceAccount:{EMAIL}"
    grant = await project(SecretGrant.token, secretId="token", role=ACCESSOR, member=member)
    await project.handler(SECRET).delete("projects/local/secrets/token")
    assert await project.handler(SECRET_VERSION).read(version.id) is None
    assert await project.handler(SecretGrant.token).read(grant.id) is None


@pytest.mark.parametrize(
    ("token", "inputs", "status", "words"),
    [
        (SECRET, {"secretId": "token", "replication": {"auto": {}}}, 409, "already exists"),
        (SECRET, {"secretId": "to ken", "replication": {"auto": {}}}, 400, "expected format"),
        (
            SECRET_VERSION,
            {"secret": "none", "secretData": "x"},
            404,
            "Secret [projects/local/secrets/none] not",
        ),
        (SECRET_VERSION, {"secret": "token", "secretData": ""}, 400, "payload is empty"),
        (SECRET_VERSION, {"secret": "token", "secretData": "x" * 65537}, 400, "larger than 64 KiB"),
        (
            SecretGrant.token,
            {"secretId": "none", "role": ACCESSOR, "member": "allUsers"},
            404,
            "secrets/none' was not found",
        ),
        (
            SecretGrant.token,
            {
                "secretId": "token",
                "role": ACCESSOR,
                "member": "serviceAccount:no@local.iam.gserviceaccount.com",
            },
            400,
            "Service account no@local.iam.gserviceaccount.com does not exist",
        ),
        (
            SecretGrant.token,
            {"secretId": "token", "role": "roles/secretsmanager.accessor", "member": "allUsers"},
            400,
            "is not supported for this resource",
        ),
        (
            ProjectGrant.token,
            {"project": "local", "role": "roles/viewer", "member": "allUsers"},
            400,
            "cannot be set for resources of type project",
        ),
        (
            ProjectGrant.token,
            {"project": "local", "role": "projects/local/roles/none", "member": f"serviceAccount:{EMAIL}"},
            400,
            "is not supported",
        ),
        (KEY_RING, {"name": "ring", "location": "moon"}, 404, "locations/moon"),
        (CRYPTO_KEY, {"name": "key", "keyRing": "none"}, 404, "KeyRing none not found"),
        (BUCKET, {"name": "Bucket", "location": "US"}, 400, "Invalid bucket name"),
        (BUCKET, {"name": "bucket", "location": "MOON"}, 400, "location constraint"),
        (OBJECT, {"bucket": "none", "name": "o", "content": "x"}, 404, "bucket does not exist"),
        (REPOSITORY, {"repositoryId": "r", "location": "us-west1", "format": "DOKER"}, 400, "DOKER"),
        (
            POOL_PROVIDER,
            {"workloadIdentityPoolId": "none", "workloadIdentityPoolProviderId": "github"},
            404,
            "not found",
        ),
    ],
)
async def test_what_google_would_refuse_is_refused(
    project: Declared, token: str, inputs: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(CloudError) as refused:
        await project(token, **inputs)
    assert refused.value.status == status
    assert words in refused.value.message


async def test_a_payload_is_never_in_a_message(project: Declared) -> None:
    with pytest.raises(CloudError) as refused:
        await project(SECRET_VERSION, secret="token", secretData="!hunter2!", isSecretDataBase64=True)
    assert "hunter2" not in refused.value.message


async def test_a_grant_made_twice_is_one_grant(project: Declared) -> None:
    grant = {"project": "local", "role": "roles/logging.logWriter", "member": f"serviceAccount:{EMAIL}"}
    assert (await project(ProjectGrant.token, **grant)).id == (await project(ProjectGrant.token, **grant)).id


async def test_a_custom_role_can_be_granted(project: Declared) -> None:
    role = await project(CUSTOM_ROLE, roleId="reader", title="Reader", permissions=["run.services.get"])
    grant = {"project": "local", "role": role.outputs["name"], "member": f"serviceAccount:{EMAIL}"}
    await project(ProjectGrant.token, **grant)
    with pytest.raises(CloudError, match="Permission nonsense is not valid"):
        await project(CUSTOM_ROLE, roleId="other", title="Other", permissions=["nonsense"])


async def test_the_owner_role_is_refused_at_preview(declared: Declared) -> None:
    assert "role" in list(refusals(declared, ProjectGrant.token, {"project": "local", "role": "roles/owner"}))


async def test_a_key_ring_leaves_its_name_behind_for_ever(declared: Declared) -> None:
    ring = await declared(KEY_RING, name="ring", location="us-west1")
    await declared(CRYPTO_KEY, name="key", keyRing=ring.id)
    await declared.handler(CRYPTO_KEY).delete(f"{ring.id}/cryptoKeys/key")
    await declared.handler(KEY_RING).delete(ring.id)
    assert not declared.provider.cloud.store.all(KEY_RING), "`destroy` must leave an empty stack"
    with pytest.raises(CloudError, match="already exists") as refused:
        await declared(KEY_RING, name="ring", location="us-west1")
    assert refused.value.status == 409


async def test_a_pools_name_comes_free_again_after_30_days(declared: Declared) -> None:
    pool = await declared(POOL, workloadIdentityPoolId="github")
    await declared.handler(POOL).delete(pool.id)
    with pytest.raises(CloudError, match="already exists"):
        await declared(POOL, workloadIdentityPoolId="github")
    store = declared.provider.cloud.store
    store.note(RESERVED, pool.id, store.notes(RESERVED)[pool.id] - 31 * 86400)
    await declared(POOL, workloadIdentityPoolId="github")


async def test_githubs_issuer_is_trusted_only_under_a_condition(declared: Declared) -> None:
    await declared(POOL, workloadIdentityPoolId="github")
    provider = {
        "workloadIdentityPoolId": "github",
        "workloadIdentityPoolProviderId": "github",
        "oidc": {"issuerUri": "https://token.actions.githubusercontent.com"},
        "attributeMapping": {"google.subject": "assertion.sub"},
    }
    with pytest.raises(CloudError, match="condition"):
        await declared(POOL_PROVIDER, **provider)
    made = await declared(POOL_PROVIDER, **provider, attributeCondition="assertion.repository == 'a/b'")
    assert made.outputs["name"].startswith("projects/100000000001/locations/global/workloadIdentityPools/")


async def test_a_bucket_with_objects_is_deleted_only_by_force(declared: Declared) -> None:
    await declared(BUCKET, name="state", location="us-west1")
    made = await declared(OBJECT, bucket="state", name="o", content="hello")
    assert made.outputs["md5hash"] == "XUFAKrxLKna5cZ2REBfFkg=="
    with pytest.raises(CloudError, match="force_destroy"):
        await declared.handler(BUCKET).delete("state")
    await declared.handler(BUCKET).update(
        "state", {"name": "state", "location": "us-west1", "forceDestroy": True}
    )
    await declared.handler(BUCKET).delete("state")
    assert not declared.provider.cloud.store.all(OBJECT)


async def test_grants_on_a_bucket_that_is_gone_are_gone(declared: Declared) -> None:
    await declared(BUCKET, name="state", location="us-west1")
    grant = await declared(BucketGrant.token, bucket="state", role="roles/storage.admin", member="user:a@b.c")
    assert grant.id == "b/state/roles/storage.admin/user:a@b.c"
    await declared.handler(BUCKET).delete("state")
    assert await declared.handler(BucketGrant.token).read(grant.id) is None


async def test_a_registry_says_where_its_images_are(declared: Declared) -> None:
    made = await declared(REPOSITORY, repositoryId="ibkr", location="us-west1", format="DOCKER")
    assert made.outputs["registryUri"] == "us-west1-docker.pkg.dev/local/ibkr"
    assert made.outputs["effectiveLabels"] == {"goog-pulumi-provisioned": "true"}


async def test_nothing_works_before_its_api_is_switched_on(declared: Declared) -> None:
    api = "gcp:projects/service:Service"
    store = declared.provider.cloud.store
    store.forget(ENABLED, "secretmanager.googleapis.com")
    with pytest.raises(CloudError, match="has not been used in project local before or it is disabled"):
        await declared(SECRET, secretId="token", replication={"auto": {}})
    kept = await declared(api, service="secretmanager.googleapis.com", disableOnDestroy=False)
    await declared(SECRET, secretId="token", replication={"auto": {}})
    await declared.handler(api).delete(kept.id)
    await declared(SECRET, secretId="other", replication={"auto": {}})
    switched_off = await declared(api, service="secretmanager.googleapis.com", disableOnDestroy=True)
    await declared.handler(api).delete(switched_off.id)
    with pytest.raises(CloudError, match="is disabled"):
        await declared(SECRET, secretId="third", replication={"auto": {}})
