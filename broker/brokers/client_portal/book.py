"""Orders and fills on their way in: from the gateway to the journal, and to whoever listens.

An empty list is never "no order": `/iserver/account/orders` is empty the first time, after `force`,
after hours. An order is looked up by its status, among the orders, and among the trades; one that is
found nowhere is unknown.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.brokers.client_portal.account import symbol_of
from broker.brokers.client_portal.answers import (
    Json,
    Taken,
    number,
    report_of_row,
    report_of_status,
)
from broker.brokers.client_portal.pacing import Limits, SharedRead
from broker.brokers.client_portal.session import Refused, Session
from broker.brokers.client_portal.told import Told
from broker.errors import BrokerError, DuplicateClientOrderId
from broker.journal import Journal
from broker.models import (
    FINAL_STATUSES,
    EventKind,
    Fill,
    Order,
    OrderEvent,
    OrderReport,
    OrderRequest,
    Status,
)
from broker.stream import gap

log = logging.getLogger(__name__)

#: IBKR's longest look back at trades
TRADE_DAYS = "7"
#: seconds to wait for the websocket to tell of an order before the lists are asked
NEWS_WAIT = 1.0
#: how young a read status may be to be read again, in seconds
FRESH = 0.25
#: how long another process's conversation about an order may take
CONVERSATION = timedelta(seconds=60)
_ORDER_TYPES = {
    "MARKET": "market",
    "LIMIT": "limit",
    "STOP": "stop",
    "STOP_LIMIT": "stop_limit",
    "TRAIL": "trailing_stop",
    "TRAILING_STOP": "trailing_stop",
}


class OrderBook:
    """The orders of one gateway's accounts."""

    def __init__(self, session: Session, journal: Journal, told: Told, limits: Limits) -> None:
        self._session, self._journal, self._told = session, journal, told
        self._changed = threading.Condition()
        self._taking = threading.Lock()
        self._read_at: dict[str, float] = {}
        self.orders = SharedRead(self._read_orders, limits.lists)
        self.trades = SharedRead(self._read_trades, limits.lists)
        self._lists = limits.lists
        #: orders whose conversation isn't over: only the call that has it knows how they stand
        self.sending: set[str] = set()

    # Reading

    def _read_orders(self) -> tuple[bool, list[Json]]:
        answer = self._session.read(lambda w: w.live_orders(), spacing=self._lists)
        rows = [row for row in (answer or {}).get("orders") or [] if row.get("orderId")]
        for row in rows:
            self.take_order(row)
        return bool((answer or {}).get("snapshot")) or bool(rows), rows

    def whole_orders(self) -> list[Json]:
        """The session's orders. The first answer of a session is empty and says that it isn't whole."""
        whole, rows = self.orders.get()
        return rows if whole else self.orders.get()[1]

    def _read_trades(self) -> list[Json]:
        rows = self._session.read(lambda w: w.trades(days=TRADE_DAYS), spacing=self._lists) or []
        for row in reversed(rows):
            self.take_trade(row)
        return list(rows)

    def status_report(self, order_id: str) -> OrderReport:
        """One order as IBKR shows it now. Raises `Refused` (it doesn't show it), `NotConnected`."""
        return report_of_status(self.status(order_id))

    def status(self, order_id: str) -> Json:
        """An answer of /iserver/account/order/status. An order that isn't shown is answered with 503, too."""
        shown = self._session.read(lambda w: w.order_status(order_id), absent=503)
        if not isinstance(shown, dict) or not shown.get("order_status"):
            raise Refused(200, str(shown)[:200])
        return shown

    def refresh(self, order: Order) -> Order:
        """The order as IBKR shows it now, taken down; as the journal has it where IBKR doesn't show it."""
        if not order.permanent_id:
            return order
        now = time.monotonic()
        if now - self._read_at.get(order.id, float("-inf")) < FRESH:
            return self._journal.get(order.account_id, order.id)
        self._read_at[order.id] = now
        try:
            shown = self.status(order.permanent_id)
        except Refused as refusal:
            log.info("IBKR doesn't show order %s: %s", order.id, refusal.message)
            return self._journal.get(order.account_id, order.id)
        return self.note(order, self._with_change(order, shown))

    def _with_change(self, order: Order, shown: Json) -> OrderReport:
        """The report, with what a replacement changed once IBKR shows it."""
        report = report_of_status(shown)
        if order.parent_id is not None:  # a leg loses what the other one has closed
            report = replace(report, qty=number(shown.get("total_size")))
        change = self._journal.change_under_way(order.id)
        if not change:
            return report
        told = {
            "qty": number(shown.get("total_size")),
            "limit_price": number(shown.get("limit_price")),
            "stop_price": number(shown.get("stop_price")),
            "time_in_force": str(shown.get("tif") or "").lower(),
        }
        if any(told[name] != value for name, value in change.items()):
            return report
        return replace(report, **change)

    # Finding

    def take_bracket(self, taken: Taken, order: Order, legs: Sequence[Order]) -> Taken:
        """Which of the orders that IBKR took is which: the legs are taken down, the entry is returned."""
        entry = taken.order_id
        for number_ in taken.order_ids:
            try:
                shown = self.status(number_)
            except BrokerError as failure:
                log.warning("order at IBKR %s: its status can't be read: %s", number_, failure.message)
                continue
            leg = next((leg for leg in legs if _is_leg(shown, leg)), None)
            if leg is not None:
                self.note(leg, report_of_status(shown))
            elif _side(shown) == order.side:
                entry = number_
        return replace(taken, order_id=entry)

    def _legs_like(self, account: str, row: Json) -> list[Order]:
        """Legs of ours whose number isn't known, and that a row may be about."""
        parent = str(row.get("parentId") or "")
        found = []
        for leg in self._journal.unsettled(account):
            if leg.parent_id is None or leg.permanent_id or not _is_leg(row, leg):
                continue
            entry = self._journal.get(account, leg.parent_id)
            # Without its parent's number a row may be anybody's; the call that sends the bracket
            # will tell, and nobody else takes it down before.
            being_sent = self._being_sent(entry) or self._being_sent(leg)
            if being_sent or (parent and entry.permanent_id in (None, parent)):
                found.append(leg)
        return found

    def look_for(self, order: Order) -> OrderReport | None:
        """An order that was sent and not answered, by the id that we gave it. None proves nothing."""
        known = self._await_news(order)
        if known is None:
            found = [row for row in self.whole_orders() if _is(row, order)]
            if len(found) > 1:
                return None
            known = str(found[0]["orderId"]) if found else None
        if known is None:
            known = next((str(row["order_id"]) for row in self.trades.get() if _is(row, order)), None)
        return None if known is None else self.status_report(known)

    def _await_news(self, order: Order) -> str | None:
        """The broker's id, if the websocket has told it, or tells it within a moment."""
        deadline = time.monotonic() + NEWS_WAIT
        with self._changed:
            while True:
                known = self._journal.get(order.account_id, order.id).permanent_id
                wait = deadline - time.monotonic()
                if known or wait <= 0:
                    return known
                self._changed.wait(wait)

    def wait_until_final(self, order: Order, seconds: float) -> Order:
        """The order once it is final, or as it is when the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            order = self._journal.get(order.account_id, order.id)
            if order.status in FINAL_STATUSES or time.monotonic() >= deadline:
                return order
            order = self.refresh(order)
            if order.status in FINAL_STATUSES:
                return order
            with self._changed:
                self._changed.wait(min(0.2, max(0.0, deadline - time.monotonic())))

    def reconcile(self) -> None:
        """Bring the journal in line with IBKR after a connection. Nothing is ever sent from here."""
        self._told.look(self._session.accounts)
        self._read_open()
        self.trades.get()
        for account in self._session.accounts:
            self._explain_positions(account)

    def _explain_positions(self, account: str) -> None:
        """Report what the fills don't explain, once."""
        held = self._held(account)
        if self._journal.fills.compare(account, held, accept=False):
            self.trades.get()  # a fill may have come between the two questions
            held = self._held(account)
        for change in self._journal.fills.compare(account, held):
            message = f"{change.symbol}: {change.qty_now:g} held, {change.qty_expected:g} explained by fills"
            log.warning("unexplained position: %s", message)
            event = OrderEvent(EventKind.UNEXPLAINED_POSITION, _now(), position=change, message=message)
            self._told.publish(event)

    def _held(self, account: str) -> dict[str, float]:
        rows = self._session.portfolio(lambda w: w.get(f"portfolio2/{account}/positions"))
        return {symbol_of(row): number(row.get("position")) or 0.0 for row in rows or []}

    def poll(self) -> None:
        """Read what may have changed while nothing tells of it by itself."""
        self._read_open()
        if self._told.listened_to:
            self.trades.get()
            self._told.look(self._session.accounts)

    def _read_open(self) -> None:
        """Look up what the journal holds open: in the list, and one by one what the list doesn't show."""
        account_orders = [self._journal.unsettled(account) for account in self._session.accounts]
        waiting = [order for orders in account_orders for order in orders if not self._being_sent(order)]
        if not waiting:
            return
        listed = {str(row["orderId"]) for row in self.whole_orders()}
        if any(not order.permanent_id for order in waiting):
            self.trades.get()
        for order in waiting:
            now = self._journal.get(order.account_id, order.id)
            if now.permanent_id and now.permanent_id not in listed:
                self.refresh(now)
            elif not now.permanent_id:
                self._give_up(now)

    def _being_sent(self, order: Order) -> bool:
        """Whether a call, here or in another process, may still have the conversation about an order."""
        if order.id in self.sending:
            return True
        if not self._told.shared or order.status != Status.SENT or order.updated_at is None:
            return False
        return datetime.now(UTC) - datetime.fromisoformat(order.updated_at) < CONVERSATION

    def _give_up(self, order: Order) -> Order:
        """An order that IBKR shows nowhere is unknown: nothing was proved."""
        if order.status == Status.SENT and not self._being_sent(order):
            reason = "it was sent, and the broker shows no such order; that doesn't prove that there is none"
            log.error("order %s: outcome unknown: %s", order.id, reason)
            self._journal.mark_unknown(order.id, reason)
        return self._journal.get(order.account_id, order.id)

    def settle(self, order: Order) -> Order:
        """Find out how an order stands; `unknown` if IBKR shows it nowhere."""
        if order.permanent_id:
            return self.refresh(order)
        if order.parent_id is not None:  # IBKR has no id of ours for it: its row names its parent
            self.whole_orders()
            order = self._journal.get(order.account_id, order.id)
            return self.refresh(order) if order.permanent_id else self._give_up(order)
        report = self.look_for(order)
        if report is not None:
            return self.note(order, report)
        return self._give_up(self._journal.get(order.account_id, order.id))

    # Taking down

    def note(self, order: Order, report: OrderReport, *, may_reopen: bool = True) -> Order:
        """Take down what IBKR said about an order, and tell it."""
        with self._taking:
            before = self._journal.get(order.account_id, order.id)
            if not may_reopen and before.status in FINAL_STATUSES:
                return before
            after = self._journal.update(order.id, report)
        with self._changed:
            self._changed.notify_all()
        self._told.order(before, after)
        return after

    def take_order(self, row: Json) -> None:
        """A row of the list or the websocket. Orders that aren't ours are taken into the journal, too."""
        account = str(row.get("acct") or row.get("account") or "")
        if account not in self._session.accounts or not row.get("status"):
            return
        report = report_of_row(row)
        if report.status == Status.UNKNOWN:
            log.warning("IBKR shows an order as %a, which isn't known", row["status"])
            return
        order = self._known(account, str(row["orderId"]), row)
        if order is not None and report.status == Status.FILLED and report.filled_price is None:
            # A row may hold only what changed, and a fill without its price would be misread.
            self.note(order, self.status_report(str(row["orderId"])))
        elif order is not None:
            shown = number(row.get("totalSize")) if order.parent_id is not None else None
            self.note(order, replace(report, qty=shown))
        elif number(row.get("totalSize")) and not self._legs_like(account, row):
            # The call that placed it may have noted its number since the first look.
            order = self._journal.by_permanent_id(account, str(row["orderId"]))
            if order is None:
                self._adopt(account, row)
            else:
                self.note(order, report)

    def _known(self, account: str, order_id: str, row: Json) -> Order | None:
        order = self._journal.by_permanent_id(account, order_id)
        if order is not None:
            return order
        if row.get("parentId"):
            legs = self._legs_like(account, row)
            entry = self._journal.by_permanent_id(account, str(row["parentId"]))
            mine = [leg for leg in legs if entry is None or leg.parent_id == entry.id]
            return mine[0] if len(mine) == 1 else None
        reference = str(row.get("order_ref") or row.get("order_cOID") or "")
        order = self._journal.find(account, reference) if reference else None
        # The call that placed it may have noted its number since the first look.
        if order is None or order.permanent_id not in (None, order_id) or order.status == Status.RECORDED:
            return None
        return order if _is(row, order) else None

    def _adopt(self, account: str, row: Json) -> None:
        kind = _kind(str(row.get("origOrderType") or row.get("orderType") or ""))
        price, other = number(row.get("price")), number(row.get("auxPrice"))
        request = OrderRequest(
            symbol=_symbol(row)[:32],
            side=_side(row),
            qty=number(row.get("totalSize")) or 0.0,
            order_type=kind,
            limit_price=price if kind in ("limit", "stop_limit") else None,
            stop_price=price if kind == "stop" else other,
            time_in_force="gtc" if row.get("timeInForce") == "GTC" else "day",
            client_order_id=f"cp-{row['orderId']}",
            placed_by="not through this journal",
        )
        try:
            order = self._journal.adopt(account, request, report_of_row(row))
        except DuplicateClientOrderId:
            # It was changed at IBKR since it was adopted, under a number that the journal lost.
            log.warning("IBKR's order %s is in the journal with another body", row["orderId"])
            return
        self._told.order(None, order)

    def take_trade(self, row: Json) -> None:
        """A row of /iserver/account/trades or the websocket's `str`.

        {"execution_id": "0000e0d5.6576fd38.01.01", "order_id": 13, "order_ref": "x", "side": "B",
         "size": 5.0, "price": "192.26", "commission": "1.00",
         "trade_time_r": 1702317649000, "account": "DU1"}
        """
        account = str(row.get("accountCode") or row.get("account") or "")
        qty, price = number(row.get("size")), number(row.get("price"))
        if account not in self._session.accounts or not qty or price is None:
            return
        order = self._known(account, str(row.get("order_id") or ""), row)
        moment = datetime.fromtimestamp((number(row.get("trade_time_r")) or 0.0) / 1000, UTC)
        fill = Fill(
            id=str(row["execution_id"]),
            order_id=order.id if order else "",
            client_order_id=order.client_order_id if order else "",
            symbol=_symbol(row),
            side=_side(row),
            qty=qty,
            price=price,
            time=moment.isoformat(),
            commission=number(row.get("commission")),
            currency=str(row.get("currency") or "USD"),
            account_id=account,
        )
        # IBKR counts the corrections of an execution up in the id's last part.
        execution, _, revision = fill.id.rpartition(".")
        counted = int(revision) if revision.isdigit() else 0
        news = self._journal.fills.record(fill, execution=execution or fill.id, revision=counted)
        self._told.fill(fill, news)
        if news is not None and order is not None and not order.permanent_id and row.get("order_id"):
            self.note(order, OrderReport(order.status, permanent_id=str(row["order_id"])))

    def missed(self, message: str) -> None:
        """Tell listeners that events may be missing."""
        self._told.publish(gap(message))

    def from_stream(self, take: Any, rows: Any) -> None:
        """Rows of the websocket. One that can't be taken down costs the others nothing."""
        for row in rows if isinstance(rows, list) else []:
            try:
                take(row)
            except BrokerError:
                log.exception("news of an order can't be taken down; it is read again with the next look")
            except (KeyError, TypeError, ValueError) as odd:
                log.error("the websocket told what can't be read: %s", type(odd).__name__)


