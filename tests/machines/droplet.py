"""A droplet of the shipped user data, what cloud and service answer, and the service as its agent has it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.fleet.spec import Credentials, DropletSettings, Enrolment, Environment, droplet_spec
from localcloud.machines.guest import Guest
from tests.machines.laptop import LaptopHost

STOCK, SNAPSHOT = "ubuntu-24-04-x64", "182556282"
CLIENT = "127.20.128.7"
ADDRESS = "127.20.128.8"
USER, PASSWORD = "ib user", "a-password-of-ib-user"
ACCOUNT = "ib-paper-a1b2c3d4"
GATEWAY_TOKEN = "gateway-token-of-256-bits-in-base64-letters"
ENROLMENT_TOKEN = "enrolment-token-that-works-once-1234567890-x"


class Surroundings:
    """DigitalOcean's metadata and the service's enrolments, on loopback. `answers` come before 204."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.enrolments: list[dict[str, str]] = []
        self.metadata_refusals = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Surroundings:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        surroundings = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path == "/metadata/v1/interfaces/public/0/ipv4/address"
                refused = surroundings.metadata_refusals > 0
                surroundings.metadata_refusals -= 1
                self.answer(503 if refused else 200 if known else 404, ADDRESS.encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/api/v1/enrolments":
                    self.answer(404)
                    return
                surroundings.enrolments.append(body)
                self.answer(surroundings.answers.pop(0) if surroundings.answers else 204)

            def answer(self, status: int, body: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Nothing: the test's output is its own."""

        return Handler


class Droplet:
    """A droplet, booted by its user data, and a client of its port 5000 as the service is one."""

    def __init__(self, host: LaptopHost, surroundings: Surroundings, image: str = STOCK) -> None:
        self.host, self.image = host, image
        self.surroundings = surroundings
        self.key = Ed25519PrivateKey.generate()
        self.sequence = 0
        self.user_data = ""
        self._guest: Guest | None = None
        host.environment["DROPLET_METADATA"] = surroundings.url

    def declare(self, password: str, user: str = USER, environment: Environment = "paper") -> Droplet:
        """Gives it its login by cloud-init."""
        self._describe(Credentials(user, password, GATEWAY_TOKEN), environment)
        return self

    def enrolling(self, environment: Environment = "paper") -> Droplet:
        """Makes it a run-time droplet."""
        public = base64.b64encode(self.key.public_key().public_bytes_raw()).decode()
        self._describe(Enrolment(self.surroundings.url, ENROLMENT_TOKEN, ACCOUNT, public), environment)
        return self

    def _describe(self, login: Credentials | Enrolment, environment: Environment) -> None:
        settings = DropletSettings(client_address=CLIENT, image=self.image)
        self.user_data = droplet_spec("local", "alice", environment, 1, settings, login, "pulumi").user_data

    @property
    def guest(self) -> Guest:
        assert self._guest, "it was never booted"
        return self._guest

    async def boot(self) -> None:
        self.host.console.clear()
        self._guest = Guest(self.host, self.user_data, "droplet", image=self.image)
        await self._guest.boot()

    async def listening(self) -> None:
        """Booted, and its agent answers."""
        await self.boot()
        await self.host.until_said("listening with the certificate")

    async def power_off(self) -> None:
        if self._guest is None:
            return
        await self._guest.shutdown()
        await self.host.power_off()
        for path in sorted(self.host.run.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    @property
    def certificate(self) -> str:
        """PEM, as it lies on the droplet."""
        return (self.host.root / "var/lib/ibeam/tls/certificate.pem").read_text()

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the certificate, as the service knows it."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate)).hexdigest()

    def client(self, **headers: str) -> httpx.AsyncClient:
        """Talks TLS to port 5000, and accepts the droplet's own certificate only."""
        pinned = ssl.create_default_context(cadata=self.certificate)
        pinned.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
        transport = httpx.AsyncHTTPTransport(uds=str(self.host.ports[5000]), verify=pinned)
        return httpx.AsyncClient(
            transport=transport, base_url=f"https://{ADDRESS}:5000", headers=headers, timeout=30
        )

    async def ask(self, method: str, path: str, token: str = GATEWAY_TOKEN, **more: Any) -> httpx.Response:
        async with self.client(**({"X-Gateway-Token": token} if token else {})) as client:
            return await client.request(method, path, **more)

    async def tickle(self) -> dict[str, Any]:
        """What the gateway says of its session, through the proxy."""
        answer = await self.ask("POST", "/v1/api/tickle")
        assert answer.status_code == 200, f"{answer.text}\n{self.host.text}"
        found = answer.json()
        assert isinstance(found, dict)
        return found

    async def health(self) -> dict[str, Any]:
        answer = await self.ask("GET", "/agent/health", token="")
        assert answer.status_code == 200
        found = answer.json()
        assert isinstance(found, dict)
        return found

    def message(self, **changes: Any) -> dict[str, Any]:
        """The next push of credentials, with what a test wants to be otherwise (None: left out)."""
        self.sequence += 1
        whole = {
            "account_id": ACCOUNT,
            "username": USER,
            "password": PASSWORD,
            "paper": True,
            "gateway_token": GATEWAY_TOKEN,
            "issued_at": int(time.time()),
            "certificate_sha256": self.fingerprint,
            "sequence": self.sequence,
        }
        return {key: value for key, value in (whole | changes).items() if value is not None}

    async def push(self, message: dict[str, Any], key: Ed25519PrivateKey | None = None) -> int:
        """Signs and pushes credentials; the status of the answer."""
        return await self.send("PUT", "/agent/credentials", message, key)

    async def restart(self, **changes: Any) -> int:
        """Signs and sends the order to restart the container; the status of the answer."""
        fields = {"username", "password", "paper", "gateway_token"}
        message = {key: value for key, value in self.message().items() if key not in fields}
        return await self.send("POST", "/agent/restart", message | {"action": "restart"} | changes)

    async def send(
        self, method: str, path: str, message: dict[str, Any], key: Ed25519PrivateKey | None = None
    ) -> int:
        body = json.dumps(message).encode()
        signature = base64.b64encode((key or self.key).sign(b"ibeam-push\n" + body)).decode()
        answer = await self.ask(method, path, "", content=body, headers={"X-Signature": signature})
        return answer.status_code

    async def authenticated(self) -> None:
        """Waits until the gateway is logged in. Once: a console that says so already counts."""
        await self.host.until_said("running and authenticated")

    async def without_container(self) -> None:
        await self.host.until(lambda: not self.guest.status()["containers"])

    async def with_container(self) -> None:
        await self.host.until(lambda: bool(self.guest.status()["containers"]))
        while not self.host.run.joinpath(".m/port-5010").exists():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
