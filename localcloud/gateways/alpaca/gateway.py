"""The front end as a whole: who is served, and the sessions of those who are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from localcloud.gateways.alpaca.errors import ApiError, unauthorized
from localcloud.gateways.alpaca.limits import REQUESTS_PER_MINUTE
from localcloud.gateways.alpaca.session import AccountSession


async def _no_preparation(key: str) -> None:
    """Every account was opened by a person."""


def _everybody(connection: HTTPConnection) -> None:
    """Nobody is too far away."""


@dataclass(frozen=True)
class Settings:
    """`servers`: the exchange's address (`unix:PATH` or `HOST:PORT`).

    `admit` raises ApiError for callers that can't reach Alpaca. `prepare` is called with a key before its
    first login, and may open an account for it.
    """

    servers: str
    requests_per_minute: int = REQUESTS_PER_MINUTE
    admit: Callable[[HTTPConnection], None] = _everybody
    prepare: Callable[[str], Awaitable[None]] = _no_preparation


class Gateway:
    """All sessions."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sessions: dict[str, AccountSession] = {}

    async def enter(self, key: str, secret: str) -> AccountSession:
        """The session of a key. Raises ApiError: unauthorized or unavailable."""
        if not key or not secret:
            raise unauthorized()
        session = self.sessions.get(key)
        if session is not None:
            await session.enter(secret)
            return session
        await self.settings.prepare(key)
        session = self.sessions.setdefault(
            key, AccountSession(self.settings.servers, key, self.settings.requests_per_minute)
        )
        try:
            await session.enter(secret)
        except ApiError:
            if not session.account:  # nobody: not worth remembering
                self.sessions.pop(key, None)
                await session.close()
            raise
        return session

    async def close(self) -> None:
        """Ends every session at the exchange."""
        for session in self.sessions.values():
            await session.close()
        self.sessions.clear()
