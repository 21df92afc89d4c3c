"""A paper exchange and a gateway in front of it, both in this process; clients come over TLS on loopback."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from ibind import IbkrClient

from localcloud.exchange.server import ExchangeServer
from localcloud.gateways.client_portal.app import build_app
from localcloud.gateways.client_portal.certificate import write_shipped_certificate
from localcloud.gateways.client_portal.gateway import Gateway
from localcloud.gateways.client_portal.ibeam import IBeam, health_app
from localcloud.gateways.client_portal.serving import Endpoint, Server
from localcloud.gateways.client_portal.settings import LoginSource, Settings

USER, PASSWORD = "paperuser", "correct horse"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The shipped certificate proves nothing, so nobody can verify it; ibind's warning is no news here."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore:Unverified HTTPS request"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: paths of Unix sockets are limited to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="cp-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def exchange(folder: Path) -> AsyncIterator[ExchangeServer]:
    async with ExchangeServer(folder / "book", folder / "exchange", folder / "admin") as server:
        server.exchange.add_user(USER, PASSWORD, accounts=["DU1234567"])
        yield server


@dataclass
class Running:
    """A gateway that is being served."""

    gateway: Gateway
    ibeam: IBeam
    url: str
    health: str
    http: httpx.AsyncClient = field(repr=False)

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.http.get(f"/v1/api{path}", params=query)

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.http.post(f"/v1/api{path}", json=body)

    async def ibind(self, call: Callable[[IbkrClient], Any]) -> Any:
        """Runs something with the real client; its calls block, so it has a thread of its own."""
        client = IbkrClient(url=f"{self.url}/v1/api/", cacert=False, timeout=5, max_retries=0,
                            auto_register_shutdown=False, account_id="DU1234567")  # fmt: skip
        try:
            return await asyncio.to_thread(call, client)
        finally:
            client.close()


Start = Callable[..., Any]


@pytest.fixture
async def start(folder: Path, exchange: ExchangeServer) -> AsyncIterator[Start]:
    """Starts a gateway with some settings; it has made its first login when this returns."""
    async with AsyncExitStack() as running:

        async def begin(
            environment: dict[str, str] | None = None, health: bool = False, **changes: Any
        ) -> Running:
            login = LoginSource(environment or {"IBEAM_ACCOUNT": USER, "IBEAM_PASSWORD": PASSWORD})
            chosen = {"mode": "paper", "limits": False, "positions_cache": 0.0, **changes}
            gateway = Gateway(Settings(login=login, servers=f"unix:{folder / 'exchange'}", **chosen))
            ibeam = IBeam(gateway)
            apps = {"https": build_app(gateway), **({"http": health_app(ibeam)} if health else {})}
            urls = dict.fromkeys(("https", "http"), "")
            for scheme, app in apps.items():
                sockets = Endpoint(address=("127.0.0.1", 0)).open()
                server = Server(
                    app, sockets, write_shipped_certificate(folder) if scheme == "https" else None
                )
                await running.enter_async_context(server.serving())
                urls[scheme] = f"{scheme}://127.0.0.1:{sockets[0].getsockname()[1]}"
            http = httpx.AsyncClient(base_url=urls["https"], verify=False)  # noqa: S501 - as shipped
            await running.enter_async_context(http)
            running.push_async_callback(gateway.session.log_out)
            await ibeam.maintain()
            return Running(gateway, ibeam, urls["https"], urls["http"], http)

        yield begin


@pytest.fixture
async def portal(start: Start) -> Running:
    """A gateway that is logged in."""
    return await start()
