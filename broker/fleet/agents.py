"""The agent on a droplet, as the service sees it: signed pushes, probes, its gateway's log."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from broker.fleet.decide import LogSays, Probe, Readiness
from broker.fleet.pinned import CertificateChanged, PinnedConnections

PORT = 5000
_PREFIX = b"ibeam-push\n"
_PROBLEM = "application/problem+json"
_LOG_LINES = 60
_ORDERS_SECONDS = 6.0

#: what IBeam writes about logins (Voyz/ibeam 0.5.12, handlers/login_handler.py); the last word counts
_REFUSED = re.compile(
    r"max.?failed.?auth|invalid username password|login failed|failed: (credentials|mode)", re.I
)
_FACTOR = re.compile(r"two.?factor|second.?factor|2fa", re.I)
_IN = re.compile(r"running and authenticated|logging in succeeded", re.I)


class AgentUnreachable(Exception):
    """Nobody answers there, or not in time."""


class PushRefused(Exception):
    """The agent refuses what was sent to it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an account's agent is, and what it must show. `token` is the gateway's."""

    address: str
    certificate_sha256: str
    token: str = field(repr=False, default="")


@dataclass(frozen=True, slots=True)
class Login:
    """What is pushed."""

    username: str
    password: str = field(repr=False)
    gateway_token: str = field(repr=False)
    paper: bool = True


class Agents(Protocol):
    """What the reconciler needs of the droplets' agents."""

    def certificate(self, address: str) -> str:
        """SHA-256 (hex) of the certificate that is shown there. Raises AgentUnreachable."""
        ...

    def holds_login(self, address: str) -> bool:
        """Whether who listens there says that it has credentials. Never raises, and sends nothing."""
        ...

    def push(self, endpoint: Endpoint, account_id: str, login: Login, sequence: int, now: int) -> None:
        """Sends credentials. Raises AgentUnreachable, CertificateChanged, PushRefused."""
        ...

    def restart(self, endpoint: Endpoint, account_id: str, sequence: int, now: int) -> None:
        """Restarts the gateway's container. Raises like `push`."""
        ...

    def probe(self, endpoint: Endpoint) -> Probe:
        """How the gateway is. Never raises."""
        ...

    def logs(self, endpoint: Endpoint, lines: int) -> list[str]:
        """The gateway's last log lines, redacted by the agent. Raises like `push`."""
        ...

    def working_orders(self, endpoint: Endpoint) -> bool | None:
        """Whether orders work at the broker; None if that can't be told."""
        ...


