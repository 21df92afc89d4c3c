"""The paper exchange in the test's own loop, and a look at it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from localcloud.exchange.admin import Admin
from localcloud.exchange.server import ExchangeServer


class Exchange:
    """An exchange on Unix sockets. `address` is what IBKR_SERVERS says."""

    def __init__(self, state: Path, sockets: Path) -> None:
        self._server = ExchangeServer(state, sockets / "exchange", sockets / "admin", seed=1)
        self._admin = str(sockets / "admin")
        self.address = f"unix:{sockets / 'exchange'}"

    async def __aenter__(self) -> Exchange:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, trace)

    def admin(self) -> Admin:
        """The exchange's administration."""
        return Admin(self._admin)

    async def add_user(self, name: str, password: str, mode: str = "paper") -> None:
        async with Admin(self._admin) as admin:
            await admin.add_user(name, password, mode=mode)

    async def user(self, name: str) -> dict[str, Any]:
        async with Admin(self._admin) as admin:
            return next(user for user in await admin.users() if user["name"] == name)
