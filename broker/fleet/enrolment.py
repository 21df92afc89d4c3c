"""A droplet makes itself known: its token is ours and unused, and its address shows its certificate."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.fleet.agents import Agents, AgentUnreachable
from broker.fleet.digitalocean import DigitalOceanError, Droplets, NotFound, Priority
from broker.fleet.metrics import FleetMetrics
from broker.fleet.repository import Conflict, Repository

log = logging.getLogger(__name__)

_LARGEST = 16 * 1024


class EnrolmentRefused(Exception):
    """The droplet isn't ours, or not any more. The agent doesn't ask again; who asks learns no reason."""


class EnrolmentLater(Exception):
    """It can't be told yet: the agent asks again."""


Alarm = Callable[[str, str], None]


class Enroller:
    """Answers droplets. Blocking; usable from several threads."""

    def __init__(
        self,
        repository: Repository,
        droplets: Droplets,
        agents: Agents,
        alarm: Alarm,
        wake: Callable[[], None] = lambda: None,
        metrics: FleetMetrics | None = None,
    ) -> None:
        """`alarm(kind, text)` tells people; `wake` has a pass run soon."""
        self._metrics = metrics or FleetMetrics()
        self._repository = repository
        self._droplets = droplets
        self._agents = agents
        self._alarm = alarm
        self._wake = wake

    def enrol(self, account_id: str, token: str, certificate: str) -> None:
        """Raises EnrolmentRefused (and alarms) and EnrolmentLater.

        A second use is refused, unless it is the same droplet whose first answer got lost.
        """
        digest = _digest(certificate)
        found = self._repository.find_enrolment(account_id, token)
        account = self._repository.get(account_id) if found is not None else None
        if found is None or account is None or not digest:
            raise self._refuse(account_id, "unknown_token", "a token that isn't ours, or no certificate")
        if found.used_at is not None:
            if account.certificate_sha256 == digest and not found.expired:
                return
            raise self._refuse(account_id, "used_token", "a token that was used before", found.id)
        if found.expired:
            raise self._refuse(account_id, "expired_token", "a token that has expired", found.id)
        if account.do_droplet_id is None:
            raise EnrolmentLater
        try:
            droplet = self._droplets.get(account.do_droplet_id, Priority.USER)
        except NotFound:
            raise EnrolmentLater from None
        except DigitalOceanError:
            raise EnrolmentLater from None
        if droplet.tag("enrolment") != found.id:
            what = f"a token that isn't droplet {droplet.id}'s"
            raise self._refuse(account_id, "other_droplet", what, found.id)
        if droplet.id in self._repository.tombstones():
            what = f"droplet {droplet.id}, which is being deleted"
            raise self._refuse(account_id, "condemned_droplet", what, found.id)
        if not droplet.address:
            raise EnrolmentLater
        try:
            shown = self._agents.certificate(droplet.address)
        except AgentUnreachable:
            raise EnrolmentLater from None
        if shown != digest:
            what = f"a certificate that droplet {droplet.id} doesn't show"
            raise self._refuse(account_id, "other_certificate", what, found.id)
        try:
            self._repository.use_enrolment(account, found.id, certificate, digest)
        except Conflict:
            raise EnrolmentLater from None
        self._wake()

    def _refuse(self, account_id: str, reason: str, what: str, enrolment: str = "") -> EnrolmentRefused:
        shown = account_id[:48]
        if enrolment:
            self._repository.refuse_enrolment(enrolment)
        self._metrics.enrolments_refused.labels(reason).inc()
        log.warning("enrolment refused", extra={"account_id": shown, "reason": reason})
        # An id without a token of ours comes from whoever, and must not make every alert another one.
        whose = f"an enrolment for account {shown!r}" if enrolment else "an enrolment"
        self._alarm("enrolment_refused", f"{whose} was refused: {what}")
        return EnrolmentRefused(what)


def _digest(certificate: str) -> str:
    """SHA-256 (hex) of the one certificate in a PEM text; empty if that isn't what it is."""
    if len(certificate) > _LARGEST:
        return ""
    try:
        [found] = x509.load_pem_x509_certificates(certificate.encode("ascii"))
    except ValueError:
        return ""
    return hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()
