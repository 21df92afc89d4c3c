"""A paper exchange and a Client Portal gateway in a thread, with a tap on the wire to it.

The tap counts what reaches the gateway, and can answer in its place, or lose an answer, as networks do.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import shutil
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.responses import JSONResponse

from localcloud.exchange.link import Link
from localcloud.exchange.server import ExchangeServer
from localcloud.gateways.client_portal.app import BASE, build_app
from localcloud.gateways.client_portal.gateway import Gateway
from localcloud.gateways.client_portal.ibeam import IBeam
from localcloud.gateways.client_portal.serving import Endpoint, Server
from localcloud.gateways.client_portal.settings import LoginSource, Settings

USER, PASSWORD, ACCOUNT = "paperuser", "correct horse", "DU1234567"


@dataclass
class Rule:
    """What the tap does to the next requests of a path: answer them itself, or lose the gateway's answer."""

    method: str
    part: str
    times: int
    status: int = 0
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    #: pass the request on first: the order arrives, its answer doesn't
    deliver: bool = False
    #: close the connection without an answer, or never answer
    hang: bool = False
    #: pass the request on once `Portal.release` is called
    hold: bool = False


class Tap:
    """An ASGI application around the gateway's."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.seen: list[tuple[str, str, Any]] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.rules: list[Rule] = []
        self.sockets: list[asyncio.Future[Any]] = []
        self.released = asyncio.Event()

    def count(self, method: str, part: str) -> int:
        return sum(1 for m, path, _ in self.seen if m == method and part in path)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            self.headers.append({k.decode().lower(): v.decode() for k, v in scope["headers"]})
            serving = asyncio.ensure_future(self._app(scope, receive, send))
            self.sockets.append(serving)
            await asyncio.gather(serving, return_exceptions=True)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        path, method = scope["path"].removeprefix(BASE), scope["method"]
        self.seen.append((method, path, json.loads(body) if body else None))
        self.times.append(asyncio.get_running_loop().time())
        self.headers.append({k.decode().lower(): v.decode() for k, v in scope["headers"]})
        told = False

        async def again() -> Any:
            nonlocal told
            if not told:
                told = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        rule = next((r for r in self.rules if r.times and r.method == method and r.part in path), None)
        if rule is None:
            await self._app(scope, again, send)
            return
        rule.times -= 1
        if rule.hold:
            await self.released.wait()
            await self._app(scope, again, send)
            return
        if rule.deliver:
            await self._app(scope, again, _nowhere)
        if rule.hang:
            await self.released.wait()
        answer = JSONResponse(rule.body, rule.status or 503, rule.headers)
        await answer(scope, receive, send)


async def _nowhere(message: Any) -> None:
    """Where a lost answer goes."""


class Portal:
    """The exchange, one user's gateway and the tap."""

    def __init__(self, folder: Path, address: tuple[str, int] = ("127.0.0.1", 0), **settings: Any) -> None:
        self.folder, self._address, self._settings = folder, address, settings
        self.url = ""
        self.ca_file = str(folder / "own.pem")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._open = AsyncExitStack()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something on the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def start(self, *, second_factor: bool = False, accounts: list[str] | None = None) -> None:
        self.call(self._start(second_factor, accounts or [ACCOUNT]))

    async def _start(self, second_factor: bool, accounts: list[str]) -> None:
        folder, mode = self.folder, self._settings.get("mode", "paper")
        self.server = await self._open.enter_async_context(
            ExchangeServer(folder / "book", folder / "exchange", folder / "admin")
        )
        self.server.exchange.add_user(
            USER, PASSWORD, accounts=accounts, mode=mode, second_factor=second_factor
        )
        self._admin("set_price", symbol="AAPL", price=200.0)
        login = LoginSource({"IBEAM_ACCOUNT": USER, "IBEAM_PASSWORD": PASSWORD})
        chosen = {"mode": "paper", "limits": False, **self._settings}
        self.gateway = Gateway(Settings(login=login, servers=f"unix:{folder / 'exchange'}", **chosen))
        self.tap = Tap(build_app(self.gateway))
        self.listener = Endpoint(address=self._address).open()
        self.url = f"https://{self._address[0]}:{self.listener[0].getsockname()[1]}"
        certificate = write_certificate(folder)
        await self._open.enter_async_context(Server(self.tap, self.listener, certificate).serving())
        self.ibeam = IBeam(self.gateway)
        if not second_factor:
            await self.ibeam.maintain()

    def log_in(self) -> None:
        """What IBeam does each minute."""
        self.call(self.ibeam.maintain())

    def log_out(self) -> None:
        self.call(self.gateway.session.log_out())

    def drop_websockets(self, price: float) -> None:
        """Break every websocket, and let AAPL trade at another price before there is a new one."""

        async def drop() -> None:
            for serving in self.tap.sockets:
                serving.cancel()
            self._admin("set_price", symbol="AAPL", price=price)

        self.call(drop())

    def session_taken(self) -> None:
        """Another login of the user takes the brokerage session."""
        self.call(self._take())

    async def _take(self) -> None:
        self.rival = await Link.connect(f"unix:{self.folder / 'exchange'}")
        await self.rival.login(USER, PASSWORD, mode="paper", compete=True, wait=5)

    def session_given_back(self) -> None:
        self.call(self.rival.close())

    def _admin(self, method: str, **params: Any) -> dict[str, Any]:
        answer = self.server.administration.answer({"method": method, "params": params})
        assert "error" not in answer, answer
        return dict(answer["result"])

    def admin(self, method: str, **params: Any) -> dict[str, Any]:
        async def ask() -> dict[str, Any]:
            return self._admin(method, **params)

        return dict(self.call(ask()))

    def fault(self, name: str, value: Any) -> None:
        self.admin("set_fault", name=name, value=value)

    def rule(self, method: str, part: str, times: int = 1, **what: Any) -> Rule:
        made = Rule(method, part, times, **what)
        self.tap.rules.append(made)
        return made

    def book(self, account: str = ACCOUNT) -> list[dict[str, Any]]:
        """Every order that the exchange accepted."""
        return list(self.admin("orders", account=account)["orders"])

    def release(self) -> None:
        """Let what rules hold go on."""

        async def release() -> None:
            self.tap.released.set()

        self.call(release())

    def stop(self) -> None:
        async def end() -> None:
            self.tap.released.set()
            await self.gateway.session.log_out()
            await self._open.aclose()

        with contextlib.suppress(TimeoutError):
            self.call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)


def write_certificate(folder: Path, name: str = "own") -> tuple[Path, Path]:
    """A certificate as a droplet makes it at its first boot: its own, with its address."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    public = key.public_key()
    usage = {
        "digital_signature": True,
        "key_cert_sign": True,
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "crl_sign": False,
        "encipher_only": False,
        "decipher_only": False,
    }
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .add_extension(x509.KeyUsage(**usage), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*form))
    return certificate, private


@contextlib.contextmanager
def portal_gateway(
    *, second_factor: bool = False, accounts: list[str] | None = None, **settings: Any
) -> Iterator[Portal]:
    """A logged-in gateway. AAPL stands at 200 dollars."""
    folder = Path(tempfile.mkdtemp(prefix="cpb"))  # short: unix socket paths are limited to 107 bytes
    made = Portal(folder, **settings)
    try:
        made.start(second_factor=second_factor, accounts=accounts)
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)
