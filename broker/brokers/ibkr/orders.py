"""Orders as TWS itself tells of them.

The libraries change an order's status when a message code arrives, and get it wrong: 10349 on a
live order makes both say Cancelled, 202 leaves ib_insync at Submitted, a remark (399) overwrites
ib_async's status with ValidationError. So the messages are read here, before the library does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from broker.brokers.ibkr import codes
from broker.models import OrderReport, Status

_STATUS = {
    "ApiPending": Status.PENDING,
    "PendingSubmit": Status.PENDING,
    "PreSubmitted": Status.ACCEPTED,
    "Submitted": Status.SUBMITTED,
    "Inactive": Status.INACTIVE,
    "PendingCancel": Status.PENDING_CANCEL,
    "ApiCancelled": Status.CANCELLED,
    "Cancelled": Status.CANCELLED,
    "Filled": Status.FILLED,
}
#: statuses that answer an order just placed; PendingSubmit only says that it was passed on
_ANSWERS = frozenset({"PreSubmitted", "Submitted", "Filled", "Cancelled", "ApiCancelled"})
_FINAL = frozenset({Status.FILLED, Status.CANCELLED, Status.REJECTED})
#: Inactive comes before or after the code that explains it; seconds to wait for that
INACTIVE_GRACE = 0.5


@dataclass
class TrackedOrder:
    """One order of this session. Written on the loop's thread; the journal's thread reads it."""

    client_id: int
    order_id: int
    permanent_id: int = 0
    reference: str = ""
    account: str = ""
    symbol: str = ""
    side: str = ""
    qty: float = 0.0
    order_type: str = ""
    limit_price: float | None = None
    time_in_force: str = ""
    journal_id: str = ""
    broker_status: str = ""
    refusal: tuple[int, str] | None = None
    cancel_refusal: tuple[int, str] | None = None
    reason: tuple[int, str] | None = None
    warnings: list[str] = field(default_factory=list)
    filled: float = 0.0
    average_price: float = 0.0
    executions: dict[str, tuple[float, float]] = field(default_factory=dict)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    #: set when the order is final, or a cancel was refused
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> str:
        """The status in the words of `broker.models.Status`."""
        if self.broker_status == "Filled":
            return Status.FILLED
        if self.refusal is not None:
            return Status.REJECTED
        status = _STATUS.get(self.broker_status, Status.SENT)
        partly = 0 < self.filled_qty < self.qty
        if status in (Status.SUBMITTED, Status.ACCEPTED) and partly:
            return Status.PARTIALLY_FILLED
        # An execution may arrive before the status that tells of it.
        return Status.FILLED if self.qty and self.filled_qty >= self.qty else status

    @property
    def filled_qty(self) -> float:
        """Shares filled: what the executions add up to, or what the status said, whichever came first."""
        return max(self.filled, sum(shares for shares, _ in list(self.executions.values())))

    @property
    def filled_price(self) -> float | None:
        """Average price of the fills in the contract's currency, or None before the first."""
        fills = list(self.executions.values())
        shares = sum(s for s, _ in fills)
        if shares and shares >= self.filled:
            return sum(s * p for s, p in fills) / shares
        return self.average_price or None

    def report(self) -> OrderReport:
        """What the journal takes down."""
        told = self.refusal or self.reason
        return OrderReport(
            status=self.status,
            broker_status=self.broker_status or None,
            filled_qty=self.filled_qty,
            filled_price=self.filled_price,
            broker_order_id=str(self.order_id) if self.order_id > 0 else None,
            permanent_id=str(self.permanent_id) if self.permanent_id else None,
            reason=told[1] if told else None,
            reason_code=str(told[0]) if told else None,
            warnings=tuple(self.warnings),
        )

    def take_status(self, status: str) -> None:
        """A status from orderStatus, openOrder or completedOrder."""
        if not status or self.broker_status == "Filled":
            return
        self.broker_status = status
        if status in _ANSWERS:
            self.answered.set()
        elif status == "Inactive":
            asyncio.get_running_loop().call_later(INACTIVE_GRACE, self.answered.set)
        self._note_end()

    def take_execution(self, execution_id: str, shares: float, price: float) -> None:
        """One fill. A correction repeats its id up to the last dot and replaces it."""
        self.executions[execution_id.rpartition(".")[0] or execution_id] = (shares, price)
        self.answered.set()
        self._note_end()

    def expect_cancel(self) -> None:
        """A cancel is about to be sent: `ended` will tell how that goes."""
        self.cancel_refusal = None
        if self.status not in _FINAL:
            self.ended.clear()

    def take_code(self, code: int, text: str) -> None:
        """A message code about this order."""
        known = self.broker_status in ("PreSubmitted", "Submitted", "PendingCancel")
        if codes.is_remark(code):
            self.warnings.append(f"{code}: {text}")
        elif code == codes.ORDER_CANCELLED:
            self.reason = (code, text)
            self.take_status("Cancelled")
        elif code in codes.CANCEL_REFUSED:
            self.cancel_refusal = (code, text)
            self.ended.set()
        elif code in codes.ORDER_REFUSED or (code in codes.ORDER_INVALID and not known):
            self.refusal = (code, text)
            self.answered.set()
        elif known:
            self.warnings.append(f"{code}: {text}")
        else:
            # Not a code that is known to refuse: the order may live, so only its status decides.
            self.reason = (code, text)
        self._note_end()

    def _note_end(self) -> None:
        if self.status in _FINAL:
            self.ended.set()


