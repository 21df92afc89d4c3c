"""The client of the exchange's admin socket: users, market, clock, prices, faults.

async with Admin("/run/exchange-admin.sock") as admin:
    await admin.add_user("demo", "password", mode="paper", cash=100_000.0)
    await admin.set_fault("link_down", True)
"""

from __future__ import annotations

import asyncio
from typing import Any

from localcloud.exchange import jsonlines
from localcloud.exchange.models import Refused


class Admin:
    """One connection to the admin socket at `path`. Calls raise Refused, or OSError without an exchange."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Admin:
        self._streams = await jsonlines.open_stream(f"unix:{self._path}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls an admin method (see `administration.Administration`)."""
        async with self._turn:
            if self._streams is None:
                raise ConnectionError("use Admin as an async context manager")
            reader, writer = self._streams
            writer.write(jsonlines.encode({"id": 0, "method": method, "params": params}))
            answer = await jsonlines.read(reader)
        if answer is None:
            raise ConnectionError("the exchange closed its admin socket")
        if "error" in answer:
            raise Refused(answer["error"]["code"], answer["error"]["message"])
        return dict(answer["result"])

    async def add_user(self, name: str, password: str, **options: Any) -> dict[str, Any]:
        """Opens an account.

        Options: mode, cash, kind, second_factor, accounts. Returns name, mode, accounts.
        """
        return await self.call("add_user", name=name, password=password, **options)

    async def remove_user(self, name: str) -> None:
        """Closes a user's accounts and ends their session."""
        await self.call("remove_user", name=name)

    async def users(self) -> list[dict[str, Any]]:
        """Users with name, mode, accounts, second_factor, waiting_for_second_factor, logged_in."""
        return list((await self.call("users"))["users"])

    async def approve_second_factor(self, name: str) -> None:
        """Confirms a login as a person with a phone would; serves one login, waiting or next."""
        await self.call("approve_second_factor", name=name)

    async def set_market(self, hours: str) -> None:
        """`open` (always) or `calendar` (New York Stock Exchange)."""
        await self.call("set_market", hours=hours)

    async def set_clock(self, at: float | None = None, *, frozen: bool = False) -> float:
        """Moves the exchange's clock (seconds since the epoch; None: real time) and returns its time."""
        return float((await self.call("set_clock", at=at, frozen=frozen))["time"])

    async def set_price(self, symbol: str, price: float, **options: Any) -> dict[str, Any]:
        """Puts the middle of a book at `price`; options: currency, hold. Returns the quote."""
        return dict((await self.call("set_price", symbol=symbol, price=price, **options))["quote"])

    async def set_position(self, account: str, symbol: str, quantity: float, average_cost: float) -> None:
        """Books shares into or out of an account without a trade."""
        await self.call(
            "set_position", account=account, symbol=symbol, quantity=quantity, average_cost=average_cost
        )

    async def set_fault(self, name: str, value: Any) -> dict[str, Any]:
        """Switches a fault (see `faults.Faults`); returns all of them."""
        return dict((await self.call("set_fault", name=name, value=value))["faults"])

    async def faults(self) -> dict[str, Any]:
        """All faults and how they are set."""
        return dict((await self.call("faults"))["faults"])

    async def cut_links(self) -> None:
        """Breaks every gateway's link once."""
        await self.call("cut_links")

    async def gateway(self, action: str, name: str | None = None, **content: Any) -> int:
        """Asks the gateways of a user (None.

        All) to act out a fault of theirs; returns how many were asked.
        """
        return int((await self.call("gateway", action=action, name=name, **content))["gateways"])

    async def orders(self, account: str) -> list[dict[str, Any]]:
        """Every order that the exchange ever accepted for an account."""
        return list((await self.call("orders", account=account))["orders"])

    async def executions(self, account: str) -> list[dict[str, Any]]:
        """Every fill of an account."""
        return list((await self.call("executions", account=account))["executions"])

    async def account(self, account: str) -> dict[str, Any]:
        """Summary and positions of an account as the exchange's own book has them."""
        return await self.call("account", account=account)
