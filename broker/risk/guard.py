"""The guard: everything that has to agree before an order leaves, in one object given to a broker.

    guard = Guard(journal, declared, gateway, limits)
    broker = IBKRBroker(journal, ..., guard=guard)
    guard.attach(broker)

In this order: kill switch, paper or live, live lock, symbols, size, price, position, day's loss,
rate. Placement asks the guard right before an order is entered in the journal, and the limits are
decided in that very transaction. A refusal is a typed error, and nothing is sent.

**Cancels** never pass here. An order that can only bring its position nearer to zero, whatever of
the working orders fills first, is exempt from the symbols, the size, the position and the day's
loss: those limit what is at risk, and it takes risk away. It stays under the kill switch and
paper/live (those stop everything), the live lock, the price collar where a price is known (getting
out at a mistyped price loses money too), and a rate of its own of the same size, so that neither a
run-away loop nor a morning of openings uses up the way out.

What a limit needs and nobody can tell (no quote, no last equity) refuses; a broker that can't be
asked raises `NotConnected` as always.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from broker.base import BaseBroker
from broker.errors import (
    BrokerError,
    ConfigurationError,
    Halted,
    LimitExceeded,
    LiveLocked,
    MarketDataUnavailable,
    PaperLiveMismatch,
    RateLimited,
    UnsupportedOperation,
)
from broker.journal import Admit, Journal
from broker.models import AccountInfo, OrderRequest, Quote
from broker.risk import exposure
from broker.risk.exposure import Holding
from broker.risk.limits import Limits
from broker.risk.live import VERIFICATION_DAYS, Gateway, require_verified
from broker.risk.modes import Declared, agreed_mode
from broker.risk.store import Counts, Mark, RiskStore, Shares
from broker.risk.switch import KillSwitch

log = logging.getLogger(__name__)

T = TypeVar("T")

#: seconds after a fill in which a broker's position may not hold it yet
POSITION_LAG = 1.0
_ATTEMPTS = 3

#: told of every refusal: the error, the order, the account
Refused = Callable[[BrokerError, OrderRequest, str], None]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Known:
    """What was read of the broker for one decision."""

    request: OrderRequest
    mark: Mark
    position: float
    price: float | None
    quoted: float | None
    account: AccountInfo | None


class Guard:
    """Refuses orders by raising; see the module. Safe to use from any thread."""

    def __init__(
        self,
        journal: Journal,
        declared: Declared,
        gateway: Gateway,
        limits: Limits,
        *,
        verification_days: int = VERIFICATION_DAYS,
        position_lag: float = POSITION_LAG,
        refused: Refused | None = None,
        quote: Callable[[str], Quote] | None = None,
        clock: Callable[[], datetime] = _now,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """`quote`: another source than the broker's own; `refused`: told of refusals, and may not raise."""
        self.limits = limits
        self.switch = KillSwitch(journal.engine, clock=clock)
        self.gateway = gateway
        self._declared = declared
        self._store = RiskStore(journal.engine, clock)
        self._days = verification_days
        self._lag = position_lag
        self._refused = refused
        self._quote_source = quote
        self._clock = clock
        self._wait = wait or threading.Event().wait
        self._broker: BaseBroker | None = None

    def attach(self, broker: BaseBroker) -> None:
        """The broker that is asked for positions, account and quotes."""
        self._broker = broker

    def __call__(self, request: OrderRequest, account_id: str) -> None:
        """Judge the change of an order: return if it may leave, and count it as it will be.

        Raises `Halted`, `PaperLiveMismatch`, `LiveLocked`, `LimitExceeded`, `JournalUnavailable`
        (switch or counts can't be read), `NotConnected` (the broker can't be asked).
        """
        self.admitting(request, account_id, self._store.alone)

    def admitting(self, request: OrderRequest, account_id: str, enter: Callable[[Admit], T]) -> T:
        """What `enter` returns if the order may leave, which is counted in the transaction that enters it.

        Raises what a call raises, and what `enter` raises.
        """
        try:
            return self._check(request, account_id, enter)
        except (Halted, PaperLiveMismatch, LiveLocked, LimitExceeded) as refusal:
            log.warning("order %s refused: %s", request.client_order_id, refusal.message)
            self._tell(refusal, request, account_id)
            raise

    def _check_mode(self, account_id: str) -> None:
        if agreed_mode(self._declared, account_id) == "live":
            require_verified(self._store, account_id, self.gateway, self._clock(), self._days)

    def _check(self, request: OrderRequest, account_id: str, enter: Callable[[Admit], T]) -> T:
        for attempt in itertools.count(1):
            known = self._read(request, account_id)
            recently = Shares()

            def decide(pending: Shares, recent: Shares, counts: Counts, known: _Known = known) -> bool:
                nonlocal recently
                recently = recent
                return self._decide(known, pending, recent, counts)

            qty = exposure.quantity(request, known.price) or 0.0
            admit = self._store.admission(account_id, request, qty, known.mark, self._lag, decide)
            try:
                return enter(admit)
            except LimitExceeded:
                # Fills of this moment count twice until the position surely holds them: look again then.
                if recently == Shares() or attempt == _ATTEMPTS:
                    raise
                self._wait(self._lag)
        raise AssertionError("the last attempt returns or raises")

    def _read(self, request: OrderRequest, account_id: str) -> _Known:
        broker = self._attached()
        mark = self._store.mark(account_id, request.symbol)  # the kill switch is asked with it
        self._check_mode(account_id)
        position = broker.get_position(request.symbol, account=account_id)
        held = 0.0 if position is None else position.qty
        quote = self._quote(request.symbol) if self.limits.need_quote else None
        quoted = exposure.usable_price(request, quote, self.limits)
        # Asked before the decision: that holds a lock, which no broker's answer may prolong.
        account = broker.get_account(account=account_id) if self.limits.need_equity else None
        return _Known(request, mark, held, exposure.order_price(request, quoted), quoted, account)

    def _decide(self, known: _Known, pending: Shares, recent: Shares, counts: Counts) -> bool:
        request, limits = known.request, self.limits
        holding = Holding(known.position, pending.buy, pending.sell, recent.buy, recent.sell)
        qty = exposure.quantity(request, known.price)
        reduces = not exposure.is_bracket(request) and qty is not None and holding.reduces(request.side, qty)
        if not reduces:
            exposure.check_symbols(request, limits)
            exposure.check_size(request, known.price, limits)
            exposure.check_position(request, known.price, holding, limits)
            if known.account is not None:
                exposure.check_day_loss(known.account, limits)
        exposure.check_collar(request, known.quoted, limits, reduces)
        made = counts.reducing if reduces else counts.opening
        if limits.orders_per_minute is not None and made + 1 > limits.orders_per_minute:
            raise LimitExceeded("orders_per_minute", made + 1, limits.orders_per_minute)
        return reduces

    def _quote(self, symbol: str) -> Quote | None:
        """The quote, or None: there is none, and what needs one refuses."""
        ask = self._quote_source or self._attached().get_quote
        try:
            return ask(symbol)
        except (MarketDataUnavailable, UnsupportedOperation, RateLimited) as missing:
            log.info("no quote of %s for the limits: %s", symbol, missing.message)
            return None

    def _attached(self) -> BaseBroker:
        if self._broker is None:
            raise ConfigurationError("the guard has no broker to ask: call attach(broker) first")
        return self._broker

    def _tell(self, refusal: BrokerError, request: OrderRequest, account_id: str) -> None:
        if self._refused is not None:
            try:
                self._refused(refusal, request, account_id)
            except Exception:
                log.exception("a refusal couldn't be told on")