class OrderBook:
    """The orders of one session, found by TWS's permanent id or by (client, order id)."""

    def __init__(self, changed: Callable[[TrackedOrder], None]) -> None:
        self._changed = changed
        self._by_number: dict[tuple[int, int], TrackedOrder] = {}
        self._by_permanent_id: dict[int, TrackedOrder] = {}

    def __iter__(self) -> Any:
        return iter({id(o): o for o in [*self._by_permanent_id.values(), *self._by_number.values()]}.values())

    def add(self, order: TrackedOrder) -> TrackedOrder:
        """Track an order that is about to be sent."""
        self._by_number[order.client_id, order.order_id] = order
        return order

    def find(self, client_id: int, order_id: int, permanent_id: int = 0) -> TrackedOrder | None:
        """An order by its numbers. Order id 0 (completed orders, the TWS window's) identifies nothing."""
        found = self._by_permanent_id.get(permanent_id) if permanent_id else None
        if found is None and order_id > 0:
            found = self._by_number.get((client_id, order_id))
            # Order ids are issued anew after a gateway's restart; the permanent id tells them apart.
            if found is not None and permanent_id and found.permanent_id not in (0, permanent_id):
                found = None
        return found

    def by_journal_id(self, journal_id: str) -> TrackedOrder | None:
        """The order that the journal knows under this id."""
        return next((o for o in self if o.journal_id == journal_id), None)

    def on_order(self, contract: Any, order: Any, state: Any) -> None:
        """openOrder or completedOrder."""
        tracked = self.find(order.clientId, order.orderId, order.permId)
        if tracked is None:
            tracked = TrackedOrder(order.clientId, order.orderId)
            if order.orderId > 0:
                self._by_number[order.clientId, order.orderId] = tracked
        self._learn_number(tracked, order.permId)
        tracked.reference = tracked.reference or order.orderRef
        tracked.account = tracked.account or order.account
        tracked.symbol = tracked.symbol or contract.symbol.replace(" ", ".")
        tracked.side = tracked.side or ("buy" if order.action == "BUY" else "sell")  # SSHORT is a sale
        tracked.order_type = tracked.order_type or {"MKT": "market", "LMT": "limit"}.get(
            order.orderType, order.orderType.lower()
        )
        tracked.time_in_force = tracked.time_in_force or order.tif.lower() or "day"
        # A completed order's total is 0; what was filled stands in filledQuantity.
        done = _amount(getattr(order, "filledQuantity", 0.0))
        tracked.qty = tracked.qty or _amount(order.totalQuantity) or done
        if tracked.order_type == "limit":
            tracked.limit_price = _amount(order.lmtPrice) or tracked.limit_price
        tracked.filled = max(tracked.filled, done)
        tracked.take_status(state.status)
        self._changed(tracked)

    def on_status(
        self, client_id: int, order_id: int, permanent_id: int, status: str, filled: float, price: float
    ) -> None:
        """orderStatus."""
        tracked = self.find(client_id, order_id, permanent_id)
        if tracked is not None:
            self._learn_number(tracked, permanent_id)
            if float(filled) >= tracked.filled:
                tracked.filled, tracked.average_price = float(filled), float(price) or tracked.average_price
            tracked.take_status(status)
            self._changed(tracked)

    def on_execution(self, contract: Any, execution: Any) -> None:
        """execDetails, live or asked for. It may be all that tells of an order: its quantity stays 0 then."""
        tracked = self.find(execution.clientId, execution.orderId, execution.permId)
        if tracked is None:
            tracked = TrackedOrder(
                execution.clientId,
                execution.orderId,
                reference=execution.orderRef,
                account=execution.acctNumber,
                symbol=contract.symbol.replace(" ", "."),
                side="buy" if execution.side == "BOT" else "sell",
            )
        self._learn_number(tracked, execution.permId)
        tracked.take_execution(execution.execId, float(execution.shares), float(execution.price))
        self._changed(tracked)

    def on_code(self, client_id: int, order_id: int, code: int, text: str) -> bool:
        """A message code. True if it was about an order of ours."""
        tracked = self.find(client_id, order_id)
        if tracked is None:
            return False
        tracked.take_code(code, text)
        self._changed(tracked)
        return True

    def _learn_number(self, tracked: TrackedOrder, permanent_id: int) -> None:
        if permanent_id:
            tracked.permanent_id = permanent_id
            self._by_permanent_id[permanent_id] = tracked


def _amount(value: Any) -> float:
    """A number of TWS, where "not set" is the largest double."""
    number = float(value or 0.0)
    return 0.0 if abs(number) > 1e300 else number
