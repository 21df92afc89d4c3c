"""Moving averages on two symbols: what a strategy does so that no restart, halt or lost answer costs money.

    python examples/moving_averages.py                # says what it would do, and sends nothing
    python examples/moving_averages.py --trade        # sends orders to the broker of BROKER_TYPE

A symbol is held while its fast average is above its slow one. Run it once a trading day, from cron
say; running it again is harmless. It is an example of safe use, not of a strategy that earns.

- An order's client order id comes from the signal (`ma-AAPL-20261123`), not from the run: whatever
  was sent under it before is that day's order, found again after a crash, and no second one follows.
- The price is limited, and the order's value by `--most`; the broker's own limits (RISK_...) and its
  kill switch hold beside that.
- "Outcome unknown" ends the run. The next one looks the order up under its id.
- Not connected, market closed, no price: nothing was sent, the next run tries again.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from broker import BaseBroker, Order, OrderRequest, get_broker
from broker.errors import (
    BrokerError,
    Halted,
    LimitExceeded,
    LiveLocked,
    MarketDataUnavailable,
    NotConnected,
    OrderNotFound,
    OrderOutcomeUnknown,
    OrderRejected,
)
from broker.models import Status

SYMBOLS = ("AAPL", "MSFT")
FAST, SLOW = 10, 30
#: how far beyond the quote an order may fill: 0.2 per cent
SLIPPAGE = 0.002
#: a price older than this, in seconds, decides nothing
OLDEST_QUOTE = 120.0

#: closing prices of a symbol before a day, the newest last
History = Callable[[str, date], Sequence[float]]


@dataclass(frozen=True)
class Signal:
    """What to hold of a symbol on a day, in shares."""

    symbol: str
    day: date
    shares: int

    @property
    def client_order_id(self) -> str:
        """One for each symbol and day: whoever asks, whenever, means the same order."""
        return f"ma-{self.symbol}-{self.day:%Y%m%d}"


def signal(symbol: str, day: date, closes: Sequence[float], shares: int) -> Signal:
    """Hold `shares` while the fast average is above the slow one. Raises `ValueError`: too few closes."""
    if len(closes) < SLOW:
        raise ValueError(f"{symbol} has {len(closes)} closing prices, and {SLOW} are needed")
    fast, slow = sum(closes[-FAST:]) / FAST, sum(closes[-SLOW:]) / SLOW
    return Signal(symbol, day, shares if fast > slow else 0)


def run(
    broker: BaseBroker,
    history: History,
    day: date,
    *,
    shares: int = 5,
    most: float = 5_000.0,
    trade: bool = False,
    say: Callable[[str], None] = print,
) -> int:
    """One run; returns an exit code: 0 done, 3 come back later, 5 look at an order, 6 a person decides.

    `most`: largest value of one order, in the account's currency.
    """
    try:
        clock = broker.clock()
        if not clock.is_open:
            say(f"the market is closed; it opens at {clock.next_open}")
            return 3
        for symbol in SYMBOLS:
            follow(broker, signal(symbol, day, history(symbol, day), shares), most, trade, say)
    except NotConnected as away:
        say(f"not connected, nothing was sent: {away.reason}; {away.doing}")
        return 3
    except OrderOutcomeUnknown as unknown:
        # Another order on top of one that nobody knows about is how positions double.
        say(f"stop: nobody knows what became of {unknown.order.client_order_id}; run again to look it up")
        return 5
    except (Halted, LimitExceeded, LiveLocked) as refusal:
        say(f"stop: {refusal.message}")
        return 6
    return 0


def follow(
    broker: BaseBroker, wanted: Signal, most: float, trade: bool, say: Callable[[str], None]
) -> Order | None:
    """Bring one position to what the signal wants, with at most one order a day: that order, or None."""
    known = order_of_the_day(broker, wanted)
    if known is not None and known.status != Status.RECORDED:
        say(f"{wanted.symbol}: today's order is {known.status}, {known.filled_qty:g} of {known.qty:g} filled")
        if known.status == Status.UNKNOWN:
            raise OrderOutcomeUnknown("the look-up doesn't settle it yet", known)
        return known
    request = same_again(known) if known is not None else next_order(broker, wanted, most, say)
    if request is None:
        return None
    words = f"{request.side} {request.qty:g} {request.symbol} at {request.limit_price}"
    if not trade:
        say(f"would {words} ({request.client_order_id}); --trade sends it")
        return None
    try:
        order = broker.place_order(request)
    except OrderRejected as refusal:
        say(f"{words}: the broker said no: {refusal.reason}")
        return refusal.order
    say(f"{words}: {order.status}")
    return order


def order_of_the_day(broker: BaseBroker, wanted: Signal) -> Order | None:
    """What was sent for this signal before, by this process or one that died."""
    try:
        return broker.get_order_by_client_id(wanted.client_order_id)
    except OrderNotFound:
        return None


def same_again(recorded: Order) -> OrderRequest:
    """An order that is in the journal and provably never left: sending it is what its run had decided."""
    return OrderRequest(
        recorded.symbol,
        recorded.side,
        recorded.qty,
        recorded.order_type,
        limit_price=recorded.limit_price,
        time_in_force=recorded.time_in_force,
        client_order_id=recorded.client_order_id,
    )


def next_order(
    broker: BaseBroker, wanted: Signal, most: float, say: Callable[[str], None]
) -> OrderRequest | None:
    """The order that leads from what is held to what is wanted, or None: nothing to do, or no price."""
    position = broker.get_position(wanted.symbol)
    missing = wanted.shares - (position.qty if position is not None else 0.0)
    if not missing:
        say(f"{wanted.symbol}: {wanted.shares} wanted, {wanted.shares} held")
        return None
    side = "buy" if missing > 0 else "sell"
    try:
        quote = broker.get_quote(wanted.symbol)
    except MarketDataUnavailable as none:
        say(f"{wanted.symbol}: no price, no order: {none.message}")
        return None
    price = (quote.ask if side == "buy" else quote.bid) or quote.last
    if price is None or quote.age_seconds > OLDEST_QUOTE:
        say(f"{wanted.symbol}: the price is {quote.age_seconds:.0f} s old, no order")
        return None
    limit = round(price * (1 + SLIPPAGE if side == "buy" else 1 - SLIPPAGE), 2)
    if abs(missing) * limit > most:
        raise LimitExceeded("--most", round(abs(missing) * limit, 2), most)
    return OrderRequest(
        wanted.symbol,
        side,
        abs(missing),
        "limit",
        limit_price=limit,
        client_order_id=wanted.client_order_id,
        placed_by="moving_averages",
    )


def sample_history(symbol: str, day: date) -> Sequence[float]:
    """Made-up closes, the same ones for a symbol and day whoever asks: enough to see the strategy work."""
    closes, price = [], 200.0
    for back in range(SLOW, 0, -1):
        drawn = random.Random(f"{symbol} {day - timedelta(days=back)}")
        price *= math.exp(drawn.gauss(0.001, 0.02))
        closes.append(price)
    return closes


def yahoo_history(symbol: str, day: date) -> Sequence[float]:
    """Daily closes from Yahoo, which promises nothing about them."""
    import yfinance

    start = day - timedelta(days=3 * SLOW)
    frame = yfinance.Ticker(symbol.replace(".", "-")).history(start=start, end=day, timeout=10)
    return [float(close) for close in frame["Close"]]


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code of `run`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trade", action="store_true", help="send orders; without it only say them")
    parser.add_argument("--shares", type=int, default=5, help="to hold of each symbol")
    parser.add_argument("--most", type=float, default=5_000.0, help="largest value of one order")
    parser.add_argument("--history", choices=("sample", "yahoo"), default="sample")
    chosen = parser.parse_args(arguments)
    history = sample_history if chosen.history == "sample" else yahoo_history
    # The trading day is the exchange's: in Asia it is already tomorrow when New York closes.
    today = datetime.now(UTC).astimezone(ZoneInfo("America/New_York")).date()
    try:
        broker = get_broker()
    except BrokerError as failure:
        print(failure.message, file=sys.stderr)
        return 2
    try:
        return run(broker, history, today, shares=chosen.shares, most=chosen.most, trade=chosen.trade)
    except (BrokerError, ValueError) as failure:
        print(f"stop: {failure}", file=sys.stderr)
        return 1
    finally:
        broker.disconnect()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
