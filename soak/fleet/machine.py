"""What a droplet runs: the agent as the service knows it, and a gateway that logs in or doesn't.

The agent keeps the contract of `cloud-init/files/ibeam/agent` (which tests/machines run itself), on TLS with
the droplet's own certificate. What it was given is told to the judge at the moment it comes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import yaml
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_PREFIX = b"ibeam-push\n"
_PROBLEM = "application/problem+json"
CLOCK_SECONDS = 300
#: virtual seconds from a login's arrival until the container answers, and until it is logged in
CONTAINER_SECONDS, LOGIN_SECONDS = 6.0, 20.0
GOOD = "good-"
"""What IBKR takes for the password begins like this."""


@dataclass(frozen=True)
class Certificate:
    """A droplet's certificate, ready to serve."""

    pem: str
    sha256: str
    context: ssl.SSLContext


@dataclass
class Machine:
    """One droplet's software. Its disk outlives a reboot, its memory doesn't."""

    id: int
    user_data: str = field(repr=False)
    certificate: Certificate
    now: Callable[[], float]
    pushed: Callable[[Machine, dict[str, Any]], None]
    address: str = ""
    #: the disk
    sequence: int = 0
    enrolment: str = "asking"
    #: the memory
    login: dict[str, Any] | None = field(repr=False, default=None)
    login_at: float = 0.0
    #: what happens around it
    reachable: bool = True
    second_factor: bool = False
    competing: bool = False
    up: bool = False
    _listening: Any = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The agent's file from the user data; {} for a droplet that isn't the service's."""
        for file in (yaml.load(self.user_data or "{}", yaml.CSafeLoader) or {}).get("write_files", ()):
            if file["path"].endswith("agent.json"):
                raw = file["content"]
                plain = base64.b64decode(raw).decode() if "64" in file.get("encoding", "") else raw
                found: dict[str, Any] = json.loads(plain)
                return found
        return {}

    @property
    def logged_in(self) -> bool:
        """Whether the gateway has a session that can trade."""
        return self._state() == "ready" and not self.competing

    def _state(self) -> str:
        if self.login is None:
            return "empty"
        since = self.now() - self.login_at
        if since < CONTAINER_SECONDS:
            return "starting"
        if since < LOGIN_SECONDS:
            return "logging in"
        if not self.login["password"].startswith(GOOD):
            return "refused"
        return "second factor" if self.second_factor else "ready"

    async def start(self, port: int) -> None:
        """The boot: from now on the agent answers, if it is reachable."""
        self.up = True
        await self.listen(port)

    async def listen(self, port: int) -> None:
        """Opens the port, or not, as things are."""
        wanted = self.up and self.reachable
        if wanted and self._listening is None:
            import asyncio

            server = web.Server(self._answer, access_log=None)
            self._listening = await asyncio.get_running_loop().create_server(
                server, self.address, port, ssl=self.certificate.context
            )
        if not wanted and self._listening is not None:
            self._listening.close()
            self._listening = None

    async def stop(self) -> None:
        """The power is off: memory is empty."""
        self.up, self.login = False, None
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        asked = (request.method, request.path)
        if asked == ("PUT", "/agent/credentials"):
            return await self._signed(request, self._take)
        if asked == ("POST", "/agent/restart"):
            return await self._signed(request, self._restart)
        given = request.headers.get("X-Gateway-Token", "")
        if self.login is None or given != self.login["gateway_token"]:
            return _refusal(401)
        if request.path == "/agent/logs":
            said = {"refused": ["failed: credentials"], "second factor": ["Two-factor authentication"]}
            return web.json_response({"lines": said.get(self._state(), [])})
        if self._state() == "starting":
            return _refusal(503)
        if request.path == "/v1/api/tickle":
            ready = self._state() == "ready"
            status = {"authenticated": ready, "connected": ready, "established": ready}
            return web.json_response(
                {"iserver": {"authStatus": {**status, "competing": self.competing and ready}}}
            )
        if request.path == "/v1/api/iserver/account/orders":
            return web.json_response({"orders": [], "snapshot": True})
        return web.json_response({"accounts": []})

    async def _signed(self, request: web.BaseRequest, act: Callable[[dict[str, Any]], None]) -> web.Response:
        body = await request.read()
        settings = self.settings
        try:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(settings["push_key"]))
            key.verify(base64.b64decode(request.headers["X-Signature"]), _PREFIX + body)
        except (InvalidSignature, KeyError, ValueError):
            return _refusal(403)
        message = json.loads(body)
        mine = message["account_id"] == settings["account_id"]
        pinned = message["certificate_sha256"] == self.certificate.sha256
        timely = abs(message["issued_at"] - self.now()) <= CLOCK_SECONDS
        if not (mine and pinned and timely and message["sequence"] > self.sequence):
            return _refusal(403)
        self.sequence = message["sequence"]
        act(message)
        return web.Response(status=204)

    def _take(self, message: dict[str, Any]) -> None:
        self.pushed(self, message)
        new = self.login is None or self.login["password"] != message["password"]
        self.login = message
        if new:
            self._restart(message)

    def _restart(self, _message: dict[str, Any]) -> None:
        self.login_at, self.competing = self.now(), False


def _refusal(status: int) -> web.Response:
    return web.json_response({"status": status}, status=status, content_type=_PROBLEM)


def make_certificates(folder: Any, count: int) -> list[Certificate]:
    """So many certificates with keys of their own. Making one takes a millisecond or two."""
    from soak.certificate import loopback_certificate

    made = []
    for _ in range(count):
        path, key = loopback_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path, key)
        pem = path.read_text()
        key.unlink()
        made.append(Certificate(pem, hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest(), context))
    return made
