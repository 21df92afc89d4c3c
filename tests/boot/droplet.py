"""A droplet with its surroundings: DigitalOcean's metadata, Docker Hub, IBKR, and our service."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import ssl
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.fleet.spec import Credentials, DropletSettings, Enrolment, droplet_spec
from localcloud.machines.snapshot import IBEAM_SNAPSHOT
from tests.boot.ibkr import Ibkr
from tests.boot.image import Image
from tests.boot.internet import METADATA, SERVICE, Answer, Internet, Request
from tests.boot.machine import Machine
from tests.boot.registry import HOST, Registry

ADDRESS = "10.20.0.3"
USER, PASSWORD = "ib user", 'it\'s "quoted" back\\slash & $dollar ümläut'
TOKEN = "gateway-token-of-256-bits-in-base64-letters"
ENROLMENT_TOKEN = "enrolment-token-that-works-once-1234567890-x"
ACCOUNT = "ib-paper-a1b2c3d4"
STOCK, SNAPSHOT = "ubuntu-24-04-x64", "182556282"
_SERVICE_URL = "https://api.example"


class Droplet:
    """A context manager. IBKR knows the user."""

    def __init__(self, image: Image, folder: Path, registry: Registry) -> None:
        sites = {METADATA: _metadata, HOST: registry.site, "api.example": self._enrol}
        self.internet = Internet(image, folder, sites)
        self.enrolments: list[dict[str, str]] = []
        self._image, self._folder, self._registry = image, folder, registry
        self._key = Ed25519PrivateKey.generate()
        self._sequence = 0

    def __enter__(self) -> Droplet:
        self.internet.__enter__()
        self.ibkr = Ibkr(self.internet)
        self.ibkr.__enter__()
        self.ibkr.admin("add_user", name=USER, password=PASSWORD, mode="paper")
        self.machine = Machine(self._image, self.internet, self._folder / "droplet", ADDRESS)
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.close()
        self.ibkr.__exit__()
        self.internet.__exit__()

    def boot_declared(self, image: str = STOCK) -> None:
        """Boots a droplet that has its login from cloud-init."""
        self._boot(Credentials(USER, PASSWORD, TOKEN), image)

    def boot_snapshot(self) -> None:
        """Boots the private snapshot, which has IBeam already and starts it by a script of its own."""
        for path, content in IBEAM_SNAPSHOT.items():
            if path.startswith("/root/"):
                self.machine.write(path.lstrip("/"), content, 0o700)
        self.machine.write("root/ibeam_files/inputs/conf.yaml", "ips: {}\n")
        self.boot_declared(SNAPSHOT)

    def boot_enrolling(self) -> None:
        """Boots a droplet as the service makes them."""
        public = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()
        self._boot(Enrolment(_SERVICE_URL, ENROLMENT_TOKEN, ACCOUNT, public), STOCK)

    def _boot(self, login: Credentials | Enrolment, image: str) -> None:
        settings = DropletSettings(client_address=SERVICE, image=image, ibeam_image=self._registry.image)
        self.machine.boot(droplet_spec("local", "alice", "paper", 1, settings, login, "pulumi").user_data)

    # -- as the service ----------------------------------------------------------------------------

    @property
    def certificate(self) -> str:
        """PEM, as it lies on the droplet."""
        return self.machine.file("var/lib/ibeam/tls/certificate.pem").read_text()

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        """Asks port 5000 from the service's address, pinned to the droplet's certificate. Raises OSError."""
        pinned = ssl.create_default_context(cadata=self.certificate)
        with self.internet.client(ADDRESS, 5000, timeout=30) as plain:
            connection = http.client.HTTPSConnection(ADDRESS, 5000, context=pinned)
            connection.sock = pinned.wrap_socket(plain, server_hostname=ADDRESS)
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content else None

    def is_authenticated(self) -> bool:
        """Whether the gateway says, through the proxy, that it is logged in."""
        status, said = self.ask("POST", "/v1/api/tickle", X_Gateway_Token=TOKEN)
        return bool(status == 200 and said["iserver"]["authStatus"]["authenticated"])

    def push_login(self) -> int:
        """Signs and pushes the login; the status of the answer."""
        self._sequence += 1
        fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate)).hexdigest()
        body = json.dumps(
            {
                "account_id": ACCOUNT, "username": USER, "password": PASSWORD, "paper": True,
                "gateway_token": TOKEN, "issued_at": int(time.time()), "certificate_sha256": fingerprint,
                "sequence": self._sequence,
            }
        ).encode()  # fmt: skip
        signature = base64.b64encode(self._key.sign(b"ibeam-push\n" + body)).decode()
        return self.ask("PUT", "/agent/credentials", body, X_Signature=signature)[0]

    def _enrol(self, request: Request) -> Answer:
        if (request.method, request.path) != ("POST", "/api/v1/enrolments"):
            return Answer(404)
        self.enrolments.append(json.loads(request.body))
        return Answer(204)


def _metadata(request: Request) -> Answer:
    known = request.path == "/metadata/v1/interfaces/public/0/ipv4/address"
    return Answer(200, ADDRESS.encode()) if known else Answer(404)
