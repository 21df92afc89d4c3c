"""What the API's handlers share: the session, known contracts, pending questions, cached positions."""

from __future__ import annotations

import json
import time
from typing import Any

from starlette.requests import Request

from localcloud.exchange.models import Refused
from localcloud.gateways.client_portal.errors import Refusal, accounts_first
from localcloud.gateways.client_portal.session import BrokerageSession
from localcloud.gateways.client_portal.settings import Settings

Json = dict[str, Any]


class Gateway:
    """One Client Portal gateway: one user's session, whoever asks."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.session = BrokerageSession(settings.servers, settings.mode, settings.oauth_timeout)
        self.suppressed: set[str] = set()
        self._contracts: dict[int, Json] = {}
        self._positions: dict[str, tuple[float, list[Json]]] = {}

    async def contract(self, conid: int) -> Json:
        """A contract as the exchange describes it. Raises Refusal 500 for an unknown one."""
        if conid not in self._contracts:
            found = (await self.session.call("contracts", conid=conid))["contracts"]
            if not found:
                raise Refusal(500, f"conid {conid} is not known")
            self._contracts[conid] = found[0]
        return self._contracts[conid]

    async def positions(self, account: str, fresh: bool = False) -> list[Json]:
        """Open positions; /portfolio's are some seconds old, as IBKR's cache makes them."""
        asked, known = self._positions.get(account, (float("-inf"), []))
        if fresh or time.monotonic() - asked > self.settings.positions_cache:
            known = (await self.session.call("positions", account=account))["positions"]
            self._positions[account] = (time.monotonic(), known)
        return known

    def forget_positions(self, account: str) -> None:
        """The next question is answered afresh."""
        self._positions.pop(account, None)

    def brokerage_account(self, account: str) -> str:
        """An account for /iserver calls. Raises Refusal 400, 401 or 500."""
        self.session.require()
        if not self.session.accounts_asked:
            raise accounts_first()
        return self.session.own(account)

    def portfolio_account(self, account: str) -> str:
        """An account for /portfolio calls. Raises Refusal 400, 401 or 500."""
        self.session.require()
        if not self.session.portfolio_asked:
            raise accounts_first()
        return self.session.own(account)


def refused(refusal: Refused) -> Refusal:
    """How the gateway words what the exchange refused: 500, which hides many a bad request."""
    return Refusal(500, refusal.message)


async def body(request: Request) -> Json:
    """The JSON object of a request. Raises Refusal 400."""
    try:
        given = json.loads(await request.body() or b"{}")
    except ValueError:
        raise Refusal(400, "Bad Request: the body is not JSON") from None
    if not isinstance(given, dict):
        raise Refusal(400, "Bad Request: the body must be an object")
    return given


def whole(text: str, name: str) -> int:
    """A whole number from a path or query. Raises Refusal 400."""
    try:
        return int(text)
    except ValueError:
        raise Refusal(400, f"Bad Request: {name} must be a number") from None
