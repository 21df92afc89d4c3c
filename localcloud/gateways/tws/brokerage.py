"""The gateway's brokerage session: log in, stay logged in, remember what the account looks like.

Orders and executions are kept here and served from here, as the real gateway does; a lost link is restored by
itself, and what happened meanwhile is told to the listener then.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from localcloud.exchange.link import Link
from localcloud.exchange.models import Refused
from localcloud.exchange.users import LoginFailed
from localcloud.gateways.tws.ibc import IbcSettings

EASTERN = ZoneInfo("America/New_York")
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
SECOND_FACTOR_WAIT = 180.0  # IBC: SecondFactorAuthenticationTimeout
log = logging.getLogger("ibgateway")


class SecondFactorTimeout(Exception):
    """Nobody confirmed the second factor in time; IBC exits with 87 then."""


class Listener(Protocol):
    """What is told about the session. Calls must not block."""

    def on_event(self, event: dict[str, Any]) -> None:
        """Something happened at the exchange (see `exchange.link`)."""

    def on_connection(self, connected: bool, data_lost: bool) -> None:
        """The link was lost, or restored."""


class Brokerage:
    """One user's session. `connected` says whether the link is up right now."""

    def __init__(self, settings: IbcSettings, server: str, listener: Listener) -> None:
        self.settings, self.server, self.listener = settings, server, listener
        self.accounts: list[str] = []
        self.connected = False
        self.farms_up = True
        self.orders: dict[int, dict[str, Any]] = {}
        self.executions: dict[str, dict[str, Any]] = {}
        self._contracts: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self._answers: dict[tuple[str, str], Any] = {}
        self._link: Link | None = None
        self._lost = asyncio.Event()
        self._time_offset = 0.0

    # -- being connected ---------------------------------------------------------------------------

    async def login(self) -> None:
        """Logs in for the first time; keeps trying while the servers can't be reached.

        Raises LoginFailed (credentials, mode) and SecondFactorTimeout.
        """
        delay = FIRST_DELAY
        while True:
            try:
                await self._connect(compete=True)
                return
            except (OSError, ConnectionError) as error:
                log.info("Connection to server failed, will try again: %s", error)
            except LoginFailed as failure:
                if failure.reason == "second_factor":
                    raise SecondFactorTimeout from None
                raise
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)

    async def stay_connected(self) -> None:
        """Restores the link whenever it is lost; runs until cancelled."""
        while True:
            await self._lost.wait()
            if self._link is not None:
                await self._link.close()
            delay = FIRST_DELAY
            while not self.connected:
                try:
                    # Whoever took the session keeps it (IBC: ExistingSessionDetectedAction=primary reconnects
                    # once the other one has gone).
                    await self._connect(compete=False)
                except (OSError, ConnectionError, LoginFailed) as error:
                    log.info("Reconnect failed: %s", error)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, LONGEST_DELAY)

    async def close(self) -> None:
        """Logs out."""
        self.connected = False
        if self._link is not None:
            await self._link.close()

    async def _connect(self, *, compete: bool) -> None:
        link = await Link.connect(self.server)
        # Events that come before the synchronization is done wait for it.
        early: list[dict[str, Any]] | None = []
        link.on_event(lambda event: self._on_event(event) if early is None else early.append(event))
        try:
            accounts = await link.login(
                self.settings.username,
                self.settings.password,
                self.settings.mode,
                compete=compete,
                wait=SECOND_FACTOR_WAIT,
            )
            self._link = link
            news = await self._synchronize(link, accounts)
        except BaseException:
            await link.close()
            raise
        again, self.accounts, self.connected = bool(self.accounts), accounts, True
        self.farms_up = bool(link.login_info["farms_up"])
        self._lost.clear()
        if again:
            self.listener.on_connection(True, bool(link.login_info["data_lost"]))
        for event in news if again else []:
            self.listener.on_event(event)
        waiting, early = early or [], None
        for event in waiting:
            self._on_event(event)

    async def _synchronize(self, link: Link, accounts: list[str]) -> list[dict[str, Any]]:
        """Fetches orders and executions; returns, as events, those that weren't known."""
        self._time_offset = (await link.call("server_time"))["time"] - datetime.now(EASTERN).timestamp()
        news: list[dict[str, Any]] = []
        for account in accounts:
            orders = (await link.call("open_orders", account=account))["orders"]
            orders += (await link.call("completed_orders", account=account))["orders"]
            fills = (await link.call("executions", account=account, since=self.midnight()))["executions"]
            known = {order["perm_id"]: order for order in orders}
            for fill in fills:
                if fill["exec_id"] not in self.executions:
                    self.executions[fill["exec_id"]] = fill
                    order = known.get(fill["perm_id"])
                    news.append({"event": "execution", "execution": fill, "order": order})
                    news.append({"event": "commission", "account": account, **fill})
            for order in orders:
                before = self.orders.get(order["perm_id"])
                self.orders[order["perm_id"]] = order
                if before is None or (before["status"], before["filled"]) != (
                    order["status"],
                    order["filled"],
                ):
                    news.append({"event": "order_status", "account": account, "order": order})
        return news

    def _on_event(self, event: dict[str, Any]) -> None:
        name = event["event"]
        if name in ("link_lost", "session_taken"):
            if self.connected:
                self.connected = False
                log.info("Disconnected from server: %s", name.replace("_", " "))
                self.listener.on_connection(False, False)
                self._lost.set()
            return
        if name in ("order_status", "order_trailed"):
            self.orders[event["order"]["perm_id"]] = event["order"]
        elif name == "execution":
            self.executions[event["execution"]["exec_id"]] = event["execution"]
            self.orders[event["order"]["perm_id"]] = event["order"]
        elif name == "farms":
            self.farms_up = event["up"]
        self.listener.on_event(event)

    # -- questions ---------------------------------------------------------------------------------

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Asks the exchange. Raises ConnectionError without a link, and Refused."""
        if self._link is None or not self.connected:
            raise ConnectionError("no connection to the server")
        return await self._link.call(method, **params)

    async def remembered(self, method: str, account: str) -> Any:
        """What the exchange says about an account; without a link, what it said last.

        Raises ConnectionError if it was never asked.
        """
        try:
            self._answers[method, account] = await self.call(method, account=account)
        except ConnectionError:
            if (method, account) not in self._answers:
                raise
        return self._answers[method, account]

    async def contracts(self, **wanted: Any) -> list[dict[str, Any]]:
        """Contracts that match, remembered: they don't change while the gateway runs."""
        key = tuple(sorted(wanted.items()))
        if key not in self._contracts:
            self._contracts[key] = (await self.call("contracts", **wanted))["contracts"]
        return self._contracts[key]

    def now(self) -> datetime:
        """The server's time, in New York."""
        return datetime.now(EASTERN) + timedelta(seconds=self._time_offset)

    def midnight(self) -> float:
        """When the brokerage day began (seconds since the epoch): the gateway forgets what was before."""
        return self.now().replace(hour=0, minute=0, second=0, microsecond=0).timestamp()

    def working_orders(self) -> list[dict[str, Any]]:
        """Orders that can still trade."""
        return [o for o in self.orders.values() if o["status"] in ("PreSubmitted", "Submitted")]


__all__ = ["Brokerage", "Listener", "LoginFailed", "Refused", "SecondFactorTimeout"]
