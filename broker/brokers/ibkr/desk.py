"""Orders of one trading connection: sends and cancels them, and keeps the journal in line with TWS."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from broker.brokers.ibkr import library
from broker.brokers.ibkr.journal_writer import JournalWriter
from broker.brokers.ibkr.orders import TrackedOrder
from broker.brokers.ibkr.reconcile import reconcile
from broker.brokers.ibkr.session import Session
from broker.errors import NotConnected, OrderNotCancellable
from broker.journal import Journal
from broker.models import Order, OrderReport, Status
from broker.placement import NothingKnown, rejection

#: seconds to wait for an order's first status, and for a cancel's confirmation
FIRST_STATUS, CANCEL_WAIT = 5.0, 3.0


class OrderDesk:
    """From `start` to `stop`; the coroutines run on the session's loop."""

    def __init__(self, journal: Journal, client_id: int) -> None:
        self._journal = journal
        self._client_id = client_id
        self._writer: JournalWriter | None = None

    def start(self) -> None:
        """Begin to write orders' news to the journal."""
        self._writer = JournalWriter(f"ibkr-{self._client_id}-journal")

    def stop(self) -> None:
        """Write what is left, and end."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop()

    def flush(self) -> None:
        """Wait until the journal holds all that TWS said. Raises `JournalUnavailable`."""
        if self._writer is not None:
            self._writer.flush()

    def changed(self, order: TrackedOrder) -> None:
        """TWS said something about an order."""
        if order.journal_id and self._writer is not None:
            self._writer.put(functools.partial(self._journal.update, order.journal_id, order.report()))

    async def reconcile(self, session: Session) -> None:
        """Bring the journal in line with what the session shows. Raises `JournalUnavailable`."""
        if self._writer is not None:
            # In the writer's turn: what it writes now can't overtake or be overtaken by an order's news.
            work = functools.partial(reconcile, self._journal, session.account, list(session.book))
            await asyncio.wrap_future(self._writer.run(work))

    def noted(self, order: Order, _report: OrderReport) -> Order:
        """The order as the journal holds it once all news of it are written."""
        self.flush()
        return self._journal.get(order.account_id, order.id)

    async def send(self, session: Session, order: Order, contract: Any) -> OrderReport:
        """Send an order once, and wait for its first status.

        Raises `OrderRejected`, `NothingKnown` (it left), `NotConnected` (it didn't leave).
        """
        tracked = TrackedOrder(
            self._client_id,
            session.next_order_id(),
            reference=order.client_order_id,
            account=session.account,
            symbol=order.symbol,
            side=order.side,
            qty=order.qty,
            order_type=order.order_type,
            limit_price=order.limit_price,
            time_in_force=order.time_in_force,
            journal_id=order.id,
        )
        session.send(contract, _tws_order(order, session.account), tracked)
        await _first(tracked.answered, session.lost, timeout=FIRST_STATUS)
        if not tracked.answered.is_set() and not session.lost.is_set():
            try:  # a status may have been lost; open orders tell it again
                await session.refresh_orders()
            except NotConnected as failure:
                raise NothingKnown(f"no answer within {FIRST_STATUS:g} s: {failure.reason}") from failure
        if tracked.refusal is not None:
            code, reason = tracked.refusal
            raise rejection(reason, code)
        if tracked.answered.is_set() or tracked.broker_status:
            return tracked.report()
        if session.lost.is_set():
            raise NothingKnown(f"the connection was lost before the broker answered: {session.why_lost}")
        told = f"; it said: {tracked.reason[1]} ({tracked.reason[0]})" if tracked.reason else ""
        raise NothingKnown(f"the broker gave no status within {FIRST_STATUS:g} s{told}")

    async def cancel(self, session: Session, order: Order) -> None:
        """Cancel an order, and wait a moment for the confirmation.

        Raises `OrderNotCancellable`, `NotConnected` (the request may not have arrived: repeat it).
        """
        tracked = session.book.by_journal_id(order.id)
        if tracked is None:
            raise OrderNotCancellable("the broker doesn't show this order, so it can't be cancelled", order)
        tracked.expect_cancel()
        try:
            session.ib.cancelOrder(
                library.Order(
                    orderId=tracked.order_id, clientId=tracked.client_id, permId=tracked.permanent_id
                )
            )
        except ConnectionError:
            raise NotConnected(session.why_lost or "the connection is gone") from None
        tracked.take_status("PendingCancel")
        self.changed(tracked)
        await _first(tracked.ended, session.lost, timeout=CANCEL_WAIT)
        if session.lost.is_set():
            said = f"the cancel may not have arrived: {session.why_lost}"
            raise NotConnected(said, doing="connecting again")
        if tracked.status == Status.FILLED:
            raise OrderNotCancellable("the order was filled before the cancel arrived", order)
        if tracked.cancel_refusal is not None:
            code, reason = tracked.cancel_refusal
            raise OrderNotCancellable(f"{reason} ({code})", order)


def _tws_order(order: Order, account: str) -> Any:
    made = library.Order(
        action=order.side.upper(),
        totalQuantity=int(order.qty) if order.qty == int(order.qty) else order.qty,
        orderType={"market": "MKT", "limit": "LMT"}[order.order_type],
        tif=order.time_in_force.upper(),
        orderRef=order.client_order_id,
        account=account,
    )
    if order.limit_price is not None:
        made.lmtPrice = order.limit_price
    return made


async def _first(*events: asyncio.Event, timeout: float) -> None:
    waiting = [asyncio.ensure_future(e.wait()) for e in events]
    try:
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