class TlsAgents:
    """`Agents` over the network. Blocking; usable from several threads."""

    def __init__(self, sign: Callable[[bytes], bytes], timeout: float = 8.0, port: int = PORT) -> None:
        """`sign` makes Ed25519 signatures; `timeout` in seconds, for a request and its answer."""
        self._sign = sign
        self._timeout = timeout
        self._lock = threading.Lock()
        self._asked: dict[str, float] = {}
        self._connections = PinnedConnections(port)

    def certificate(self, address: str) -> str:
        """See Agents."""
        deadline = time.monotonic() + self._timeout
        try:
            return self._connections.certificate(address, deadline)
        except OSError as error:
            raise AgentUnreachable(type(error).__name__) from None

    def holds_login(self, address: str) -> bool:
        """See Agents."""
        try:
            shown = Endpoint(address, self.certificate(address))
            status, _kind, answer = self._call(shown, "GET", "/agent/health")
        except (AgentUnreachable, CertificateChanged):
            return False
        return status == 200 and isinstance(answer, dict) and answer.get("has_credentials") is True

    def push(self, endpoint: Endpoint, account_id: str, login: Login, sequence: int, now: int) -> None:
        """See Agents."""
        message = {
            "account_id": account_id,
            "username": login.username,
            "password": login.password,
            "paper": login.paper,
            "gateway_token": login.gateway_token,
            "issued_at": now,
            "certificate_sha256": endpoint.certificate_sha256,
            "sequence": sequence,
        }
        self._send_signed(endpoint, "PUT", "/agent/credentials", message)

    def restart(self, endpoint: Endpoint, account_id: str, sequence: int, now: int) -> None:
        """See Agents."""
        message = {
            "account_id": account_id,
            "issued_at": now,
            "certificate_sha256": endpoint.certificate_sha256,
            "sequence": sequence,
            "action": "restart",
        }
        self._send_signed(endpoint, "POST", "/agent/restart", message)

    def probe(self, endpoint: Endpoint) -> Probe:
        """See Agents."""
        try:
            status, kind, answer = self._call(endpoint, "POST", "/v1/api/tickle", token=True, keep=True)
            if status == 401 and kind.startswith(_PROBLEM):
                return Probe(Readiness.NO_CREDENTIALS)
            if status == 503 and kind.startswith(_PROBLEM):
                return Probe(Readiness.GATEWAY_AWAY, self._log_says(endpoint))
            if status == 401:
                return Probe(Readiness.NOT_LOGGED_IN, self._log_says(endpoint))
            if status == 429:
                return Probe(Readiness.PACED)
            if status != 200:
                return Probe(Readiness.NOT_ESTABLISHED)
            found = _readiness(answer)
            # IBKR's answer is the same for a login that waits and for one that was refused meanwhile.
            waits = found is Readiness.NOT_LOGGED_IN
            return Probe(found, self._log_says(endpoint) if waits else LogSays.NOTHING)
        except CertificateChanged:
            return Probe(Readiness.CERTIFICATE_CHANGED)
        except (AgentUnreachable, PushRefused):
            return Probe(Readiness.UNREACHABLE)

    def logs(self, endpoint: Endpoint, lines: int) -> list[str]:
        """See Agents."""
        status, _kind, answer = self._call(endpoint, "GET", f"/agent/logs?lines={lines}", token=True)
        if status != 200 or not isinstance(answer, dict):
            raise PushRefused(f"the agent answers {status}")
        return [str(line) for line in answer.get("lines") or []]

    def working_orders(self, endpoint: Endpoint) -> bool | None:
        """See Agents. IBKR answers this once in five seconds: asked more often, it can't be told.

        A list may be empty because it isn't there yet: it counts once it says to be a snapshot.
        """
        key = endpoint.certificate_sha256
        with self._lock:
            if time.monotonic() < self._asked.get(key, 0.0) + _ORDERS_SECONDS:
                return None
            self._asked[key] = time.monotonic()
        try:
            self._call(endpoint, "GET", "/v1/api/iserver/accounts", token=True)  # required before
            status, _kind, answer = self._call(endpoint, "GET", "/v1/api/iserver/account/orders", token=True)
        except (AgentUnreachable, CertificateChanged):
            return None
        orders = answer.get("orders") if status == 200 and isinstance(answer, dict) else None
        if not isinstance(orders, list):
            return None
        if any(order.get("status") not in _DONE for order in orders):
            return True
        return False if answer.get("snapshot") is True else None

    def _log_says(self, endpoint: Endpoint) -> LogSays:
        try:
            return read_log(self.logs(endpoint, _LOG_LINES))
        except (AgentUnreachable, PushRefused):
            return LogSays.NOTHING

    def _send_signed(self, endpoint: Endpoint, method: str, path: str, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        signature = base64.b64encode(self._sign(_PREFIX + body)).decode()
        headers = {"X-Signature": signature, "Content-Type": "application/json"}
        status, _kind, _answer = self._call(endpoint, method, path, body, headers)
        if status >= 500:
            raise AgentUnreachable(f"status {status}")
        if status != 204:
            raise PushRefused(f"the agent answers {status}")

    def _call(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        token: bool = False,
        keep: bool = False,
    ) -> tuple[int, str, Any]:
        """Status, content type and JSON (None if it isn't) of one request; `keep`: it may be sent twice."""
        lines = {"Host": endpoint.address, "Content-Length": str(len(body or b"")), **(headers or {})}
        if not keep:
            lines["Connection"] = "close"
        if token:
            lines["X-Gateway-Token"] = endpoint.token
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        asked = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")
        deadline = time.monotonic() + self._timeout
        try:
            answer = self._connections.request(
                endpoint.address, endpoint.certificate_sha256, asked, deadline, keep
            )
        except OSError as error:
            raise AgentUnreachable(type(error).__name__) from None  # its text stays here
        try:
            document = json.loads(answer.content) if answer.content else None
        except ValueError:
            document = None
        return answer.status, answer.content_type, document


_DONE = {"Filled", "Cancelled", "Inactive"}


def _readiness(answer: Any) -> Readiness:
    """What a tickle's answer means. Anything that isn't clearly ready isn't ready."""
    status = ((answer or {}).get("iserver") or {}).get("authStatus") if isinstance(answer, dict) else None
    if not isinstance(status, dict):
        return Readiness.NOT_LOGGED_IN
    if status.get("competing"):
        return Readiness.SESSION_TAKEN
    if not status.get("authenticated"):
        return Readiness.NOT_LOGGED_IN
    if not status.get("connected") or status.get("established") is False:
        return Readiness.NOT_ESTABLISHED
    return Readiness.READY


def read_log(lines: list[str]) -> LogSays:
    """What IBeam's last lines say about the login; the newest word counts."""
    for line in reversed(lines):
        if _IN.search(line):
            return LogSays.NOTHING
        if _FACTOR.search(line):
            return LogSays.SECOND_FACTOR
        if _REFUSED.search(line):
            return LogSays.REFUSED
    return LogSays.NOTHING
