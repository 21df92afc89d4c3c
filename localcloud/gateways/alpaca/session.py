"""One account at the exchange, behind its API key: the link, who may use it, and what it is told.

The key id is the user's name at the exchange, the secret its password. All requests and streams of a key
share one link, since the exchange lets a user have one session.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from localcloud.exchange.link import Link
from localcloud.exchange.models import Refused
from localcloud.exchange.users import LoginFailed
from localcloud.gateways.alpaca import symbols
from localcloud.gateways.alpaca.errors import timed_out, unauthorized, unavailable, worded
from localcloud.gateways.alpaca.faults import ActedFaults
from localcloud.gateways.alpaca.limits import RateLimit

Json = dict[str, Any]
Listener = Callable[[Json], None]
#: Each counts its requests for itself.
APIS = ("trading", "data")
_CHANGING = frozenset({"place_order", "replace_order", "cancel_order"})


class AccountSession:
    """The session of one key. `listeners` get the exchange's events, and `link_lost`."""

    def __init__(self, servers: str, key: str, requests_per_minute: int) -> None:
        self.key = key
        self.account = ""
        self.limits = {api: RateLimit(requests_per_minute) for api in APIS}
        self.faults = ActedFaults(self.limits)
        self.listeners: list[Listener] = []
        self.perm_ids: dict[str, int] = {}
        #: activities of type FEE; the exchange charges none, as Alpaca's paper accounts pay none
        self.fees: list[Json] = []
        self._servers = servers
        self._link: Link | None = None
        self._digest = b""
        self._entering = asyncio.Lock()

    @property
    def linked(self) -> bool:
        """Whether there is a link to the exchange."""
        return self._link is not None and not self._link.closed.is_set()

    async def enter(self, secret: str) -> None:
        """Lets in who knows the secret; logs in at the exchange when that is due.

        Raises ApiError: unauthorized, or unavailable without an exchange.
        """
        digest = hashlib.sha256(secret.encode()).digest()
        async with self._entering:
            linked = self.linked
            if linked and hmac.compare_digest(digest, self._digest):
                return
            try:
                # A wrong secret is refused before it could take the session from anybody.
                self._link = self._link if linked else await self._connect()
                assert self._link is not None, "connected above"
                accounts = await self._link.login(self.key, secret, wait=0)
            except LoginFailed:
                raise unauthorized() from None
            except (OSError, ConnectionError):
                raise unavailable() from None
            self.account, self._digest = accounts[0], digest

    async def call(self, method: str, **params: Any) -> Json:
        """Calls the exchange for this account. Raises ApiError."""
        try:
            return await self.raw(method, **params)
        except Refused as refusal:
            raise worded(refusal) from None

    async def raw(self, method: str, **params: Any) -> Json:
        """As `call`, with the exchange's own refusals. Raises Refused and ApiError."""
        if self._link is None:
            raise unavailable()
        try:
            return await self._link.call(method, **params)
        except ConnectionError:
            # Only for what changes something does it matter whether it was done.
            raise timed_out() if method in _CHANGING else unavailable() from None

    def tell(self, event: Json) -> None:
        """Passes an event on to everybody who listens."""
        self.faults.on_event(event)
        if event["event"] == "gateway" and event["action"] == "book_fee":
            self._book_fee(event)
        if event["event"] in ("session_taken", "link_lost"):
            self._digest = b""
        for listener in list(self.listeners):
            listener(event)

    def _book_fee(self, event: Json) -> None:
        day, amount = str(event["date"]), float(event["amount"])
        number = symbols.made_id("fee", f"{self.account} {len(self.fees)}")
        self.fees.append(
            {
                "id": f"{day.replace('-', '')}000000000::{number}",
                "activity_type": "FEE",
                "date": day,
                "net_amount": f"{-amount:.2f}",
                "description": f"TAF fee for proceed of {event['shares']} shares (1 trades) on {day}",
                "status": "executed",
            }
        )

    async def close(self) -> None:
        """Ends the session at the exchange."""
        if self._link is not None:
            await self._link.close()

    async def _connect(self) -> Link:
        link = await Link.connect(self._servers)
        link.on_event(self.tell)
        return link
