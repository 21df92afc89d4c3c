"""What keeps things: keys, buckets and their objects, image repositories."""

from __future__ import annotations

import base64
import hashlib
import re
import time
import zlib
from typing import Any

from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import BUCKET, CRYPTO_KEY, KEY_RING, REPOSITORY, GcpHandler, plain
from localcloud.providers.gcp.catalog import MULTI_REGIONS, REGIONS
from localcloud.providers.gcp.identity import FOREVER, is_reserved, reserve
from localcloud.providers.resource import not_found, now
from localcloud.secrets import PROJECT_NUMBER
from localcloud.state import Resource

OBJECT = "gcp:storage/bucketObject:BucketObject"
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_REPOSITORY_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
FORMATS = frozenset({"DOCKER", "MAVEN", "NPM", "PYTHON", "APT", "YUM", "GO", "GENERIC", "KFP"})


class KeyRing(GcpHandler):
    """A key ring. Google never deletes one: deleting it only takes it out of the state."""

    token = KEY_RING
    id_format = "projects/{project}/locations/{location}/keyRings/{name}"
    noun = "KeyRing"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if inputs["location"] not in REGIONS | MULTI_REGIONS | {"global"}:
            raise not_found(f"projects/{inputs['project']}/locations/{inputs['location']}")
        if old is None and is_reserved(self.cloud, self.identify(inputs)):
            raise self.exists(self.identify(inputs), inputs)

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(409, f"KeyRing {resource_id} already exists.", "alreadyExists")

    async def stopped(self, resource: Resource) -> None:
        reserve(self.cloud, resource.id, FOREVER)


class CryptoKey(GcpHandler):
    """A key. Its versions are destroyed with it, its name never comes free."""

    token = CRYPTO_KEY
    id_format = "{keyRing}/cryptoKeys/{name}"
    noun = "CryptoKey"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if self.cloud.store.get(KEY_RING, inputs["keyRing"]) is None:
            raise CloudError(404, f"KeyRing {inputs['keyRing']} not found.", "notFound")
        if old is None and is_reserved(self.cloud, self.identify(inputs)):
            raise self.exists(self.identify(inputs), inputs)

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(409, f"CryptoKey {resource_id} already exists.", "alreadyExists")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "primaries": [{"name": f"{resource_id}/cryptoKeyVersions/1", "state": "ENABLED"}]
        }
        if not inputs.get("versionTemplate"):
            algorithm = "GOOGLE_SYMMETRIC_ENCRYPTION"
            found["versionTemplate"] = {"algorithm": algorithm, "protectionLevel": "SOFTWARE"}
        found["destroyScheduledDuration"] = inputs.get("destroyScheduledDuration") or "2592000s"
        found["importOnly"] = bool(inputs.get("importOnly"))
        return found

    async def stopped(self, resource: Resource) -> None:
        reserve(self.cloud, resource.id, FOREVER)


class Bucket(GcpHandler):
    """A bucket. Names are the whole world's; here the whole world is this cloud."""

    token = BUCKET
    id_format = "{name}"
    noun = "bucket"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if not _BUCKET_NAME.fullmatch(inputs["name"]) or "goog" in inputs["name"][:4]:
            raise CloudError(400, f"Invalid bucket name: '{inputs['name']}'", "invalid")
        if inputs["location"].lower() not in REGIONS | MULTI_REGIONS:
            raise CloudError(
                400, f"The specified location constraint is not valid: {inputs['location']}", "invalid"
            )

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(
            409,
            "Your previous request to create the named bucket succeeded and you already own it.",
            "conflict",
        )

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {
            "location": inputs["location"].upper(),
            "projectNumber": int(PROJECT_NUMBER),
            "publicAccessPrevention": inputs.get("publicAccessPrevention") or "inherited",
            "selfLink": f"https://www.googleapis.com/storage/v1/b/{resource_id}",
            "timeCreated": old.outputs["timeCreated"] if old else now(),
            "uniformBucketLevelAccess": bool(inputs.get("uniformBucketLevelAccess")),
            "updated": now(),
            "url": f"gs://{resource_id}",
        }

    def verify_delete(self, resource: Resource) -> None:
        objects = [o for o in self.cloud.store.all(OBJECT) if o.outputs["bucket"] == resource.id]
        if objects and not resource.outputs.get("forceDestroy"):
            raise CloudError(
                409,
                f"Error trying to delete bucket {resource.id} containing objects without "
                "`force_destroy` set to true",
                "conflict",
            )

    async def stopped(self, resource: Resource) -> None:
        for found in self.cloud.store.all(OBJECT):
            if found.outputs["bucket"] == resource.id:
                self.cloud.store.delete(OBJECT, found.id)


class BucketObject(GcpHandler):
    """An object with text content; its payload is kept in the (encrypted) store."""

    token = OBJECT
    id_format = "{bucket}-{name}"
    noun = "object"
    adopts = True  # writing an object again overwrites it

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if self.cloud.store.get(BUCKET, inputs["bucket"]) is None:
            raise CloudError(404, "The specified bucket does not exist.", "notFound")
        if inputs.get("source"):
            raise CloudError(501, "the local cloud stores objects given by content, not by source")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        content = (inputs.get("content") or "").encode()
        digest = hashlib.md5(content, usedforsecurity=False)
        bucket, name = inputs["bucket"], inputs["name"]
        link = f"https://www.googleapis.com/storage/v1/b/{bucket}/o/{name}"
        return {
            "contentType": inputs.get("contentType") or "text/plain; charset=utf-8",
            "crc32c": base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode(),
            "generation": time.time_ns() // 1000,
            "md5hash": base64.b64encode(digest.digest()).decode(),
            "md5hexhash": digest.hexdigest(),
            "mediaLink": f"{link}?alt=media",
            "outputName": name,
            "selfLink": link,
            "storageClass": inputs.get("storageClass") or "STANDARD",
        }


class Repository(GcpHandler):
    """An Artifact Registry repository. Images aren't kept in it: their names stand for checkouts."""

    token = REPOSITORY
    id_format = "projects/{project}/locations/{location}/repositories/{repositoryId}"
    noun = "Repository"

    def complete(self, inputs: dict[str, Any]) -> dict[str, Any]:
        filled = super().complete(inputs)
        if filled.get("location") is None and self.config.get("region"):
            filled["location"] = self.config["region"]
        return filled

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        location = inputs.get("location") or ""
        if location not in REGIONS | MULTI_REGIONS:
            raise CloudError(
                403, f"Permission denied on 'locations/{location}' (or it may not exist).", "forbidden"
            )
        if not _REPOSITORY_ID.fullmatch(inputs["repositoryId"]):
            raise CloudError(400, f"Invalid repository id '{inputs['repositoryId']}'.", "badRequest")
        if inputs["format"].upper() not in FORMATS:
            raise CloudError(400, f"Invalid repository format '{inputs['format']}'.", "badRequest")

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(409, "the repository already exists", "alreadyExists")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        host = f"{plain(inputs['location'])}-docker.pkg.dev"
        return {
            "createTime": old.outputs["createTime"] if old else now(),
            "name": inputs["repositoryId"],
            "registryUri": f"{host}/{inputs['project']}/{inputs['repositoryId']}",
            "updateTime": now(),
        }


HANDLERS = (KeyRing, CryptoKey, Bucket, BucketObject, Repository)
