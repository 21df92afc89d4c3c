"""What is outside the machines: a network namespace with the cloud's metadata server and the internet's
sites.

Everything that listens here runs in the test's process, on sockets that were opened in that namespace. Sites
have certificates of the image's authority under their real names, so user data and programs run unchanged.
"""

from __future__ import annotations

import ctypes
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.boot.image import Image

METADATA = "169.254.169.254"
SITES = "198.51.100.10"
"""Where every site of the internet is (TEST-NET-2)."""
SERVICE = "10.8.0.2"
"""Where the API service's connections come from: the connector, or the NAT's address for droplets."""
NEIGHBOUR = "10.20.0.99"
"""Somebody else in the VPC."""
_ROUTER = "10.20.0.1"
_CLONE_NEWNET = 0x40000000
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A request to a site; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What a site answers."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Site = Callable[[Request], Answer]


class Internet:
    """A context manager. `sites` by host name may change while machines run."""

    def __init__(self, image: Image, folder: Path, sites: Mapping[str, Site]) -> None:
        self.sites = dict(sites)
        self._namespace = ThreadPoolExecutor(1, initializer=_new_network)
        self._thread = self._namespace.submit(threading.get_native_id).result()
        self._servers: list[ThreadingHTTPServer] = []
        self._context = _tls(image, folder, [name for name in sites if name != METADATA])

    def __enter__(self) -> Internet:
        self._ip("link", "set", "lo", "up")
        for address in (METADATA, SITES, SERVICE, NEIGHBOUR, _ROUTER):
            self._ip("address", "add", f"{address}/32", "dev", "lo")
        self._serve(METADATA, 80, None)
        self._serve(SITES, 80, None)
        self._serve(SITES, 443, self._context)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._namespace.shutdown()

    @property
    def hosts(self) -> str:
        """Lines of /etc/hosts that lead to the sites."""
        addresses = {name: METADATA if name.startswith("metadata.") else SITES for name in self.sites}
        return "".join(f"{address} {name}\n" for name, address in addresses.items() if name != METADATA)

    def connect(self, name: str, pid: int, address: str) -> None:
        """Lays a cable between a machine, known by a process of it, and here."""
        outside = f"v{name[-12:]}"
        self._ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self._ip("link", "set", outside, "up")
        self._ip("route", "replace", f"{address}/32", "dev", outside)
        there = ["nsenter", "-t", str(pid), "-n", "ip"]
        for words in (
            ["link", "set", "eth0", "up"],
            ["address", "add", f"{address}/32", "dev", "eth0"],
            ["route", "add", f"{_ROUTER}/32", "dev", "eth0"],
            ["route", "add", "default", "via", _ROUTER],
        ):
            subprocess.run([*there, *words], check=True, capture_output=True)

    def forget(self, name: str) -> None:
        """Removes a machine's cable, which is gone already where the machine is."""
        self._ip("link", "del", f"v{name[-12:]}", check=False)

    def call(self, function: Callable[[], T]) -> T:
        """Calls something here: a socket that it opens belongs to this side of the cable."""
        return self._namespace.submit(function).result()

    def client(self, address: str, port: int, source: str = SERVICE, timeout: float = 5) -> socket.socket:
        """A connection to a machine. Raises OSError where nobody answers."""
        return self.call(lambda: socket.create_connection((address, port), timeout, (source, 0)))

    def listen(self, port: int) -> socket.socket:
        """A listening socket of the sites' address."""
        return self.call(lambda: socket.create_server((SITES, port), backlog=64))

    def _serve(self, address: str, port: int, context: ssl.SSLContext | None) -> None:
        server = ThreadingHTTPServer((address, port), _handler(self), bind_and_activate=False)
        server.daemon_threads = True
        server.socket.close()
        plain = self.call(lambda: socket.create_server((address, port), backlog=64))
        server.socket = (
            context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) if context else plain
        )
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def _ip(self, *words: str, check: bool = True) -> None:
        subprocess.run(
            ["nsenter", f"--net=/proc/{os.getpid()}/task/{self._thread}/ns/net", "ip", *words],
            check=check, capture_output=True,
        )  # fmt: skip


def _new_network() -> None:
    """Gives the thread that calls it a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace can't be made")


def _handler(internet: Internet) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def _do(self) -> None:
            host = self.headers.get("Host", "").partition(":")[0]
            site = internet.sites.get(host)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = site(Request(self.command, self.path, headers, body)) if site else Answer(404)
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = _do  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing: the tests' output is their own."""

    return Handler


def _tls(image: Image, folder: Path, names: list[str]) -> ssl.SSLContext:
    """A server's context with one certificate for all names."""
    issuer = x509.load_pem_x509_certificate(image.authority.read_bytes())
    issuer_key = serialization.load_pem_private_key(image.authority_key.read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    pem = folder / "sites.pem"
    pem.touch(mode=0o600)
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
