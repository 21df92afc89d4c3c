"""The two sessions of a gateway: the login (SSO), and the brokerage session on top of it.

A login that another one displaced is still a login: the API then says `competing` and `no bridge`, not 401.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from localcloud.exchange.link import Link
from localcloud.exchange.models import Refused
from localcloud.exchange.users import LoginFailed
from localcloud.gateways.client_portal.errors import Refusal, no_bridge, not_logged_in, unavailable
from localcloud.gateways.client_portal.settings import Login

Json = dict[str, Any]
SSO_LIFETIME = 24 * 3600.0  # at most; the daily reset usually comes first
SERVER_INFO = {"serverName": "JifPaper", "serverVersion": "Build 10.37.1 (paper exchange)"}


class BrokerageSession:
    """One user's session at the exchange, as the gateway knows it."""

    def __init__(self, servers: str, mode: str, second_factor_wait: float) -> None:
        self._servers = servers
        self._wait = second_factor_wait
        self._login: Login | None = None
        self._link: Link | None = None
        # A client's ssodh/init and IBeam's maintenance may come together: one session is opened at a time.
        self._opening = asyncio.Lock()
        self.mode = mode
        self.accounts: list[str] = []
        self.competing = False
        self.established = False
        self.session_id = ""
        self.logged_in_at = 0.0
        self.began = 0.0  # the same by the exchange's clock
        self.listeners: list[Callable[[Json], None]] = []
        self._forget_preflights()

    def _forget_preflights(self) -> None:
        """What a client must ask anew in each session before other calls work."""
        self.accounts_asked = False
        self.portfolio_asked = False
        self.orders_asked = False
        self.snapshots_asked: set[int] = set()

    @property
    def username(self) -> str:
        """Who is logged in, or nothing."""
        return self._login.username if self._login else ""

    @property
    def logged_in(self) -> bool:
        """Whether there is a login at all; without one, everything is 401."""
        return self._login is not None

    @property
    def connected(self) -> bool:
        """Whether there is a line to IBKR's servers."""
        return self._link is not None and not self._link.closed.is_set()

    @property
    def authenticated(self) -> bool:
        """Whether there is a brokerage session."""
        return self.logged_in and self.connected and not self.competing

    def status(self) -> Json:
        """The answer to /iserver/auth/status."""
        return {
            "authenticated": self.authenticated,
            "competing": self.competing,
            "connected": self.connected,
            "established": self.authenticated and self.established,
            "message": "",
            "MAC": "00:00:5E:00:53:01",
            "serverInfo": SERVER_INFO,
            "hardware_info": "paper|00:00:5E:00:53:01",
            "fail": "",
        }

    def sso_expires(self) -> int:
        """Milliseconds until the login ends."""
        return max(0, int((self.logged_in_at + SSO_LIFETIME - time.time()) * 1000))

    async def log_in(self, login: Login) -> None:
        """A new login; it takes the user's session from whoever has it.

        Raises LoginFailed, and ConnectionError or OSError when IBKR's servers aren't reached.
        """
        async with self._opening:
            await self.log_out()
            await self._open(login, compete=True)
            self._login = login
        self.session_id = secrets.token_hex(16)
        self.logged_in_at = time.time()
        self.began = float((await self.call("server_time"))["time"])

    async def initialise(self, compete: bool) -> Json:
        """A brokerage session for the login there is (POST /iserver/auth/ssodh/init).

        Raises Refusal 401 without a login, 500 when another session is in the way and `compete` is false,
        503 when IBKR's servers aren't reached.
        """
        if self._login is None:
            raise not_logged_in()
        async with self._opening:
            if not (self.authenticated and self.established):
                try:
                    await self._open(self._login, compete)
                except LoginFailed as failure:
                    self.competing = failure.reason == "competing"
                    raise Refusal(500, "failed to generate sso dh token") from None
                except OSError:
                    raise unavailable() from None
        return self.status()

    async def _open(self, login: Login, compete: bool) -> None:
        await self._close_link()
        link = await Link.connect(self._servers)
        try:
            self.accounts = await link.login(
                login.username, login.password, mode=self.mode, compete=compete, wait=self._wait
            )
        except BaseException:
            await link.close()
            raise
        link.on_event(partial(self._on_event, link))
        self._link, self.competing, self.established = link, False, True
        self._forget_preflights()

    async def log_out(self) -> None:
        """Ends both sessions."""
        self.forget_login()
        await self._close_link()

    def forget_login(self) -> None:
        """From now on everything is 401; the line to the exchange is left to `log_out`."""
        self._login, self.competing, self.session_id = None, False, ""

    async def _close_link(self) -> None:
        link, self._link = self._link, None
        if link is not None and not link.closed.is_set():
            await link.close()

    def _on_event(self, link: Link, event: Json) -> None:
        if link is not self._link:
            return  # what an earlier session has to say is about that one
        if event["event"] == "session_taken":
            self.competing = True
        for listener in list(self.listeners):
            listener(event)

    def require(self) -> None:
        """Raises Refusal 401 without a login, 400 `no bridge` without a brokerage session."""
        if not self.logged_in:
            raise not_logged_in()
        if not self.authenticated:
            raise no_bridge()

    async def call(self, method: str, **params: Any) -> Json:
        """Asks the exchange.

        Raises Refusal 401 or 400 `no bridge` without a session, 503 when the link breaks (what was asked may
        have been done), and Refused for what the exchange refuses.
        """
        self.require()
        assert self._link is not None, "an authenticated session has a link"
        try:
            return await self._link.call(method, **params)
        except Refused as refusal:
            if refusal.code == "not_logged_in":
                raise no_bridge() from None
            raise
        except OSError:
            raise unavailable() from None

    def own(self, account: str) -> str:
        """The account, if it is one of this login's. Raises Refusal 500, the real one's answer."""
        if account not in self.accounts:
            raise Refusal(500, f"Invalid account id: {account}")
        return account
