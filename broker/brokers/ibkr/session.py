"""One connection to a gateway: handshake, synchronisation, requests with deadlines; on the loop's thread.

A session is used once. After its socket is gone its answers would be empty, not wrong
(`positions()` of a dead connection is `[]`), so it is thrown away with everything it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from broker.brokers.ibkr import codes, library
from broker.brokers.ibkr.holdings import Holdings
from broker.brokers.ibkr.orders import OrderBook, TrackedOrder
from broker.brokers.ibkr.signals import Shared, Signal, first
from broker.brokers.link import State
from broker.errors import NotConnected

T = TypeVar("T")

#: two currentTime requests within a second hang ib_insync (its issue 604)
PING_PAUSE = 1.2
#: seconds that a proof of the link to IBKR is good for
PROOF_LIVES = 10.0


class SessionFailed(Exception):
    """A connection couldn't be made. `state` is what the link is in."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


class _Wrapper(library.Wrapper):  # type: ignore[misc]
    """Sees TWS's messages before the library makes something of them.

    Of orders the library makes nothing: it would keep a second book, get statuses wrong (see `orders`),
    and write each message out for a log that nobody reads, which takes longer than all else here.
    """

    session: Session

    def connectAck(self) -> None:  # noqa: N802
        self.session.handshake_done = True
        super().connectAck()

    def openOrder(self, order_id: int, contract: Any, order: Any, state: Any) -> None:  # noqa: N802
        if order.whatIf:
            super().openOrder(order_id, contract, order, state)
            return
        self.session.book.on_order(contract, order, state)
        self.ib.client.updateReqId(order_id + 1)  # ids of other clients' orders aren't used again

    def completedOrder(self, contract: Any, order: Any, state: Any) -> None:  # noqa: N802
        self.session.book.on_order(contract, order, state)

    def orderStatus(  # noqa: N802
        self,
        orderId: int,  # noqa: N803
        status: str,
        filled: float,
        remaining: float,
        avgFillPrice: float,  # noqa: N803
        permId: int,  # noqa: N803
        parentId: int,  # noqa: N803
        lastFillPrice: float,  # noqa: N803
        clientId: int,  # noqa: N803
        whyHeld: str,  # noqa: N803
        mktCapPrice: float = 0.0,  # noqa: N803
    ) -> None:
        self.session.book.on_status(clientId, orderId, permId, status, filled, avgFillPrice)

    def execDetails(self, request_id: int, contract: Any, execution: Any) -> None:  # noqa: N802
        super().execDetails(request_id, contract, execution)  # mends unset order ids first
        self.session.book.on_execution(contract, execution)

    def commissionReport(self, report: Any) -> None:  # noqa: N802
        super().commissionReport(report)
        self.session.book.on_commission(report)

    def position(self, account: str, contract: Any, held: float, average: float) -> None:
        super().position(account, contract, held, average)
        self.session.holdings.changed()
        self.session.positions_moved.set()

    def updatePortfolio(self, *told: Any) -> None:  # noqa: N802
        super().updatePortfolio(*told)
        self.session.holdings.changed()

    def error(self, request_id: int, code: int, text: str, advanced: str) -> None:
        if not self.session.on_code(request_id, code, text, request_id in self._futures):
            super().error(request_id, code, text, advanced)


