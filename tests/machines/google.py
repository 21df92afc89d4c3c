"""The metadata server and Secret Manager, as far as a machine's scripts ask them."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

TOKEN = "a-token-of-the-machine"


class GoogleStandIn:
    """Serves tokens and secret versions on loopback. `refusals` answers that come before the right one."""

    def __init__(self) -> None:
        self.secrets: dict[str, bytes] = {}
        self.refusals: list[tuple[int, str]] = []
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> GoogleStandIn:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What a machine's environment says of it."""
        host = f"127.0.0.1:{self._server.server_port}"
        return {
            "GCE_METADATA_HOST": host,
            "SECRET_MANAGER_ENDPOINT": f"http://{host}/secretmanager",
            "MONITORING_ENDPOINT": f"http://{host}/monitoring",
        }

    def keep_login(self, version: str, username: str, password: str) -> None:
        """Makes a secret version hold a login."""
        self.secrets[version] = json.dumps({"username": username, "password": password}).encode()

    def answer(self, path: str, headers: Any) -> tuple[int, Any]:
        """What a request gets."""
        self.requests.append(path)
        if path.startswith("/computeMetadata/"):
            if headers.get("Metadata-Flavor") != "Google":
                return 403, {}
            if not path.endswith("/token"):
                return 200, path.rpartition("/")[2]  # an id, a zone: whatever is asked for
            return 200, {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"error": {"message": "Request had invalid authentication credentials."}}
        if path.startswith("/monitoring/"):
            return 200, {}
        if self.refusals:
            status, message = self.refusals.pop(0)
            return status, {"error": {"message": message}}
        version = path.removeprefix("/secretmanager/v1/").removesuffix(":access")
        if version not in self.secrets:
            return 404, {"error": {"message": f"Secret Version [{version}] not found."}}
        data = base64.b64encode(self.secrets[version]).decode()
        return 200, {"name": version, "payload": {"data": data}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        google = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = google.answer(self.path, self.headers)
                content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        return Handler
