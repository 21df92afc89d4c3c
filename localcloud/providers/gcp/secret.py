"""Secret Manager: secrets and their versions."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import SECRET, SECRET_VERSION, GcpHandler, numbered, reference
from localcloud.providers.gcp.grants import SecretGrant
from localcloud.providers.resource import now
from localcloud.state import Resource

COUNTERS = "secret-versions"
PAYLOAD_LIMIT_BYTES = 64 * 1024
_SECRET_ID = re.compile(r"[a-zA-Z0-9_-]{1,255}")


class Secret(GcpHandler):
    """A secret: a name with versions and readers."""

    token = SECRET
    id_format = "projects/{project}/secrets/{secretId}"
    noun = "Secret"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if not _SECRET_ID.fullmatch(inputs["secretId"]):
            raise CloudError(
                400, f"The provided Secret ID [{inputs['secretId']}] does not match the expected format "
                "[[a-zA-Z_0-9]+].", "badRequest",
            )  # fmt: skip

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(409, f"Secret [{resource_id}] already exists.", "alreadyExists")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {
            "name": numbered(resource_id),
            "createTime": old.outputs["createTime"] if old else now(),
            "effectiveAnnotations": inputs.get("annotations") or {},
        }

    def verify_delete(self, resource: Resource) -> None:
        if resource.outputs.get("deletionProtection"):
            raise CloudError(
                400,
                "cannot destroy secret without setting deletion_protection=false and running "
                "`terraform apply`",
            )

    async def stopped(self, resource: Resource) -> None:
        """Versions and grants go with the secret."""
        for version in self.cloud.store.all(SECRET_VERSION):
            if version.id.startswith(f"{resource.id}/"):
                self.cloud.store.delete(SECRET_VERSION, version.id)
        for grant in self.cloud.store.all(SecretGrant.token):
            if grant.id.startswith(f"{resource.id}/"):
                self.cloud.store.delete(SecretGrant.token, grant.id)
        self.cloud.store.forget(COUNTERS, resource.id)


class SecretVersion(GcpHandler):
    """One payload of a secret. Numbers are never used twice; the payload is never in a message."""

    token = SECRET_VERSION
    noun = "SecretVersion"

    def identify(self, inputs: dict[str, Any]) -> str:
        secret = self._secret(inputs)
        return f"{secret}/versions/{int(self.cloud.store.notes(COUNTERS).get(secret, 0)) + 1}"

    def _secret(self, inputs: dict[str, Any]) -> str:
        return reference(str(inputs["secret"]), Secret.id_format.replace("{secretId}", "{name}"), inputs)

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        secret = self._secret(inputs)
        if self.cloud.store.get(SECRET, secret) is None:
            raise CloudError(404, f"Secret [{secret}] not found.", "notFound")
        payload = inputs.get("secretData") or inputs.get("secretDataWo") or ""
        raw = payload.encode()
        if inputs.get("isSecretDataBase64"):
            try:
                raw = base64.b64decode(payload, validate=True)
            except (binascii.Error, ValueError):
                raise CloudError(400, "secret_data isn't valid base64", "badRequest") from None
        if not raw:
            raise CloudError(400, "The secret payload is empty.", "badRequest")
        if len(raw) > PAYLOAD_LIMIT_BYTES:
            raise CloudError(400, "The secret payload is larger than 64 KiB.", "badRequest")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        if old:
            return {}
        secret, _, version = resource_id.rpartition("/versions/")
        self.cloud.store.note(COUNTERS, secret, int(version))
        return {
            "secret": secret,
            "createTime": now(),
            "destroyTime": "",
            "name": numbered(resource_id),
            "version": version,
            "secretDataWo": None,
        }


HANDLERS = (Secret, SecretVersion)
