"""Orders as TWS itself tells of them.

The libraries change an order's status when a message code arrives, and get it wrong: 10349 on a
live order makes both say Cancelled, 202 leaves ib_insync at Submitted, a remark (399) overwrites
ib_async's status with ValidationError. So the messages are read here, before the library does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from broker.brokers.ibkr import codes
from broker.brokers.ibkr.executions import Execution, from_tws, split_id
from broker.brokers.ibkr.order_types import LIMITED, OUR_TYPES, STOPPED, amount
from broker.brokers.ibkr.signals import Signal
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
#: states of one order that wait for the journal, while its database is away
TRAIL = 100
#: Inactive comes before or after the code that explains it; seconds to wait for that
INACTIVE_GRACE = 0.5


@dataclass
class Change:
    """A replacement that was sent: what it changes, and whether TWS has answered."""

    wanted: dict[str, float | str]
    refusal: tuple[int, str] | None = None
    answered: Signal = field(default_factory=Signal)


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
    stop_price: float | None = None
    trail_amount: float | None = None
    trail_percent: float | None = None
    time_in_force: str = ""
    journal_id: str = ""
    #: whether TWS has shown the order with its numbers (openOrder), which may not be those that we sent
    shown: bool = False
    #: whether the journal was asked for it, so that no `journal_id` means that it isn't ours
    reconciled: bool = False
    change: Change | None = None
    broker_status: str = ""
    refusal: tuple[int, str] | None = None
    cancel_refusal: tuple[int, str] | None = None
    reason: tuple[int, str] | None = None
    #: why we took the order back ourselves; TWS only says that it was cancelled
    withdrawn: tuple[int, str] | None = None
    warnings: list[str] = field(default_factory=list)
    filled: float = 0.0
    average_price: float = 0.0
    executions: dict[str, Execution] = field(default_factory=dict)
    #: its states since the journal last took one down, with their times: it takes them in batches
    trail: deque[OrderReport] = field(default_factory=deque)
    _last: OrderReport | None = None
    answered: Signal = field(default_factory=Signal)
    #: set when the order is final, or a cancel was refused
    ended: Signal = field(default_factory=Signal)

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
        return max(self.filled, sum(e.shares for e in list(self.executions.values())))

    @property
    def filled_price(self) -> float | None:
        """Average price of the fills in the contract's currency, or None before the first."""
        fills = list(self.executions.values())
        shares = sum(e.shares for e in fills)
        if shares and shares >= self.filled:
            return sum(e.shares * e.price for e in fills) / shares
        return self.average_price or None

    def report(self) -> OrderReport:
        """What the journal takes down."""
        told = self.refusal or self.withdrawn or self.reason
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
            qty=self.qty if self.shown else None,
            limit_price=self.limit_price if self.shown else None,
            stop_price=self.stop_price if self.shown else None,
            time_in_force=self.time_in_force if self.shown else None,
        )

    def note_state(self) -> None:
        """Keep the state of this moment for the journal. What TWS repeats (it does) is kept once."""
        report = self.report()
        if report != self._last:
            self._last = report
            if len(self.trail) >= TRAIL:
                self.trail.pop()
            self.trail.append(replace(report, at=datetime.now(UTC)))

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

    def take_execution(self, execution: Execution) -> None:
        """One fill. A correction takes the place of what it corrects."""
        known = self.executions.get(execution.key)
        if known is None or known.revision <= execution.revision:
            if known is not None and execution.commission is None:
                execution.commission = known.commission
            self.executions[execution.key] = execution
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
        refuses = code in codes.ORDER_REFUSED or code in codes.ORDER_INVALID
        if self.change is not None and refuses and not self.change.answered.is_set():
            # It refuses the change; what has become of the order, its status tells.
            self.change.refusal = (code, text)
            self.change.answered.set()
        elif codes.is_remark(code):
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

    def take_numbers(self, order: Any) -> None:
        """What openOrder or completedOrder shows of the order itself."""
        self.order_type = self.order_type or OUR_TYPES.get(order.orderType, order.orderType.lower())
        # A completed order's total is 0; what was filled stands in filledQuantity.
        done = amount(getattr(order, "filledQuantity", None)) or 0.0
        self.filled = max(self.filled, done)
        total = amount(order.totalQuantity) or 0.0
        self.qty = total or self.qty or done
        self.time_in_force = order.tif.lower() or self.time_in_force or "day"
        if self.order_type in LIMITED:
            self.limit_price = amount(order.lmtPrice) or self.limit_price
        if self.order_type in STOPPED:
            self.stop_price = amount(order.auxPrice) or self.stop_price
        if self.order_type == "trailing_stop":
            self.trail_percent = amount(order.trailingPercent) or self.trail_percent
            self.trail_amount = None if self.trail_percent else amount(order.auxPrice) or self.trail_amount
        self.shown = self.shown or total > 0
        if self.change is not None and all(getattr(self, n) == v for n, v in self.change.wanted.items()):
            self.change.answered.set()

    def _note_end(self) -> None:
        if self.status in _FINAL:
            self.ended.set()
            if self.change is not None:
                self.change.answered.set()


class OrderBook:
    """The orders of one session, found by TWS's permanent id or by (client, order id)."""

    def __init__(
        self,
        changed: Callable[[TrackedOrder], None],
        executed: Callable[[TrackedOrder, Execution], None],
    ) -> None:
        self.changed = changed
        self._executed = executed
        self._by_execution: dict[str, tuple[TrackedOrder, str]] = {}
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
        tracked.take_numbers(order)
        tracked.take_status(state.status)
        self.changed(tracked)

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
            self.changed(tracked)

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
        told = from_tws(contract, execution)
        tracked.take_execution(told)
        self._by_execution[told.id] = (tracked, told.key)
        self.changed(tracked)
        self._executed(tracked, told)

    def on_commission(self, report: Any) -> None:
        """commissionReport, which follows its execDetails."""
        tracked, key = self._by_execution.get(report.execId, (None, ""))
        cost = amount(report.commission)
        execution = tracked.executions.get(key) if tracked is not None else None
        if tracked is None or execution is None or cost is None:
            return
        if execution.revision == split_id(report.execId)[1]:
            execution.commission, execution.currency = cost, report.currency or execution.currency
            self._executed(tracked, execution)

    def on_code(self, client_id: int, order_id: int, code: int, text: str) -> bool:
        """A message code. True if it was about an order of ours."""
        tracked = self.find(client_id, order_id)
        if tracked is None:
            return False
        tracked.take_code(code, text)
        self.changed(tracked)
        return True

    def _learn_number(self, tracked: TrackedOrder, permanent_id: int) -> None:
        if permanent_id:
            tracked.permanent_id = permanent_id
            self._by_permanent_id[permanent_id] = tracked
