"""Orders of one trading connection on their way out: placed, changed, cancelled, previewed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from broker.brokers.ibkr import library
from broker.brokers.ibkr.order_types import amount, tws_order
from broker.brokers.ibkr.orders import Change, TrackedOrder
from broker.brokers.ibkr.pacing import Turns
from broker.brokers.ibkr.session import Session
from broker.brokers.ibkr.signals import first
from broker.errors import NotConnected, OrderNotCancellable, OrderNotReplaceable
from broker.models import FINAL_STATUSES, Order, OrderPreview, OrderReport, OrderRequest, Status
from broker.placement import NothingKnown, rejection

log = logging.getLogger(__name__)

#: seconds to wait for an order's first status, and for a cancel's confirmation
FIRST_STATUS, CANCEL_WAIT = 5.0, 3.0


class OrderDesk:
    """The coroutines run on the session's loop."""

    def __init__(self, client_id: int) -> None:
        self._client_id = client_id
        self._turns = Turns()

    async def send(
        self, session: Session, order: Order, contract: Any, legs: Sequence[Order] = ()
    ) -> OrderReport:
        """Send an order once, a bracket with its legs, and wait for its first status.

        A bracket's messages leave without a pause between them, and TWS transmits none of the three
        before it has the last. If a leg is refused the entry is cancelled.
        Raises `OrderRejected`, `NothingKnown` (it left), `NotConnected` (it didn't leave).
        """
        for _ in range(1 + len(legs)):
            await self._turns.turn()
        entry, *children = [self._tracked(session, one) for one in (order, *legs)]
        wanted = [tws_order(one) for one in (order, *legs)]
        for child in wanted[1:]:
            child.parentId = entry.order_id
        for one in wanted[:-1]:
            one.transmit = False
        for made, tracked in zip(wanted, (entry, *children), strict=True):
            session.send(contract, made, tracked)
        await self._answers(session, [entry, *children])
        if entry.refusal is not None:
            code, reason = entry.refusal
            raise rejection(reason, code)
        refused = next((child for child in children if child.refusal is not None), None)
        if refused is not None:
            return await self._withdraw(session, order, entry, refused)
        if entry.answered.is_set() or entry.broker_status:
            return entry.report()
        if session.lost.is_set():
            raise NothingKnown(f"the connection was lost before the broker answered: {session.why_lost}")
        told = f"; it said: {entry.reason[1]} ({entry.reason[0]})" if entry.reason else ""
        raise NothingKnown(f"the broker gave no status within {FIRST_STATUS:g} s{told}")

    def _tracked(self, session: Session, order: Order) -> TrackedOrder:
        return TrackedOrder(
            self._client_id,
            session.next_order_id(),
            reference=order.client_order_id,
            account=order.account_id,
            symbol=order.symbol,
            side=order.side,
            qty=order.qty,
            order_type=order.order_type,
            limit_price=order.limit_price,
            stop_price=order.stop_price,
            trail_amount=order.trail_amount,
            trail_percent=order.trail_percent,
            time_in_force=order.time_in_force,
            journal_id=order.id,
            reconciled=True,
        )

    async def _answers(self, session: Session, sent: list[TrackedOrder]) -> None:
        """Wait for the first status of each, or of the entry if that is a refusal. Raises `NothingKnown`."""
        deadline = asyncio.get_running_loop().time() + FIRST_STATUS
        for tracked in sent:
            left = deadline - asyncio.get_running_loop().time()
            await first(tracked.answered, session.lost, timeout=max(left, 0.0))
            if sent[0].refusal is not None or session.lost.is_set():
                return
        if not all(tracked.answered.is_set() for tracked in sent):
            try:  # a status may have been lost; open orders tell it again
                await session.refresh_orders()
            except NotConnected as failure:
                raise NothingKnown(f"no answer within {FIRST_STATUS:g} s: {failure.reason}") from failure

    async def _withdraw(
        self, session: Session, order: Order, entry: TrackedOrder, leg: TrackedOrder
    ) -> OrderReport:
        """Cancel an entry that has lost a leg. Raises `OrderRejected` unless it may have traded."""
        code, reason = leg.refusal or (0, "")
        said = f"its {leg.order_type} leg was refused: {reason}"
        failed = ""
        try:
            await self.cancel(session, order)
        except (OrderNotCancellable, NotConnected) as failure:
            failed = f", and it couldn't be cancelled: {failure.message}"
        whole = entry.status == Status.CANCELLED and not entry.filled_qty
        if whole:
            entry.withdrawn = (code, said)
        else:
            entry.warnings.append(f"{code}: {said}{failed}")
            log.error("order %s works without all of its bracket: %s%s", order.id, said, failed)
        session.book.changed(entry)
        if whole:
            raise rejection(said, code)
        return entry.report()

    async def cancel(self, session: Session, order: Order) -> None:
        """Cancel an order, and wait a moment for the confirmation. It waits for nobody's turn.

        Raises `OrderNotCancellable`, `NotConnected` (the request may not have arrived: repeat it).
        """
        tracked = session.book.by_journal_id(order.id)
        if tracked is None:
            raise OrderNotCancellable("the broker doesn't show this order, so it can't be cancelled", order)
        tracked.expect_cancel()
        try:
            session.ib.client.cancelOrder(tracked.order_id, "")
        except ConnectionError:
            raise NotConnected(session.why_lost or "the connection is gone") from None
        tracked.take_status("PendingCancel")
        session.book.changed(tracked)
        await first(tracked.ended, session.lost, timeout=CANCEL_WAIT)
        if session.lost.is_set():
            said = f"the cancel may not have arrived: {session.why_lost}"
            raise NotConnected(said)
        if tracked.status == Status.FILLED:
            raise OrderNotCancellable("the order was filled before the cancel arrived", order)
        if tracked.cancel_refusal is not None:
            code, reason = tracked.cancel_refusal
            raise OrderNotCancellable(f"{reason} ({code})", order)

    async def cancel_all(self, session: Session, orders: list[Order], *, everyones: bool) -> None:
        """Cancel these orders, or with `everyones` all of the login's, whoever placed them.

        Raises `NotConnected`. An order that ends by itself meanwhile, or that another client id
        placed, isn't an error: its own state tells.
        """
        if everyones:
            try:
                session.ib.reqGlobalCancel()
            except ConnectionError:
                raise NotConnected(session.why_lost or "the connection is gone") from None
            tracked = [t for o in orders if (t := session.book.by_journal_id(o.id)) is not None]
            waits = [first(t.ended, session.lost, timeout=CANCEL_WAIT) for t in tracked]
            await asyncio.gather(*waits)
            return

        async def one(order: Order) -> None:
            with contextlib.suppress(OrderNotCancellable):
                await self.cancel(session, order)

        await asyncio.gather(*(one(order) for order in orders))

    async def replace(
        self, session: Session, order: Order, contract: Any, change: dict[str, float | str]
    ) -> None:
        """Change an order in place, under the order id that it has, and wait until TWS shows it changed.

        Raises `OrderNotReplaceable`, `NothingKnown` (it left), `NotConnected` (it didn't leave).
        """
        tracked = session.book.by_journal_id(order.id)
        if tracked is None or tracked.client_id != self._client_id or tracked.order_id <= 0:
            raise OrderNotReplaceable("only the client id that placed an order can change it", order)
        if tracked.status in FINAL_STATUSES:
            raise OrderNotReplaceable(f"the order is {tracked.status}", order)
        await self._turns.turn()
        wanted = tws_order(order)  # the order as it will be
        wanted.orderId, wanted.permId = tracked.order_id, tracked.permanent_id
        entry = session.book.by_journal_id(order.parent_id) if order.parent_id else None
        # TWS refuses a leg's change that names an entry which has ended (135; ib_insync 647).
        if entry is not None and entry.status not in FINAL_STATUSES:
            wanted.parentId = entry.order_id
        tracked.change = sent = Change(change)
        try:
            session.change(contract, wanted)
            await first(sent.answered, session.lost, timeout=FIRST_STATUS)
            if not sent.answered.is_set() and not session.lost.is_set():
                try:  # the confirmation may have been lost; open orders show it again
                    await session.refresh_orders()
                except NotConnected as failure:
                    raise NothingKnown(f"the change wasn't confirmed: {failure.reason}") from failure
        finally:
            tracked.change = None
        if sent.refusal is not None:
            code, reason = sent.refusal
            raise OrderNotReplaceable(f"{reason} ({code})", order)
        if not sent.answered.is_set():
            raise NothingKnown(session.why_lost or f"the change wasn't confirmed within {FIRST_STATUS:g} s")
        shown = {name: getattr(tracked, name) for name in change}
        if tracked.status in FINAL_STATUSES and shown != change:
            raise OrderNotReplaceable(f"the order was {tracked.status} before the change arrived", order)

    async def preview(
        self, session: Session, request: OrderRequest, contract: Any, price: float | None
    ) -> OrderPreview:
        """TWS's what-if of an order. `price`: what a share costs about. Raises `OrderRejected`."""
        asked = Order("", request.symbol, request.side, request.qty, request.order_type, Status.RECORDED)
        for name in ("limit_price", "stop_price", "trail_amount", "trail_percent", "time_in_force"):
            setattr(asked, name, getattr(request, name))
        asked.account_id = request.account or session.account
        await self._turns.turn()
        try:
            state = await session.ask(session.ib.whatIfOrderAsync(contract, tws_order(asked)))
        except library.RequestError as refusal:
            raise rejection(refusal.message, refusal.code) from None
        low, high = amount(state.minCommission), amount(state.maxCommission)
        return OrderPreview(
            symbol=request.symbol,
            side=request.side,
            qty=request.qty,
            order_type=request.order_type,
            estimated_cost=None if price is None else round(price * request.qty, 9),
            commission=amount(state.commission),
            commission_range=(low, high) if low is not None and high is not None else None,
            initial_margin_after=amount(state.initMarginAfter),
            maintenance_margin_after=amount(state.maintMarginAfter),
            equity_after=amount(state.equityWithLoanAfter),
            warnings=[state.warningText] if state.warningText else [],
        )
