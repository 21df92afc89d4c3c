"""Google as a gateway VM meets it: metadata server, Secret Manager, Cloud Storage, Cloud Monitoring."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any
from urllib.parse import unquote

from tests.boot.internet import Answer, Request, Site

TOKEN = "ya29.a-token-of-the-machine"
INSTANCE = {
    "instance/id": "1234567890123456789",
    "instance/zone": "projects/123456789012/zones/us-west1-b",
    "instance/name": "ibkr-gateway",
    "project/project-id": "p",
}


class Google:
    """What is kept there (`secrets` by version, `objects` by gs:// address) and was written (`series`,
    `entries` of the log).
    """

    def __init__(self) -> None:
        self.secrets: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.series: list[dict[str, Any]] = []
        self.entries: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    @property
    def sites(self) -> dict[str, Site]:
        """By host name."""
        return {
            "metadata.google.internal": self._metadata,
            "secretmanager.googleapis.com": self._secret_manager,
            "storage.googleapis.com": self._storage,
            "monitoring.googleapis.com": self._monitoring,
            "logging.googleapis.com": self._logging,
        }

    def keep_login(self, version: str, username: str, password: str) -> None:
        """Makes a secret version hold a login."""
        self.secrets[version] = json.dumps({"username": username, "password": password}).encode()

    def points(self, metric: str, mode: str) -> list[dict[str, Any]]:
        """The time series written for a metric of a gateway, the oldest first."""
        with self._lock:
            of_mode = [series for series in self.series if series["metric"]["labels"]["mode"] == mode]
        return [series for series in of_mode if series["metric"]["type"].endswith(metric)]

    def logged(self) -> list[str]:
        """The messages that reached Cloud Logging."""
        with self._lock:
            return [str(entry["jsonPayload"].get("MESSAGE")) for entry in self.entries]

    def _metadata(self, request: Request) -> Answer:
        if request.headers.get("metadata-flavor") != "Google":
            return Answer(403)
        path = request.path.removeprefix("/computeMetadata/v1/")
        if path == "instance/service-accounts/default/token":
            return _json({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"})
        return Answer(200, INSTANCE[path].encode()) if path in INSTANCE else Answer(404)

    def _secret_manager(self, request: Request) -> Answer:
        if not _is_ours(request):
            return Answer(401)
        version = request.path.removeprefix("/v1/").removesuffix(":access")
        if version not in self.secrets:
            return _json({"error": {"message": f"Secret Version [{version}] not found."}}, 404)
        return _json({"name": version, "payload": {"data": base64.b64encode(self.secrets[version]).decode()}})

    def _storage(self, request: Request) -> Answer:
        if not _is_ours(request):
            return Answer(401)
        bucket, _, rest = request.path.removeprefix("/storage/v1/b/").partition("/o/")
        found = self.objects.get(f"gs://{bucket}/{unquote(rest.partition('?')[0])}")
        return Answer(404) if found is None else Answer(200, found)

    def _monitoring(self, request: Request) -> Answer:
        if not _is_ours(request) or request.path != "/v3/projects/p/timeSeries":
            return Answer(403)
        with self._lock:
            self.series += json.loads(request.body)["timeSeries"]
        return _json({})

    def _logging(self, request: Request) -> Answer:
        if request.path != "/v2/entries:write":
            return Answer(403)
        with self._lock:
            self.entries += json.loads(request.body)["entries"]
        return _json({})


def _is_ours(request: Request) -> bool:
    return request.headers.get("authorization") == f"Bearer {TOKEN}"


def _json(content: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode(), (("Content-Type", "application/json"),))
