"""Who is at the other end: checked in the TLS handshake, so before anything is sent, the token included.

A gateway is known by a CA's or its own certificate in a PEM file, or by a pin: the SHA-256 of the one
certificate that it may show, which proves more than any CA and needs neither names nor dates.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import ssl
import time
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

from broker.errors import ConfigurationError, JournalUnavailable
from broker.pins import PinnedCertificates, gateway_of

#: how long another certificate may have been accepted before the one in use is refused, in seconds
KNOWN_SECONDS = 60.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HandshakeFailed(ssl.SSLError):
    """No TLS connection came about, so nothing was sent. `args[0]` says why."""


class CertificateChanged(HandshakeFailed):
    """Somebody answers with another certificate than the pinned one; nothing was sent."""

    def __init__(self, expected: str, shown: str) -> None:
        super().__init__(f"the gateway shows another certificate ({shown}) than the pinned one ({expected})")
        self.expected = expected
        self.shown = shown


class Pin(Protocol):
    """Decides whether a certificate is the gateway's."""

    def check(self, certificate: bytes) -> None:
        """Return if this certificate (DER) is the gateway's.

        Raises `CertificateChanged`, and `HandshakeFailed` where it can't be told.
        """


class FixedPin:
    """One certificate, given as PEM or as its SHA-256 in hex digits (with or without colons)."""

    def __init__(self, certificate: str) -> None:
        """Raises `ConfigurationError` for what is neither."""
        self.sha256 = pinned_sha256(certificate)

    def check(self, certificate: bytes) -> None:
        """See `Pin`."""
        shown = fingerprint(certificate)
        if not hmac.compare_digest(shown, self.sha256):
            raise CertificateChanged(self.sha256, shown)


class KeptPin:
    """The certificate that was seen there first, as a database keeps it (`broker.pins`)."""

    def __init__(self, kept: PinnedCertificates, url: str) -> None:
        self._kept = kept
        self._gateway = gateway_of(url)
        self._known, self._until = "", 0.0

    def check(self, certificate: bytes) -> None:
        """See `Pin`. Now and then, and for another certificate than the known one, the database is asked."""
        shown = fingerprint(certificate)
        if hmac.compare_digest(shown, self._known) and time.monotonic() < self._until:
            return
        try:
            expected = self._kept.first_seen(self._gateway, certificate)
        except JournalUnavailable as away:
            raise HandshakeFailed(away.reason) from away
        if not hmac.compare_digest(shown, expected):
            raise CertificateChanged(expected, shown)
        self._known, self._until = shown, time.monotonic() + KNOWN_SECONDS


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate (DER), hex."""
    return hashlib.sha256(certificate).hexdigest()


def pinned_sha256(certificate: str) -> str:
    """The SHA-256 (hex) that a PEM certificate or a written fingerprint stands for.

    Raises `ConfigurationError`.
    """
    text = certificate.strip()
    if text.startswith("-----BEGIN CERTIFICATE-----"):
        try:
            return fingerprint(ssl.PEM_cert_to_DER_cert(text))
        except ValueError:
            pass
    plain = text.replace(":", "").lower()
    if _SHA256.fullmatch(plain):
        return plain
    raise ConfigurationError(
        "a pinned certificate must be one PEM certificate, or its SHA-256 as 64 hex digits: "
        "`openssl x509 -noout -fingerprint -sha256 -in FILE` prints it"
    )


def check_url(url: str) -> None:
    """Raises `ConfigurationError` unless the address is one of TLS."""
    if not url.startswith("https://"):
        raise ConfigurationError("IBEAM_URL must begin with https://: orders and positions travel over it")


def context_for(ca_file: str = "", pin: Pin | None = None) -> ssl.SSLContext:
    """A context for HTTP and websocket that lets one gateway pass: by `pin`, else by the PEM file.

    Raises `ConfigurationError` with neither: connections are never left unverified.
    """
    context = create_urllib3_context()
    if pin is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin is compared instead, see `_socket_class`
    elif ca_file and Path(ca_file).is_file():
        context.check_hostname = True
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cafile=ca_file)
        except ssl.SSLError:
            raise ConfigurationError("IBEAM_CA_FILE must name a PEM file with certificates") from None
    else:
        raise ConfigurationError(
            "IBEAM_CA_FILE must name a PEM file with the gateway's certificate or its CA: "
            "connections are never left unverified"
        )
    context.sslsocket_class = _socket_class(pin)
    return context


def _socket_class(pin: Pin | None) -> type[ssl.SSLSocket]:
    class Checked(ssl.SSLSocket):
        """Its handshake ends with the check: whoever wraps a socket gets a connection that may be used."""

        def do_handshake(self, block: bool = False) -> None:
            try:
                super().do_handshake(block)
            except ssl.SSLCertVerificationError as failure:
                said = f"the gateway's certificate isn't the expected one: {failure.verify_message}"
                raise HandshakeFailed(said) from failure
            except OSError as failure:
                # A failure from here on can't be mistaken for one of a request that may have arrived.
                said = f"no TLS connection with the gateway: {type(failure).__name__}"
                raise HandshakeFailed(said) from failure
            if pin is not None:
                pin.check(self.getpeercert(binary_form=True) or b"")

    return Checked


class _Connection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.is_verified = True  # by its socket; urllib3 would warn at each request


class _Pool(HTTPSConnectionPool):
    ConnectionCls = _Connection


class Adapter(HTTPAdapter):
    """Lets requests connect with a context of ours, which alone decides who is verified and by what."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}

    def build_connection_pool_key_attributes(
        self, request: Any, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `HTTPAdapter`. Without this urllib3 would set the context's mode to what `verify` says."""
        host, _ = super().build_connection_pool_key_attributes(request, False)
        return dict(host), {"cert_reqs": self._context.verify_mode}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """See `HTTPAdapter`: nothing is changed here."""


def shown_certificate(url: str, timeout: float) -> bytes:
    """The certificate (DER) that is shown at a gateway's address. Nothing is sent.

    Raises `OSError`: nobody speaks TLS there.
    """
    address = urlsplit(url)
    context = create_urllib3_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is asked for to be compared
    where = address.hostname or "", address.port or 443
    with (
        socket.create_connection(where, timeout) as plain,
        context.wrap_socket(plain, server_hostname=address.hostname) as secured,
    ):
        return secured.getpeercert(binary_form=True) or b""
