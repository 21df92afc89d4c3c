"""A person looks at a gateway's certificate, and accepts another one than the pinned one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from broker.brokers.client_portal.tls import check_url, fingerprint, pinned_sha256, shown_certificate
from broker.errors import (
    ConfigurationError,
    InvalidRequest,
    NotConnected,
    UnsupportedOperation,
    field_problem,
)
from broker.journal import Journal
from broker.pins import PinnedCertificates, gateway_of

if TYPE_CHECKING:
    from broker.factory import BrokerSettings

#: seconds
TIMEOUT = 10.0


@dataclass(frozen=True)
class GatewayCertificate:
    """What a gateway shows now, and what is pinned; both SHA-256 in hex. `pinned` is empty before a use."""

    gateway: str
    shown: str
    pinned: str = ""
    pinned_at: datetime | None = None
    pinned_by: str = ""


def look(settings: BrokerSettings, journal: Journal) -> GatewayCertificate:
    """Ask the configured gateway for its certificate; nothing is sent to it.

    Raises `ConfigurationError` (nothing is pinned for these settings), `UnsupportedOperation` (an account's
    gateway), `NotConnected`, `JournalUnavailable`.
    """
    return _described(settings, journal, _shown(settings))


def accept(settings: BrokerSettings, journal: Journal, sha256: str, by: str) -> GatewayCertificate:
    """Pin the certificate that the gateway shows now, if it is the one with this SHA-256.

    Raises as `look`, and `InvalidRequest` if it shows another one.
    """
    try:
        wanted = pinned_sha256(sha256)
    except ConfigurationError:
        raise InvalidRequest([field_problem("sha256", "must be 64 hex digits", sha256)]) from None
    shown = _shown(settings)
    if fingerprint(shown) != wanted:
        said = f"isn't what the gateway shows, which is {fingerprint(shown)}: nothing was changed"
        raise InvalidRequest([field_problem("sha256", said, wanted)])
    PinnedCertificates(journal.engine).accept(gateway_of(settings.ibeam_url), shown, by)
    return _described(settings, journal, shown)


def _shown(settings: BrokerSettings) -> bytes:
    if settings.broker_type != "ibeam" or not settings.ibeam_url:
        raise ConfigurationError("only with BROKER_TYPE=ibeam and an IBEAM_URL is there a pinned certificate")
    if settings.ibeam_certificate:
        raise UnsupportedOperation("an account's gateway shows what its droplet enrolled with, and no other")
    if settings.ibeam_ca_file:
        raise ConfigurationError("IBEAM_CA_FILE decides which certificate is the gateway's")
    check_url(settings.ibeam_url)
    try:
        return shown_certificate(settings.ibeam_url, TIMEOUT)
    except OSError as failure:
        said = f"{gateway_of(settings.ibeam_url)} shows no certificate: {type(failure).__name__}"
        raise NotConnected(said, doing="nothing: try again") from None


def _described(settings: BrokerSettings, journal: Journal, shown: bytes) -> GatewayCertificate:
    gateway = gateway_of(settings.ibeam_url)
    found = PinnedCertificates(journal.engine).find(gateway)
    if found is None:
        return GatewayCertificate(gateway, fingerprint(shown))
    return GatewayCertificate(gateway, fingerprint(shown), found.sha256, found.pinned_at, found.pinned_by)
