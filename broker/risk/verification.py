"""The verification that unlocks live trading: what an operator would try by hand, on that very gateway."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from broker.base import BaseBroker
from broker.errors import BrokerError, MarketDataUnavailable
from broker.journal import Journal
from broker.models import OrderRequest, Status
from broker.risk.live import Gateway, record_verification
from broker.risk.modes import Declared, agreed_mode

#: of the price: far enough below the market not to fill, near enough that no broker refuses it for that
BELOW_MARKET = 0.9


@dataclass(frozen=True)
class Check:
    """One check: what it found, or why it failed and what to do."""

    name: str
    passed: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Verification:
    """A gateway's checks, as they were entered in the journal. `mode`: paper, live, or empty (unclear)."""

    passed: bool
    account: str
    mode: str
    gateway: str
    checks: list[Check]


def verify(
    broker: BaseBroker, journal: Journal, gateway: Gateway, declared: Declared, by: str, symbol: str = "SPY"
) -> Verification:
    """Try the connected broker and enter the result, which decides whether live orders may leave.

    Through a paper account an order is placed below the market and cancelled. Through a live one nothing
    is sent: the order is previewed instead where the broker can. Raises `JournalUnavailable`, and what
    `get_account` raises: without an account there is nothing to enter a result for.
    """
    return _Trial(broker, declared, symbol.upper()).run(journal, gateway, by)


class _Trial:
    def __init__(self, broker: BaseBroker, declared: Declared, symbol: str) -> None:
        self._broker, self._declared, self._symbol = broker, declared, symbol
        self._account = broker.get_account().id
        self._mode = ""
        self._price = 0.0
        self._checks: list[Check] = []

    def run(self, journal: Journal, gateway: Gateway, by: str) -> Verification:
        self._check("link", self._link, "see health; is the gateway logged in?")
        self._check("mode", self._agreed, "make declared mode, port and login agree")
        self._check("positions", self._positions, "look at the gateway's log")
        self._check("clock", self._clock, "look at the gateway's log")
        self._check("quote", self._quote, "subscribe to market data, or allow delayed data")
        capabilities = self._broker.capabilities
        if self._mode == "paper":
            self._check("order", self._order, "is the API read-only, or trading halted?")
        elif capabilities.preview:
            self._check("preview", self._preview, "is the API read-only, or the account closed to trading?")
        results = {check.name: check.passed for check in self._checks}
        passed = record_verification(journal, self._account, gateway, by, results)
        address = f"{gateway.broker} at {gateway.address}"
        return Verification(passed, self._account, self._mode, address, self._checks)

    def _check(self, name: str, look: Callable[[], str], remedy: str) -> None:
        try:
            self._checks.append(Check(name, True, look()))
        except BrokerError as failure:
            self._checks.append(Check(name, False, failure.message, remedy))

    def _link(self) -> str:
        health = self._broker.health()
        if not health.ok:
            raise BrokerError(f"{health.state}: {health.reason}")
        return f"{health.state} since {health.since}"

    def _agreed(self) -> str:
        self._mode = agreed_mode(self._declared, self._account)
        return f"account {self._account} is {self._mode}"

    def _positions(self) -> str:
        return f"{len(self._broker.get_positions())} positions"

    def _clock(self) -> str:
        clock = self._broker.clock()
        return f"open until {clock.next_close}" if clock.is_open else f"closed until {clock.next_open}"

    def _quote(self) -> str:
        quote = self._broker.get_quote(self._symbol)
        price = quote.last or quote.ask or quote.bid or quote.close
        if not price:
            raise MarketDataUnavailable(f"{self._symbol} has no price")
        self._price = price
        return f"{self._symbol} {price:g}, {quote.kind}"

    def _request(self) -> OrderRequest:
        if not self._price:
            raise MarketDataUnavailable(f"no order can be tried without a price of {self._symbol}")
        limit = round(self._price * BELOW_MARKET, 2)
        own_id = f"verify-{uuid.uuid4().hex}"
        return OrderRequest(self._symbol, "buy", 1, "limit", limit_price=limit, client_order_id=own_id)

    def _preview(self) -> str:
        preview = self._broker.preview_order(self._request())
        if preview.equity_after is None and preview.initial_margin_after is None:
            raise BrokerError(f"the preview tells nothing: {'; '.join(preview.warnings) or 'no margin'}")
        return f"previewed: buy 1 {self._symbol} below the market; nothing was sent"

    def _order(self) -> str:
        order = self._broker.place_order(self._request())
        self._broker.cancel_order(order.id)
        ended = self._broker.get_order(order.id)
        if ended.status not in (Status.CANCELLED, Status.PENDING_CANCEL):
            raise BrokerError(f"order {order.id} was to be cancelled and is {ended.status}")
        return f"placed and cancelled: buy 1 {self._symbol} at {order.limit_price:g}"