def _is(row: Json, order: Order) -> bool:
    """True if a row is about an order of ours: its reference isn't unique, so the body must agree."""
    if str(row.get("order_ref") or row.get("order_cOID") or "") != order.client_order_id:
        return False
    return (_symbol(row), _side(row)) == (order.symbol, order.side)


def _is_leg(row: Json, leg: Order) -> bool:
    """True if a row or a status may be about a leg, which has no reference: by its body."""
    kind = str(row.get("origOrderType") or row.get("order_type") or row.get("orderType") or "")
    at = leg.limit_price if leg.order_type == "limit" else leg.stop_price
    shown = number(row.get("price") or row.get("limit_price") or row.get("stop_price"))
    size = number(row.get("totalSize") or row.get("total_size")) or 0.0
    same = (_symbol(row), _side(row), _kind(kind)) == (leg.symbol, leg.side, leg.order_type)
    return same and shown == at and size <= leg.qty  # it loses what the other leg has closed


def _kind(word: str) -> str:
    word = word.upper().replace(" ", "_")
    return _ORDER_TYPES.get(word, word.lower()[:16])


def _symbol(row: Json) -> str:
    return str(row.get("ticker") or row.get("symbol") or row.get("contract_description_1") or "").replace(
        " ", "."
    )


def _side(row: Json) -> str:
    return "sell" if str(row.get("side") or "").upper().startswith("S") else "buy"


def _now() -> str:
    return datetime.now(UTC).isoformat()
