"""One API connection: handshake, requests in, messages out.

Handshake (ibapi/client.py: connect; ib_insync/client.py: connectAsync): the client sends `API\\0` and a frame
`v100..157 OPTIONS`; the server answers with a frame of its version and the time; the client sends startApi
with its client id; the server sends managedAccounts and nextValidId, then says which data farms are
connected.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from localcloud.exchange.models import Refused
from localcloud.gateways.tws import times
from localcloud.gateways.tws.codec import HEADER, LONGEST_MESSAGE, Request, Unreadable, decode, encode, frame
from localcloud.gateways.tws.messages import TEXTS, Complaint
from localcloud.gateways.tws.replies import REPLIES
from localcloud.gateways.tws.requests import REQUESTS, UNSERVED, UNSERVED_WITHOUT_VERSION

if TYPE_CHECKING:
    from localcloud.gateways.tws.gateway import Gateway
    from localcloud.gateways.tws.market_data import Ticket

# The newest version that ib_insync 0.9.86 speaks, and the oldest that it and ibapi 9.81 share.
NEWEST_VERSION, OLDEST_VERSION = 176, 157
PREFIX = b"API\0"
MESSAGES_PER_SECOND = 50
log = logging.getLogger("ibgateway")
Handler = Callable[["ApiClient", Request], Awaitable[None]]


class ApiClient:
    """One client program's connection and its subscriptions."""

    def __init__(
        self,
        gateway: Gateway,
        handlers: Mapping[str, Handler],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.gateway = gateway
        self._handlers = handlers
        self.client_id = -1
        self.version = 0
        self.auto_open_orders = False
        self.market_data_type = 1
        self.market_data: dict[int, Ticket] = {}
        self.account_updates: str | None = None
        self.summaries: dict[int, list[str]] = {}
        self.positions = False
        self.positions_multi: dict[int, str] = {}
        self.updates_multi: dict[int, str] = {}
        self.pnl: dict[int, str] = {}
        self.pnl_single: dict[int, tuple[str, int]] = {}
        self._reader, self._writer = reader, writer
        self._times: deque[float] = deque()

    # -- out ---------------------------------------------------------------------------------------

    def send(self, name: str, **values: Any) -> None:
        """Sends a message of `replies.REPLIES`."""
        number, version, table = REPLIES[name]
        if not self._writer.is_closing():
            self._writer.write(frame([number, *encode(table, {"version": version, **values}, self.version)]))

    def error(self, identity: int, code: int, message: str) -> None:
        """Sends an error or information message."""
        self.send("error", reqId=identity, code=code, message=message)

    def complain(self, identity: int, code: int, detail: str = "") -> None:
        """Sends one of IBKR's message codes with its text."""
        self.error(identity, code, TEXTS[code].replace("{detail}", detail))

    def drop(self) -> None:
        """Cuts the connection."""
        self._writer.transport.abort()

    # -- in ----------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Serves the connection to its end."""
        try:
            if await self._shake_hands():
                while (fields := await self._receive()) is not None:
                    await self.gateway.not_hanging()
                    if self._is_too_fast():
                        self.complain(-1, 100)
                        continue
                    if not await self._handle(fields):
                        break
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            log.info("API client %d: connection ended: %s", self.client_id, type(error).__name__)
        finally:
            self._writer.close()

    async def _shake_hands(self) -> bool:
        if await self._reader.readexactly(len(PREFIX)) != PREFIX:
            return False
        offer = (await self._frame()).decode()
        versions = re.match(r"v(\d+)(?:\.\.(\d+))?", offer)
        if versions is None:
            return False
        newest = int(versions[2] or versions[1])
        self.version = min(NEWEST_VERSION, newest)
        if newest < OLDEST_VERSION or int(versions[1]) > NEWEST_VERSION:
            log.info(
                "API client speaks %s: this gateway speaks v%d..%d", offer, OLDEST_VERSION, NEWEST_VERSION
            )
            return False
        now = self.gateway.brokerage.now().timestamp()
        self._writer.write(frame([self.version, times.write(now)]))
        return True

    async def _frame(self) -> bytes:
        (length,) = HEADER.unpack(await self._reader.readexactly(HEADER.size))
        if length > LONGEST_MESSAGE:
            raise ValueError(f"a message of {length} bytes is too long")
        return await self._reader.readexactly(length)

    async def _receive(self) -> list[str] | None:
        try:
            message = await self._frame()
        except asyncio.IncompleteReadError:
            return None
        return message.decode(errors="replace").split("\0")[:-1]

    def _is_too_fast(self) -> bool:
        """IBKR takes 50 messages a second from a client.

        One more is answered with error 100 and not acted on.
        """
        now = asyncio.get_running_loop().time()
        while self._times and now - self._times[0] >= 1.0:
            self._times.popleft()
        if len(self._times) >= MESSAGES_PER_SECOND:
            return True
        self._times.append(now)
        return False

    async def _handle(self, fields: list[str]) -> bool:
        """Acts on one request; False ends the connection."""
        number = int(fields[0]) if fields and fields[0].isdigit() else -1
        if number not in REQUESTS:
            self._refuse_unserved(number, fields)
            return True
        name, table = REQUESTS[number]
        identity = -1
        try:
            request = decode(table, fields[1:], self.version)
            identity = request.integer("reqId", request.integer("orderId", -1))
            if name == "startApi":
                return self._start(request.integer("clientId"))
            if self.client_id < 0:
                return False
            await self._handlers[name](self, request)
        except Unreadable as error:
            self.complain(identity, 320, f"{name}: {error}")
        except Complaint as complaint:
            self.error(identity, complaint.code, complaint.text)
        except Refused as refusal:
            self.complain(identity, 321, refusal.message)
        except ConnectionError:
            self.complain(identity, 504)
        return True

    def _start(self, client_id: int) -> bool:
        gateway, brokerage = self.gateway, self.gateway.brokerage
        self.client_id = client_id
        if not gateway.register(self):
            self.complain(-1, 326)
            return False
        self.send("managedAccounts", accounts=",".join(brokerage.accounts))
        self.send("nextValidId", orderId=gateway.next_order_id(client_id))
        if not brokerage.connected:
            self.complain(-1, 2110)
            return True
        self.complain(-1, 2104 if brokerage.farms_up else 2103)
        self.complain(-1, 2106)
        self.complain(-1, 2158)
        return True

    def _refuse_unserved(self, number: int, fields: list[str]) -> None:
        if number not in UNSERVED:
            self.complain(-1, 505, f" {number}")
            return
        place = 1 if number in UNSERVED_WITHOUT_VERSION else 2
        given = fields[place] if len(fields) > place else ""
        identity = int(given) if given.isdigit() else -1
        self.complain(identity, 321, f"{UNSERVED[number]} is not served by this paper gateway")