class Session:
    """A connection. `lost` is set, with `why_lost`, when it can't be used any more."""

    def __init__(
        self,
        client_id: int,
        timeout: float,
        book: OrderBook,
        connectivity_changed: Callable[[str, str], None],
    ) -> None:
        """`timeout`: seconds for each answer. `connectivity_changed` gets a state and TWS's words."""
        self.client_id = client_id
        self.timeout = timeout
        self.book = book
        #: set when a position may have changed; whoever compares positions clears it
        self.positions_moved = asyncio.Event()
        self.holdings = Holdings()
        # The library knows one such request at a time: the answers of two would go to the second alone.
        self._refreshing = Shared(self._refresh_orders)
        self.handshake_done = False
        self.accounts: list[str] = []
        self.account = ""
        self.lost = Signal()
        self.why_lost = ""
        self.ticker_errors: dict[int, tuple[int, str]] = {}
        self.farm_troubles: dict[str, str] = {}
        self._connectivity_changed = connectivity_changed
        self._said: list[str] = []
        self._id_in_use = False
        self._pinging = asyncio.Lock()
        self._pinged_at = self._proved_at = -float("inf")
        self._round_trip = 0.0
        self._cut_off = False
        #: when something beyond the gateway last answered
        self.proved_at: datetime | None = None
        self.since = datetime.now(UTC)
        self.ib = self._make_ib()

    def _make_ib(self) -> Any:
        ib = library.IB()
        extra = {"defaults": ib.wrapper.defaults} if hasattr(ib.wrapper, "defaults") else {}
        ib.wrapper = _Wrapper(ib, **extra)
        ib.wrapper.session = self
        # The client and its decoder hold the wrapper's methods, so they are made anew around ours.
        ib.client = library.Client(ib.wrapper)
        ib.client.apiEnd += ib.disconnectedEvent
        ib.disconnectedEvent += lambda: self.end("the gateway closed the connection")
        ib.RaiseRequestErrors = True
        return ib

    async def open(self, host: str, port: int, account: str, check: Callable[[str], None]) -> None:
        """Connect and synchronise. `check` may refuse the account. Raises `SessionFailed`."""
        try:
            await self._handshake(host, port)
            self.accounts = list(self.ib.client.getAccounts())
            self.account = self._choose(account)
            check(self.account)
            await self._synchronise()
        except TimeoutError:
            self.close()
            said = f"the gateway didn't finish the synchronisation within {self.timeout:g} s"
            raise SessionFailed(State.DISCONNECTED, said) from None
        except (OSError, library.RequestError) as failure:
            self.close()
            raise SessionFailed(State.DISCONNECTED, f"the connection broke: {failure}") from failure
        except BaseException:
            self.close()
            raise

    def _choose(self, account: str) -> str:
        if account and account not in self.accounts:
            raise SessionFailed(State.WRONG_ACCOUNT, f"the login doesn't manage the account {account}")
        if not account and len(self.accounts) > 1:
            said = f"the login manages {len(self.accounts)} accounts: IBKR_ACCOUNT must name one of them"
            raise SessionFailed(State.WRONG_ACCOUNT, f"{said} ({', '.join(self.accounts)})")
        return account or self.accounts[0]

    async def _handshake(self, host: str, port: int) -> None:
        # The library waits for its whole timeout when the gateway closes the socket before the API is up.
        closed = asyncio.Event()
        self.ib.client.conn.disconnected += lambda _words: closed.set()
        closing = asyncio.ensure_future(closed.wait())
        self.ib.wrapper.clientId = self.client_id
        connecting = asyncio.ensure_future(
            self.ib.client.connectAsync(host, port, self.client_id, self.timeout)
        )
        await asyncio.wait({connecting, closing}, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
            return
        connecting.cancel()
        failures = await asyncio.gather(connecting, return_exceptions=True)
        raise self._why(failures[0], f"{host}:{port}", self.ib.client.conn.numMsgSent or closed.is_set())

    def _why(self, failure: Any, address: str, accepted: bool) -> SessionFailed:
        if self._id_in_use:
            said = f"client id {self.client_id} is in use at the gateway (326)"
            return SessionFailed(State.CLIENT_ID_IN_USE, said)
        told = f" ({'; '.join(self._said)})" if self._said else ""
        if self.handshake_done:
            said = f"the gateway at {address} isn't logged in"
            return SessionFailed(State.NOT_LOGGED_IN, said + told)
        if accepted:
            said = f"{address} takes connections but no API answers: the gateway isn't running or logged in"
            return SessionFailed(State.NO_API, said + told)
        if isinstance(failure, ConnectionRefusedError):
            return SessionFailed(State.DISCONNECTED, f"{address} refuses connections")
        if isinstance(failure, TimeoutError):
            said = f"no answer from {address} within {self.timeout:g} s: a firewall, or the machine is off"
            return SessionFailed(State.DISCONNECTED, said)
        detail = f": {failure}" if isinstance(failure, OSError) else ""
        return SessionFailed(State.DISCONNECTED, f"{address} can't be reached{detail}")

    async def _synchronise(self) -> None:
        # What the library's connectAsync asks for, but a request that isn't answered is a failure here.
        await self._all(
            self.ib.reqPositionsAsync(),
            self.ib.reqOpenOrdersAsync(),
            self.ib.reqCompletedOrdersAsync(False),
            self.ib.reqAccountUpdatesAsync(self.account),
        )
        await self._all(self.ib.reqExecutionsAsync())  # after the orders that they belong to
        self.ib.reqMarketDataType(3)  # delayed prices where live ones aren't subscribed
        if not self._cut_off:  # a gateway without its link answers with what it remembers
            self._note_proof()

    async def refresh_orders(self) -> None:
        """Ask for orders and fills again, once for all who want that. Raises `NotConnected`."""
        await self._refreshing()

    async def _refresh_orders(self) -> None:
        orders = self.ib.reqOpenOrdersAsync(), self.ib.reqCompletedOrdersAsync(False)
        await self.ask(asyncio.gather(*orders))
        await self.refresh_executions()

    async def refresh_positions(self) -> None:
        """Ask for positions again. Raises `NotConnected`.

        What moved while the gateway's link was down is told to nobody who had subscribed before.
        """
        # What is closed by now isn't told of, so nothing may be left of the earlier answer.
        self.ib.wrapper.positions.clear()
        self.holdings.changed()
        await self.ask(self.ib.reqPositionsAsync())

    async def refresh_executions(self) -> None:
        """Ask for the day's fills again, those of other clients too. Raises `NotConnected`."""
        await self.ask(self.ib.reqExecutionsAsync())

    async def _all(self, *requests: Awaitable[Any]) -> None:
        await asyncio.wait_for(asyncio.gather(*requests), self.timeout)

    async def ask(self, request: Awaitable[T]) -> T:
        """The answer to a request. Raises `NotConnected` without one; TWS's refusals as RequestError."""
        asked, answered = asyncio.ensure_future(request), Signal()
        asked.add_done_callback(lambda _: answered.set())
        try:
            await first(answered, self.lost, timeout=self.timeout)
            if asked.done():
                return asked.result()
        except OSError as failure:
            raise NotConnected(self.why_lost or f"the connection broke: {failure}") from None
        finally:
            asked.cancel()
            asked.add_done_callback(_retrieve)
        if self.lost.is_set():
            raise NotConnected(self.why_lost)
        raise NotConnected(f"the gateway didn't answer within {self.timeout:g} s")

    async def ping(self) -> float:
        """Seconds of a round trip to the gateway, measured once in `PING_PAUSE`. Raises `NotConnected`."""
        async with self._pinging:
            loop = asyncio.get_running_loop()
            if loop.time() - self._pinged_at > PING_PAUSE:
                began = loop.time()
                await self.ask(self.ib.reqCurrentTimeAsync())
                self._pinged_at = loop.time()
                self._round_trip = self._pinged_at - began
            return self._round_trip

    async def prove(self) -> None:
        """Prove that something answers beyond the gateway. Raises `NotConnected`.

        The handshake and currentTime only prove that the gateway's process lives.
        """
        loop = asyncio.get_running_loop()
        if loop.time() - self._proved_at > PROOF_LIVES:
            try:
                found = await self.ask(self.ib.reqContractDetailsAsync(library.Stock("SPY", "SMART", "USD")))
            except library.RequestError as refusal:
                raise NotConnected(f"IBKR doesn't answer: {refusal.message} ({refusal.code})") from None
            if not found:
                raise NotConnected("IBKR doesn't answer a contract look-up")
            self._note_proof()

    def _note_proof(self) -> None:
        self._proved_at = asyncio.get_running_loop().time()
        self.proved_at = datetime.now(UTC)

    def on_code(self, request_id: int, code: int, text: str, is_request: bool) -> bool:
        """A message code. True if the library must not see it as an order's error."""
        if code in codes.LINK_LOST:
            self._proved_at = -float("inf")  # a proof from before says nothing about the link now
            self._cut_off = True
            self._connectivity_changed(State.LINK_LOST, f"{text} ({code})")
        elif code == codes.LINK_RESTORED:
            self._cut_off = False
            self._connectivity_changed(State.CONNECTED, f"{text} ({code})")
        elif code == codes.LINK_RESTORED_DATA_LOST:
            self.end(f"{text} ({code})")
        elif code == codes.CLIENT_ID_IN_USE:
            self._id_in_use = True
        elif code in (2103, 2105, 2157):
            self.farm_troubles[text.rpartition(":")[2]] = f"{text} ({code})"
        elif code in (2104, 2106, 2158):
            self.farm_troubles.pop(text.rpartition(":")[2], None)
        elif request_id > 0 and not is_request:
            if self.book.on_code(self.client_id, request_id, code, text):
                self.ib.errorEvent.emit(request_id, code, text, None)
                return True
            self.ticker_errors[request_id] = (code, text)
        elif request_id <= 0 and code not in (2107, 2108, 2119):
            self._said = [*self._said[-4:], f"{text} ({code})"]
        return False

    def send(self, contract: Any, order: Any, tracked: TrackedOrder) -> None:
        """Send an order. Raises `NotConnected` if nothing left."""
        if self.lost.is_set() or not self.ib.client.isReady():
            raise NotConnected(self.why_lost or "the connection is gone")
        order.orderId = tracked.order_id
        self.book.add(tracked)
        self.ib.client.placeOrder(order.orderId, contract, order)

    def change(self, contract: Any, order: Any) -> None:
        """Send an order again under its own id. Raises `NotConnected` if nothing left."""
        if self.lost.is_set() or not self.ib.client.isReady():
            raise NotConnected(self.why_lost or "the connection is gone")
        self.ib.client.placeOrder(order.orderId, contract, order)

    def next_order_id(self) -> int:
        """The id for the next order. Raises `NotConnected`."""
        try:
            return int(self.ib.client.getReqId())
        except ConnectionError:
            raise NotConnected(self.why_lost or "the connection is gone") from None

    def end(self, why: str) -> None:
        """The connection can't be used any more."""
        if not self.lost.is_set():
            self.why_lost = why
            self.lost.set()
            self._connectivity_changed(State.DISCONNECTED, why)

    def close(self) -> None:
        """Close the socket."""
        self.end("the connection was closed")
        with contextlib.suppress(OSError):
            self.ib.client.disconnect()


def _retrieve(ended: asyncio.Future[Any]) -> None:
    """Take note of how a request ended that nobody waits for any more; asyncio would complain."""
    if not ended.cancelled():
        ended.exception()
