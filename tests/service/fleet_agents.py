"""Agents on the local cloud's droplets as the service meets them: TLS with a key of their own, enrolment,
signed pushes, a gateway behind them. Written from the agent's contract (cloud-init/files/ibeam/agent).

    agents = Agents(api, enrol, folder)     # `enrol` posts to the service; every droplet that is up gets one
    agents.start()
    agents.of(account_id).pushed["password"]
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.fleet.certificates import make_certificate
from tests.fleet.local_digitalocean import LocalDigitalOcean

Enrol = Callable[[dict[str, str]], int]


def settings_of(user_data: str) -> dict[str, Any]:
    """What cloud-init would write into the agent's settings file."""
    for file in yaml.safe_load(user_data)["write_files"]:
        if file["path"].endswith("agent.json"):
            raw = file["content"]
            found = json.loads(base64.b64decode(raw) if "64" in file.get("encoding", "") else raw)
            assert isinstance(found, dict)
            return found
    raise AssertionError("no agent.json")


class Agent:
    """One droplet's agent and the gateway behind it."""

    def __init__(self, address: str, user_data: str, folder: Path) -> None:
        self.address, self.settings = address, settings_of(user_data)
        key, certificate = make_certificate(address)
        self.certificate = certificate.decode()
        self._files = folder / f"{address}.pem"
        self._files.write_bytes(key + certificate)
        self.pushed: dict[str, Any] = {}
        self.restarts = 0
        self.up = False
        self.lines = ["Starting", "running and authenticated"]
        self.session = {"authenticated": True, "connected": True, "competing": False}
        self.enrolled = 0

    def boot(self) -> None:
        """Its disk is as it was; its memory, where the login was, is empty."""
        self.up, self.pushed = True, {}
        self._server = ThreadingHTTPServer((self.address, 5000), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._files)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.up = False
        self._server.shutdown()
        self._server.server_close()

    def enrolment(self) -> dict[str, str]:
        return {
            "account_id": self.settings["account_id"],
            "token": self.settings["enrolment_token"],
            "certificate": self.certificate,
        }

    def _signed(self, body: bytes, signature: str) -> dict[str, Any]:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(self.settings["push_key"]))
        public.verify(base64.b64decode(signature), b"ibeam-push\n" + body)
        message = json.loads(body)
        assert message["account_id"] == self.settings["account_id"]
        return dict(message)

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        if path in ("/agent/credentials", "/agent/restart"):
            try:
                message = self._signed(body, headers["X-Signature"])
            except InvalidSignature:
                return 403, {}
            if message["sequence"] <= self.pushed.get("sequence", 0):
                return 409, {}
            self.restarts += path == "/agent/restart"
            self.pushed |= message
            return 204, None
        if not self.pushed or headers["X-Gateway-Token"] != self.pushed["gateway_token"]:
            return 401, {}
        if path.startswith("/agent/logs"):
            return 200, {"lines": self.lines[-int(path.rpartition("=")[2]) :]}
        if path == "/v1/api/tickle":
            return 200, {"session": "s", "iserver": {"authStatus": self.session}}
        return 404, {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, said = agent.answer(self.command, self.path, self.headers, body)
                content = b"" if said is None else json.dumps(said).encode()
                kind = "application/problem+json" if status >= 400 else "application/json"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_any  # noqa: N815 - http.server's names

            def log_message(self, *_said: object) -> None: ...

        return Handler


class Agents:
    """Runs an agent on every droplet that is up."""

    def __init__(self, api: LocalDigitalOcean, enrol: Enrol, folder: Path, kind: type[Agent] = Agent) -> None:
        self._api, self._enrol, self._folder, self._kind = api, enrol, folder, kind
        self._agents: dict[str, Agent] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agents", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End them all. Not in the loop that `enrol` needs."""
        self._ended.set()
        self._thread.join(20)
        for agent in self._agents.values():
            if agent.up:
                agent.close()

    def of(self, account_id: str) -> Agent:
        """The one agent of an account that is up."""
        [found] = [a for a in self._agents.values() if a.up and a.settings["account_id"] == account_id]
        return found

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            up = self._api.do(self._up)
            for name, agent in self._agents.items():
                if agent.up and name not in up:
                    agent.close()
            for name, spec in up.items():
                agent = self._agents.get(name) or self._kind(spec["address"], spec["user_data"], self._folder)
                self._agents[name] = agent
                if not agent.up:
                    agent.boot()
                if agent.enrolled not in (204, 403):
                    agent.enrolled = self._enrol(agent.enrolment())

    def _up(self) -> dict[str, dict[str, Any]]:
        off = {f"droplet/{d['id']}" for d in self._api.account.list_droplets() if d["status"] != "active"}
        specs = self._api.cloud.machines.specs
        return {name: dict(spec) for name, spec in specs.items() if name not in off}
