"""After every connection: what the journal holds open is looked up among what the broker shows.

What is found is taken over. What isn't found is *unknown*, never assumed absent or dead: completed
orders and executions reach back to midnight only, so that nothing was found proves nothing.
Nothing is ever sent from here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from broker.brokers.ibkr.orders import TrackedOrder
from broker.journal import Journal
from broker.models import Order, OrderReport, OrderRequest, Status

log = logging.getLogger(__name__)


def reconcile(journal: Journal, account: str, shown: Iterable[TrackedOrder]) -> list[str]:
    """Bring the journal in line with the orders that the broker shows. Raises `JournalUnavailable`.

    Returns the ids of orders that the journal didn't know.
    """
    orders = [o for o in shown if o.account in ("", account)]
    for order in journal.unsettled(account):
        if any(o.journal_id == order.id for o in orders):
            continue
        found = _matching(order, orders)
        if len(found) == 1:
            _take_over(journal, order, found[0])
        else:
            _report_unknown(journal, order, len(found))
    unknown = [o for o in orders if not o.journal_id and o.permanent_id and o.qty]
    return [order_id for o in unknown if (order_id := _adopt(journal, account, o))]


def _matching(order: Order, shown: list[TrackedOrder]) -> list[TrackedOrder]:
    if order.permanent_id:
        by_number = [o for o in shown if str(o.permanent_id) == order.permanent_id]
        if by_number:
            return by_number
    # A reference isn't unique at IBKR: another program may use the same, so the body must agree too.
    return [
        o
        for o in shown
        if o.reference == order.client_order_id
        and o.symbol == order.symbol
        and o.side == order.side
        and _is_qty(o.qty, order)
        and not o.journal_id
    ]


def _is_qty(shown: float, order: Order) -> bool:
    """Whether an order may be shown with this quantity. A leg loses what the other one has closed."""
    return shown in (0.0, order.qty) or (order.parent_id is not None and shown < order.qty)


def _take_over(journal: Journal, order: Order, tracked: TrackedOrder) -> None:
    tracked.qty = tracked.qty or order.qty
    tracked.journal_id = order.id  # first: what happens from here on reaches the journal by itself
    journal.update(order.id, tracked.report())
    log.info("order %s was found at the broker: %s", order.id, tracked.status)


def _report_unknown(journal: Journal, order: Order, count: int) -> None:
    if count > 1:
        reason = f"{count} orders at the broker carry its reference and body"
    elif order.status == Status.SENT:
        reason = "it was sent, and the broker shows no such order; that doesn't prove that there is none"
    else:
        reason = f"it was {order.status} when last seen, and the broker doesn't show it any more"
    if order.status != Status.UNKNOWN:
        log.error("order %s: outcome unknown: %s", order.id, reason)
        journal.update(order.id, OrderReport(Status.UNKNOWN, reason=reason))


def _ours(journal: Journal, account: str, tracked: TrackedOrder) -> Order | None:
    """An order of ours that ended before TWS gave it its number: a refused one, say."""
    order = journal.find(account, tracked.reference) if tracked.reference else None
    same = order is not None and (order.symbol, order.side) == (tracked.symbol, tracked.side)
    return order if order is not None and same and order.permanent_id is None else None


def _adopt(journal: Journal, account: str, tracked: TrackedOrder) -> str | None:
    """Enter an order under a new id, which is returned, or find the one that it has."""
    known = journal.by_permanent_id(account, str(tracked.permanent_id)) or _ours(journal, account, tracked)
    if known is not None:
        tracked.journal_id = known.id
        journal.update(known.id, tracked.report())
        return None
    request = OrderRequest(
        symbol=tracked.symbol[:32],
        side=tracked.side[:4],
        qty=tracked.qty,
        order_type=tracked.order_type[:16],
        limit_price=tracked.limit_price,
        time_in_force=tracked.time_in_force[:8],
        client_order_id=f"tws-{tracked.permanent_id}",
        placed_by="not through this journal",
        stop_price=tracked.stop_price,
        trail_amount=tracked.trail_amount,
        trail_percent=tracked.trail_percent,
    )
    tracked.journal_id = journal.adopt(account, request, tracked.report()).id
    return tracked.journal_id
