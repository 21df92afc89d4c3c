"""Reading a secret's version as a service account, with Secret Manager's own refusals."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localcloud.cloud import CloudError
from localcloud.iam import SECRET_ACCESS, may_access_secret
from localcloud.topology import short

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.state import Resource

PROJECT_NUMBER = "100000000001"  # answers name projects by number, whatever the request used


@dataclass(frozen=True, repr=False)
class Payload:
    """A secret version's content. Its representation shows nothing of it."""

    secret: str
    version: int
    data: bytes

    def __repr__(self) -> str:
        return f"Payload({self.secret}, version {self.version})"


def access(cloud: Cloud, email: str, secret: str, version: str) -> Payload:
    """The payload of `version` (a number or "latest") of a secret, read as service account `email`.

    Raises `CloudError`: 403 without a grant (also for a secret that isn't there: who may not read
    learns nothing), 404 for a version that isn't there, 400 for a disabled one.
    """
    if not may_access_secret(cloud.store, email, secret):
        raise CloudError(
            403,
            f"Permission '{SECRET_ACCESS}' denied for resource "
            f"'projects/{cloud.settings.project}/secrets/{secret}/versions/{version}' (or it may not exist).",
            "PERMISSION_DENIED",
        )
    versions = _versions(cloud, secret)
    if not versions:
        raise CloudError(
            404,
            f"Secret [projects/{PROJECT_NUMBER}/secrets/{secret}] not found or has no versions.",
            "NOT_FOUND",
        )
    # "latest" is the highest number, even when that one is disabled: so it is in Secret Manager.
    number = max(versions) if version == "latest" else int(version) if version.isdecimal() else 0
    name = f"projects/{PROJECT_NUMBER}/secrets/{secret}/versions/{version}"
    found = versions.get(number)
    if found is None:
        raise CloudError(404, f"Secret Version [{name}] not found.", "NOT_FOUND")
    if found.inputs.get("enabled") is False:
        raise CloudError(400, f"Secret Version [{name}] is in DISABLED state.", "FAILED_PRECONDITION")
    return Payload(secret, number, _data(found))


def secret_of_revision(cloud: Cloud, email: str, secret: str, version: str, path: str) -> bytes:
    """What a revision of Cloud Run gets of a secret that its declaration names at `path`.

    Raises `CloudError` 400 in Cloud Run's words when it can't be read.
    """
    name = f"projects/{PROJECT_NUMBER}/secrets/{secret}/versions/{version}"
    try:
        return access(cloud, email, secret, version).data
    except CloudError as error:
        if error.status == 403:
            words = (
                f"Permission denied on secret: {name} for Revision service account {email}. "
                "The service account used must be granted the 'Secret Manager Secret Accessor' role "
                "(roles/secretmanager.secretAccessor) at the secret, project or higher level."
            )
        elif error.status == 404:
            words = f"Secret {name} was not found"
        else:
            words = error.message
        raise CloudError(400, f"{path}: {words}", "FAILED_PRECONDITION") from None


def _versions(cloud: Cloud, secret: str) -> dict[int, Resource]:
    found = {}
    for version in cloud.store.all("gcp:secretmanager/secretVersion:SecretVersion"):
        if short(version.inputs.get("secret")) == secret:
            number = version.outputs.get("version") or short(version.outputs.get("name") or version.id)
            found[int(number)] = version
    return found


def _data(version: Resource) -> bytes:
    text = str(version.inputs.get("secretData") or version.inputs.get("secretDataWo") or "")
    return base64.b64decode(text) if version.inputs.get("isSecretDataBase64") else text.encode()
