"""The paper Alpaca at /alpaca of the local cloud's API server.

To machines it is a host on the internet: who has no way there is refused. One account belongs to the cloud
itself, opened when its key is first used; `localcloud env` prints the key. Others are opened with
`localcloud user add KEY --kind alpaca`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import string
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from localcloud import sockets
from localcloud.cloud import API_PORT
from localcloud.exchange.admin import Admin
from localcloud.gateways.alpaca.app import routes as gateway_routes
from localcloud.gateways.alpaca.errors import ApiError, unavailable
from localcloud.gateways.alpaca.gateway import Gateway, Settings

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

# Any host on the internet will do for the question whether a machine gets there (TEST-NET-2, RFC 5737).
ALPACA_ADDRESS, ALPACA_PORT = "198.51.100.1", 443
PAPER_CASH = 100_000.0
_NOTES = "alpaca"
_MOST_REMEMBERED = 1000
_PATIENCE_SECONDS = 20


class Reach:
    """Who may reach Alpaca. A socket's machine is looked up once, its permission at every request."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._machines: dict[int, str | None] = {}

    def admit(self, connection: HTTPConnection) -> None:
        """Raises ApiError 503 for a machine without a way to the internet.

        In life its packets are lost; here the answer says so, because a person is waiting.
        """
        if connection.client is None:
            return
        peer = (connection.client.host, connection.client.port)
        inode = sockets.inode(peer, (self._cloud.settings.api_host, API_PORT))
        if inode is None:
            return  # it has left already
        if inode not in self._machines:
            if len(self._machines) >= _MOST_REMEMBERED:
                self._machines.clear()
            self._machines[inode] = self._cloud.network.identify(connection.client)
        source = self._machines[inode]
        if source is None:
            return
        verdict = self._cloud.network.verdict(source, ALPACA_ADDRESS, ALPACA_PORT)
        if not verdict.allowed:
            raise ApiError(503, None, f"Alpaca can't be reached: {verdict.why}")


def routes(cloud: Cloud) -> list[BaseRoute]:
    """The API's routes, to be mounted at /alpaca."""

    async def prepare(key: str) -> None:
        own, secret = _own_key(cloud)
        async with _administration(str(cloud.settings.run / "exchange-admin.sock")) as admin:
            if key == own:
                await admin.add_user(own, secret, kind="alpaca", cash=PAPER_CASH)

    servers = f"unix:{cloud.settings.run / 'exchange.sock'}"
    return gateway_routes(Gateway(Settings(servers, admit=Reach(cloud).admit, prepare=prepare)))


@contextlib.asynccontextmanager
async def _administration(socket: str) -> AsyncIterator[Admin]:
    """The exchange's administration; after the daemon's start it may take a moment to be there.

    Raises ApiError 503 when it isn't in time.
    """
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not await _answers(socket):  # noqa: ASYNC110 -- a socket that isn't there has no event
                await asyncio.sleep(0.05)
        async with Admin(socket) as admin:
            yield admin
    except (OSError, TimeoutError):
        raise unavailable() from None


async def _answers(socket: str) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True


def client_settings(cloud: Cloud) -> dict[str, str]:
    """What an Alpaca client needs to use the cloud's own paper account.

    The endpoints come twice: as URLs for any client, and under the names that `python -m broker` reads.
    """
    key, secret = _own_key(cloud)
    base = f"{cloud.settings.api_url}/alpaca"
    stream = f"ws{base.removeprefix('http')}/stream"
    return {
        "ALPACA_API_KEY": key,
        "ALPACA_SECRET_KEY": secret,
        "ALPACA_TRADING_URL": f"{base}/trading",
        "ALPACA_DATA_URL": f"{base}/data",
        "ALPACA_STREAM_URL": stream,
        "ALPACA_ENDPOINT": f"{base}/trading",
        "ALPACA_DATA_ENDPOINT": f"{base}/data",
        "ALPACA_STREAM_ENDPOINT": stream,
    }


def _own_key(cloud: Cloud) -> tuple[str, str]:
    """The key pair of the cloud's own account, made at the first question; in the form of paper keys."""
    kept = cloud.store.notes(_NOTES).get("key")
    if kept is None:
        letters = string.ascii_uppercase + string.digits
        key = "PK" + "".join(secrets.choice(letters) for _ in range(18))
        secret = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(40))
        kept = {"key": key, "secret": secret}
        cloud.store.note(_NOTES, "key", kept)
    return str(kept["key"]), str(kept["secret"])
