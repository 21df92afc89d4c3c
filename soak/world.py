"""One broker in one venue: operations, crashes and faults in any order, and the reckoning at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from broker.base import BaseBroker
from broker.errors import (
    BrokerError,
    InvalidRequest,
    OrderOutcomeUnknown,
    OrderRejected,
)
from broker.journal import Journal
from broker.models import Order, OrderRequest, Status
from broker.validation import STOP_LOSS
from soak import judge
from soak.brokers import BUILD
from soak.faults import FAULTS
from soak.judge import Tally
from soak.process import Hung, Killed, Process
from soak.venue import PRICE, Venue

SYMBOLS = ("AAPL", "MSFT")
#: seconds from the last fault to agreement of book and journal; the brokers' longest pause is 15 s
RECOVERY = 25.0
#: seconds, some of the exchange's steps, in which nothing may change any more
STILL = 0.3
#: seconds that news of a position may be under way
NEWS = 3.0
#: how far a bracket's legs are from its entry, as a part of the price
LEGS_AWAY = 0.02
_LOOK = 0.02

Ask = Callable[[BaseBroker], Order]


class World:
    """`tally` holds what came of it. What a call ends in is taken down, never raised."""

    def __init__(self, kind: str, venue: Venue, journal_file: Path) -> None:
        self.kind = kind
        self.venue: Venue = venue
        self.tally = Tally()
        self.claims: dict[str, str] = {}
        #: how each order was asked for, by its client order id
        self.asked: dict[str, Ask] = {}
        #: client order ids of brackets
        self.brackets: list[str] = []
        self._unknown: set[str] = set()
        self._faults: dict[str, None] = {}
        self._file = journal_file
        self._pause = threading.Event()
        self._began = time.time()
        self.process = Process(venue, BUILD[kind], journal_file)
        #: the judge's own view of the journal, which no crash takes away
        self.journal = Journal.in_file(str(journal_file))

    # Operations

    def place(self, request: OrderRequest) -> None:
        """Place a new order; one for an amount of money where the broker can."""
        if request.notional is None or self.process.broker.capabilities.notional:
            self._ask(request.client_order_id, lambda broker: broker.place_order(request))

    def place_bracket(self, entry: OrderRequest) -> None:
        """Place an order with two legs that small moves of the price reach."""
        price, away = entry.limit_price or PRICE, LEGS_AWAY if entry.side == "buy" else -LEGS_AWAY
        asked = replace(
            entry,
            time_in_force="gtc",
            take_profit_price=round(price * (1 + away), 2),
            stop_loss_price=round(price * (1 - away), 2),
        )
        self.brackets.append(entry.client_order_id)
        self.place(asked)

    def leg(self, reference: str, which: str, price: float | None) -> None:
        """Give a bracket's leg another price, or cancel it."""
        order = self._known(reference + which)
        if order is None:
            return
        broker = self.process.broker
        if price is None:
            self._try(lambda: broker.cancel_order(order.id))
        elif which == STOP_LOSS:
            self._try(lambda: broker.replace_order(order.id, stop_price=price))
        else:
            self._try(lambda: broker.replace_order(order.id, limit_price=price))

    def close_position(self, reference: str, symbol: str) -> None:
        """Sell what is held, or buy back what is short. Whatever that is by then, it is one order."""
        held = self._held_for_long()
        refusal = self._ask(
            reference, lambda broker: broker.close_position(symbol, client_order_id=reference)
        )
        if isinstance(refusal, InvalidRequest) and symbol in held and symbol in self._held_for_long():
            self.tally.violated("false_empties", f"close_position({symbol}) said {refusal}, held: {held}")

    def repeat(self, reference: str) -> None:
        """Ask for an earlier order again, as a caller does that never got an answer."""
        self._ask(reference, self.asked[reference])

    def _ask(self, reference: str, ask: Ask) -> BrokerError | None:
        first = reference not in self.asked
        self.tally.orders += first
        self.asked[reference] = ask
        claim, failure = self._placing(lambda: ask(self.process.broker), reference)
        # A repeated call that never got through says nothing about what the first one sent.
        if first or claim != "unsent":
            self.claims[reference] = claim
        return failure

    def _placing(self, work: Callable[[], Order], reference: str) -> tuple[str, BrokerError | None]:
        try:
            return self.process.call(work).status, None
        except OrderRejected as refusal:
            return Status.REJECTED, refusal
        except OrderOutcomeUnknown as silence:
            self._unknown.add(reference)
            return Status.UNKNOWN, silence
        except Killed:
            self.restart()
            return "killed", None
        except Hung as hung:
            self.tally.violated("hung", str(hung))
            self.restart()
            return "killed", None
        except BrokerError as failure:
            return "unsent", failure  # what every other error of place_order promises

    def cancel(self, reference: str) -> None:
        """Cancel an order by our id, as a caller who kept only the client order id."""
        order = self._known(reference)
        if order is not None:
            self._try(lambda: self.process.broker.cancel_order(order.id))

    def replace(self, reference: str, limit_price: float, qty: float | None = None) -> None:
        """Give a working order another price, and another quantity if `qty`, where the broker can."""
        order = self._known(reference)
        if order is not None and self.process.broker.capabilities.replace:
            change = self.process.broker.replace_order
            self._try(lambda: change(order.id, limit_price=limit_price, qty=qty))

    def cancel_all(self) -> None:
        """Cancel everything."""
        self._try(lambda: self.process.broker.cancel_all_orders())

    def read(self) -> None:
        """Read everything. An empty answer while the book holds something is a lie."""
        held = self._held_for_long()
        positions = self._try(self.process.broker.get_positions)
        if positions == [] and held and self._held_for_long():
            self.tally.violated("false_empties", f"get_positions() was [] while the account holds {held}")
        position = self._try(lambda: self.process.broker.get_position(SYMBOLS[0]), failed=False)
        if position is None and SYMBOLS[0] in held and SYMBOLS[0] in self._held_for_long():
            self.tally.violated("false_empties", f"get_position({SYMBOLS[0]}) was None, held: {held}")
        self._try(self.process.broker.get_account)
        history = self._try(self.process.broker.get_orders_history)
        if history == [] and self.journal.recent(self.venue.account, 1):
            self.tally.violated("false_empties", "get_orders_history() was [] though orders were placed")
        for reference in list(self.asked)[-2:]:
            order = self._known(reference)
            if order is not None:
                self._try(partial(self.process.broker.get_order, order.id))

    def move_price(self, symbol: str, price: float) -> None:
        """Fix a price; resting orders that it crosses trade."""
        self._try(lambda: self.venue.set_price(symbol, price))  # an in-process book trades on this call

    def wait(self, seconds: float) -> None:
        """Let things happen."""
        self._pause.wait(seconds)

    # Crashes and faults

    def kill_after(self, commits: int) -> None:
        """Let the process die within one of its next calls, or by `restart` if it makes none."""
        self.process.kill_after(commits)

    def restart(self) -> None:
        """Kill the process if it lives, and start the next over the same journal."""
        self.tally.crashes += 1
        self.process.kill()
        self._start()

    def begin(self, name: str) -> None:
        """Begin a fault."""
        self.tally.faults += 1
        self._faults[name] = None
        FAULTS[name].begin(self)

    def heal(self) -> None:
        """End all faults."""
        # A hanging gateway is told to go on over its link, so that must be up by then.
        for name in sorted(self._faults, key=lambda name: name == "gateway hangs"):
            FAULTS[name].end(self)
        self._faults.clear()

    # The reckoning

    def settle(self) -> Tally:
        """End all faults, let the broker recover, and compare it with the book."""
        began = time.monotonic()
        self.heal()
        if self.process.dead.is_set():
            self._start()
        self.process.kill_after(10**9)
        self.until(self._answers, "the broker answers again")
        self.tally.longest_recovery = time.monotonic() - began
        # Orders that the exchange held back trade at its next steps, so agreement must last.
        self._pause.wait(STILL)
        self.until(lambda: self._agrees() and not self._pause.wait(STILL) and self._agrees(), "", False)
        tally = self.tally
        tally.fills = len(self.venue.executions())
        journal = self.journal.recent(self.venue.account, 10_000)
        rows, complete = self.venue.orders(), self.venue.complete
        judge.judge_orders(tally, rows, journal, self.claims, complete=complete)
        judge.judge_fills(tally, self.venue.executions(), self._told_fills(), complete=complete)
        told = {p.symbol: p.qty for p in self._try(self.process.broker.get_positions, failed=None) or []}
        judge.judge_positions(tally, self.venue.positions(), told)
        tally.unknown = len(self._unknown)
        tally.unknown_in_book = len(self._unknown & judge.by_reference(rows).keys())
        by_reference = {order.client_order_id: order for order in journal}
        tally.unknown_settled = sum(by_reference[r].status != Status.UNKNOWN for r in self._unknown)
        return tally

    def close(self) -> None:
        """Give everything back."""
        self.process.stop()

    def until(self, check: Callable[[], Any], why: str, give_up: bool = True) -> None:
        """Wait for a true answer; what never comes is a hang, unless its absence is judged elsewhere."""
        deadline = time.monotonic() + RECOVERY
        while not check():
            if time.monotonic() > deadline:
                if give_up:
                    shown = self._try(self.process.broker.health)
                    self.tally.violated("hung", f"never within {RECOVERY:g} s: {why}; health: {shown}")
                return
            self._pause.wait(_LOOK)

    def _answers(self) -> bool:
        return self._try(self.process.broker.get_positions, failed=None) is not None

    def _agrees(self) -> bool:
        """Whether the broker tells of every order what the book says; asks for those that differ."""
        known = {o.client_order_id: o for o in self.journal.recent(self.venue.account, 10_000)}
        # What was sent by a process that died is looked up by the next one's watcher, in its own time.
        fine = all(order.status != Status.SENT for order in known.values())
        for reference, same in judge.by_reference(self.venue.orders()).items():
            order = known.get(reference)
            if order is not None and not judge.agrees(same[-1], order):
                fine = False
                self._try(partial(self.process.broker.get_order, order.id))
        told = self._try(self.process.broker.get_positions, failed=None)
        held = judge.shares(self.venue.positions())
        return fine and told is not None and judge.shares({p.symbol: p.qty for p in told}) == held

    def _told_fills(self) -> dict[str, float] | None:
        fills = self._try(lambda: self.process.broker.get_fills(limit=10_000))
        if fills is None:
            return None
        told: dict[str, float] = {}
        for fill in fills:
            told[fill.client_order_id] = told.get(fill.client_order_id, 0.0) + fill.qty
        return told

    def _held_for_long(self) -> dict[str, float]:
        """What the account holds, if the first share of it came long enough ago for the news to be here."""
        executions = self.venue.executions()
        if not executions or time.time() - max(row["time"] for row in executions) < NEWS:
            return {}
        return self.venue.positions()

    def _known(self, reference: str) -> Order | None:
        return self.journal.find(self.venue.account, reference)

    def _start(self) -> None:
        self.process = Process(self.venue, BUILD[self.kind], self._file)
        for name in self._faults:
            if name == "line down":
                FAULTS[name].begin(self)  # the next process's line is down as well

    def _try(self, work: Callable[[], Any], failed: Any = None) -> Any:
        """The answer, or `failed` for any of the errors that a broker may raise."""
        try:
            return self.process.call(work)
        except Killed:
            self.restart()
        except Hung as hung:
            self.tally.violated("hung", str(hung))
            self.restart()
        except BrokerError:
            pass
        return failed


def request(
    reference: str, *, side: str, qty: float, near: bool | None, symbol: str, tif: str = "gtc"
) -> OrderRequest:
    """A market order (`near` None), or a limit order that the price may cross (True) or never does."""
    if near is None:
        return OrderRequest(symbol, side, qty, "market", client_order_id=reference, time_in_force="day")
    away = 0.01 if near else 0.3
    limit = round(PRICE * (1 - away if side == "buy" else 1 + away), 2)
    return OrderRequest(
        symbol, side, qty, "limit", limit_price=limit, client_order_id=reference, time_in_force=tif
    )


def trailing(
    reference: str,
    *,
    side: str,
    qty: float,
    symbol: str,
    trail_amount: float | None = None,
    trail_percent: float | None = None,
) -> OrderRequest:
    """A stop that follows the price."""
    return OrderRequest(
        symbol,
        side,
        qty,
        "trailing_stop",
        trail_amount=trail_amount,
        trail_percent=trail_percent,
        client_order_id=reference,
        time_in_force="gtc",
    )


def by_money(reference: str, *, dollars: float, symbol: str) -> OrderRequest:
    """A purchase for an amount of money, at the market."""
    return OrderRequest(symbol, "buy", 0.0, "market", notional=dollars, client_order_id=reference)
