"""Whether the connection to IBKR holds: one record, replaced as a whole, so that any thread may read it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from broker.errors import CertificateMismatch, NotAuthenticated, NotConnected, SecondFactorWaiting


class State:
    """The values of `Link.state`."""

    DISCONNECTED: Final = "disconnected"
    CONNECTING: Final = "connecting"
    CONNECTED: Final = "connected"
    NO_API: Final = "no_api"  # TWS: the address takes connections, and nothing speaks the protocol
    LINK_LOST: Final = "link_lost"  # the gateway answers, IBKR doesn't (1100; 503)
    CLIENT_ID_IN_USE: Final = "client_id_in_use"  # TWS: 326
    NOT_LOGGED_IN: Final = "not_logged_in"  # a handshake without accounts; 401
    SECOND_FACTOR: Final = "second_factor"  # 401 of a live login: a person confirms each of them
    COMPETING: Final = "competing"  # another login has taken the session
    WRONG_ACCOUNT: Final = "wrong_account"
    CERTIFICATE_CHANGED: Final = "certificate_changed"  # somebody answers who isn't the pinned gateway


_KINDS: dict[str, type[NotConnected]] = {
    State.NOT_LOGGED_IN: NotAuthenticated,
    State.COMPETING: NotAuthenticated,
    State.SECOND_FACTOR: SecondFactorWaiting,
    State.CERTIFICATE_CHANGED: CertificateMismatch,
}


@dataclass(frozen=True)
class Link:
    """A state, since when the link has been up or down, why, and what is being done about it."""

    state: str
    since: datetime
    reason: str
    doing: str

    @property
    def ok(self) -> bool:
        """True when orders and questions go through."""
        return self.state == State.CONNECTED

    def changed(self, state: str, reason: str = "", doing: str = "") -> Link:
        """The next record. `since` moves only when the link comes up or goes down."""
        turned = (state == State.CONNECTED) != self.ok
        since = datetime.now(UTC) if turned else self.since
        return replace(self, state=state, since=since, reason=reason, doing=doing)

    def error(self) -> NotConnected:
        """What a call raises while the link isn't up."""
        kind = _KINDS.get(self.state, NotConnected)
        reason = self.reason or f"the link to IBKR is {self.state}"
        return kind(reason, since=self.since, doing=self.doing, retry_after=5)


def unconnected(reason: str = "connect() was not called") -> Link:
    """The record before connecting, or after disconnecting."""
    return Link(State.DISCONNECTED, datetime.now(UTC), reason, "nothing: call connect()")
