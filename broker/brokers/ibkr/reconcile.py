"""After every connection: what the journal holds open is looked up among what the broker shows.

What is found is taken over. What isn't found is *unknown*, never assumed absent or dead: completed
orders and executions reach back to midnight only, so that nothing was found proves nothing.
Nothing is ever sent from here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from broker.brokers.ibkr.orders import TrackedOrder
from broker.journal import FOREIGN, Journal
from broker.journal_rows import changes_of
from broker.models import Order, OrderReport, OrderRequest, Status

log = logging.getLogger(__name__)


@dataclass
class Reconciled:
    """What came of it, for when it is committed."""

    #: the journal's open orders as they were
    before: list[Order] = field(default_factory=list)
    #: the journal's orders that were open or have changed, as they are now
    orders: dict[str, Order] = field(default_factory=dict)
    #: orders that the journal didn't know, with what they were entered as
    adopted: list[tuple[TrackedOrder, Order, OrderReport]] = field(default_factory=list)


def reconcile(journal: Journal, account: str, shown: Iterable[TrackedOrder]) -> Reconciled:
    """Bring the journal in line with the orders that the broker shows. Raises `JournalUnavailable`.

    Within `Journal.together`. What was adopted gets its `journal_id` from the caller, after the commit:
    until then there is nothing in the journal that an order's next news could change.
    """
    orders = [o for o in shown if o.account in ("", account)]
    done = Reconciled()
    taken = {o.journal_id for o in orders if o.journal_id}
    by_number, by_reference = (
        _by(orders, lambda o: str(o.permanent_id or "")),
        _by(orders, lambda o: o.reference),
    )
    done.before = journal.unsettled(account)
    for order in done.before:
        done.orders[order.id] = order
        if order.id in taken:
            continue
        found = by_number.get(order.permanent_id or "") or _like(order, by_reference)
        if len(found) == 1:
            log.info("order %s was found at the broker: %s", order.id, found[0].status)
            done.orders[order.id] = _take_over(journal, order, found[0])
        else:
            done.orders[order.id] = _report_unknown(journal, order, len(found))
    _adopt(journal, account, [o for o in orders if not o.journal_id and o.permanent_id and o.qty], done)
    return done


def _by(orders: list[TrackedOrder], key: Callable[[TrackedOrder], str]) -> dict[str, list[TrackedOrder]]:
    found: dict[str, list[TrackedOrder]] = {}
    for order in orders:
        if name := key(order):
            found.setdefault(name, []).append(order)
    return found


def _like(order: Order, by_reference: dict[str, list[TrackedOrder]]) -> list[TrackedOrder]:
    # A reference isn't unique at IBKR: another program may use the same, so the body must agree too.
    return [
        o
        for o in by_reference.get(order.client_order_id, [])
        if (o.symbol, o.side) == (order.symbol, order.side) and _is_qty(o.qty, order) and not o.journal_id
    ]


def _is_qty(shown: float, order: Order) -> bool:
    """Whether an order may be shown with this quantity. A leg loses what the other one has closed."""
    return shown in (0.0, order.qty) or (order.parent_id is not None and shown < order.qty)


def _take_over(journal: Journal, order: Order, tracked: TrackedOrder) -> Order:
    tracked.qty = tracked.qty or order.qty
    tracked.journal_id = order.id  # first: what happens from here on reaches the journal by itself
    report = tracked.report()
    return journal.update(order.id, report) if changes_of(order, report) else order


def _report_unknown(journal: Journal, order: Order, count: int) -> Order:
    if order.status == Status.UNKNOWN:
        return order
    if count > 1:
        reason = f"{count} orders at the broker carry its reference and body"
    elif order.status == Status.SENT:
        reason = "it was sent, and the broker shows no such order; that doesn't prove that there is none"
    else:
        reason = f"it was {order.status} when last seen, and the broker doesn't show it any more"
    log.error("order %s: outcome unknown: %s", order.id, reason)
    return journal.update(order.id, OrderReport(Status.UNKNOWN, reason=reason))


def _adopt(journal: Journal, account: str, strange: list[TrackedOrder], done: Reconciled) -> None:
    """Find those that the journal knows by their number or name; enter the others under new ids."""
    numbers = [str(o.permanent_id) for o in strange]
    references = {o.reference for o in strange if o.reference}
    known = journal.among(account, permanent_ids=numbers, names=references)
    by_number = {o.permanent_id: o for o in known if o.permanent_id}
    # Orders of ours that ended before TWS gave them their number: refused ones, say.
    unnumbered = {o.client_order_id: o for o in known if o.permanent_id is None}
    new = []
    for tracked in strange:
        named = unnumbered.get(tracked.reference)
        same = named is not None and (named.symbol, named.side) == (tracked.symbol, tracked.side)
        order = by_number.get(str(tracked.permanent_id)) or (named if same else None)
        if order is None:
            new.append((tracked, tracked.report()))
        else:
            done.orders[order.id] = _take_over(journal, order, tracked)
            if order is named:
                del unnumbered[tracked.reference]
    entered = journal.adopt_all(account, [(_request(tracked), report) for tracked, report in new])
    for (tracked, report), order in zip(new, entered, strict=True):
        done.orders[order.id] = order
        done.adopted.append((tracked, order, report))


def _request(tracked: TrackedOrder) -> OrderRequest:
    return OrderRequest(
        symbol=tracked.symbol[:32],
        side=tracked.side[:4],
        qty=tracked.qty,
        order_type=tracked.order_type[:16],
        limit_price=tracked.limit_price,
        time_in_force=tracked.time_in_force[:8],
        client_order_id=f"tws-{tracked.permanent_id}",
        placed_by=FOREIGN,
        stop_price=tracked.stop_price,
        trail_amount=tracked.trail_amount,
        trail_percent=tracked.trail_percent,
    )
