"""The broker package against the raw libraries, over the same paper gateway, in turns within one run.

Exchange and gateway run in a process of their own. Each figure of ours stands beside ib_insync's
(ib_async's in its environment) doing the same with nothing around it, so that a machine's moods hit
both.

The journal's commit is the transaction that enters an order before it is sent (`Journal.enter`: kill
switch, order). It is timed apart within the same calls, in memory, in an SQLite file and in PostgreSQL:
"without the journal's commit" is the rest of the call, everything else that the package does included.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.latency_plot import write_plot
from broker.brokers.ibkr import IBKRBroker, library
from broker.factory import BrokerSettings
from broker.journal import Journal
from broker.models import Order
from broker.risk.limits import PAPER
from broker.risk.wiring import guard_for
from soak.fleet.database import postgres, sqlalchemy_url

ROUNDS, CONNECTS, LATE_CONNECTS, BURST, POSITIONS = 200, 40, 5, 1000, 200
PLOT = Path(__file__).parents[1] / "docs" / "latencies.svg"
IDLE_PROGRAM = "import sys, benchmarks.broker as b; b.idle(int(sys.argv[1]))"
_ids = itertools.count(1)
_clients = itertools.count(100)


@contextlib.contextmanager
def gateway() -> Iterator[Any]:
    """A paper exchange and its TWS front end, each in a process of its own."""
    from tests.broker.paper_gateway import paper_gateway

    with paper_gateway() as paper:
        yield paper


class Raw:
    """The library alone, on a loop in a thread, as its own documentation uses it."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._serve, daemon=True).start()
        self.ib: Any = None
        self._port = port

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def run(self, work: Any) -> Any:
        """Run a coroutine on the library's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def connect(self) -> None:
        """Connect and synchronise."""
        self.ib = library.IB()
        await self.ib.connectAsync("127.0.0.1", self._port, clientId=next(_clients), timeout=10)

    async def place(self) -> float:
        """Seconds from placeOrder to the first status that comes from the gateway."""
        contract = library.Stock("AAPL", "SMART", "USD", conId=265598)
        order = library.Order(action="BUY", totalQuantity=1, orderType="LMT", lmtPrice=100.0, tif="GTC")
        began = time.perf_counter()
        trade = self.ib.placeOrder(contract, order)
        while trade.orderStatus.status == "PendingSubmit":
            await trade.statusEvent
        seconds = time.perf_counter() - began
        self.ib.cancelOrder(order)
        await trade.cancelledEvent
        return seconds

    async def asked_positions(self) -> None:
        """Positions as the gateway tells them when it is asked."""
        assert len(await self.ib.reqPositionsAsync()) >= POSITIONS

    async def kept_positions(self) -> float:
        """Read positions with their prices from what the library keeps; the seconds of the reading alone."""
        began = time.perf_counter()
        rows = [(row.contract.symbol, row.position, row.marketPrice) for row in self.ib.portfolio()]
        assert len(rows) >= POSITIONS
        return time.perf_counter() - began

    async def close(self) -> None:
        """Disconnect."""
        self.ib.disconnect()


class TimedJournal(Journal):
    """A journal that tells how long the latest commit before sending took, in seconds."""

    entering = 0.0

    def enter(self, *arguments: Any, **options: Any) -> tuple[Order, bool]:
        """See `Journal.enter`."""
        began = time.perf_counter()
        try:
            return super().enter(*arguments, **options)
        finally:
            self.entering = time.perf_counter() - began


def broker_on(port: int, journal: Journal, **options: Any) -> IBKRBroker:
    """A connected broker under a client id of its own."""
    made = IBKRBroker(journal, port=port, client_id=next(_clients), trading_mode="paper", **options)
    made.connect()
    return made


def line_of(seconds: list[float]) -> str:
    """A median in milliseconds."""
    return f"{statistics.median(seconds) * 1000:.2f} ms"


def timed(work: Callable[[], Any]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def placing(broker: IBKRBroker) -> float:
    """Seconds from place_limit_order to its return with the broker's first status."""
    began = time.perf_counter()
    order = broker.place_limit_order(
        "AAPL", 1, "buy", 100.0, client_order_id=f"bench-{next(_ids)}", time_in_force="gtc"
    )
    seconds = time.perf_counter() - began
    broker.cancel_order(order.id)
    return seconds


def line(name: str, ours: list[float], raw: list[float], wanted: float | None) -> str:
    """Medians side by side, and their ratio; that of the fastest tenths, which other work disturbs least."""
    one, other = statistics.median(ours), statistics.median(raw)
    goal = f"; wanted: at most {wanted}" if wanted is not None else ""
    raw_one = f"raw {library.NAME} {other * 1000:.2f} ms"
    undisturbed = fastest(ours) / fastest(raw)
    told = f"ratio {one / other:.2f} ({undisturbed:.2f} of the fastest tenths)"
    return f"{name}: {one * 1000:.2f} ms, {raw_one}, {told}{goal}"


def fastest(seconds: list[float]) -> float:
    """The time within which one call of ten was done."""
    return sorted(seconds)[len(seconds) // 10]


def _guarded(journal: Journal, port: int) -> IBKRBroker:
    """A broker under paper's default limits, but for the rate."""
    limits = dataclasses.replace(PAPER, orders_per_minute=None)
    settings = BrokerSettings("ibkr", gateway_port=port, trading_mode="paper", limits=limits)
    guard = guard_for(settings, journal)
    made = broker_on(port, journal, guard=guard)
    guard.attach(made)
    return made


def latencies(port: int, folder: Path) -> Iterator[str]:
    """Place to first status: raw, and ours over each journal; the plot."""
    raw = Raw(port)
    raw.run(raw.connect())
    with contextlib.ExitStack() as open_:
        journals = {
            "memory": TimedJournal.in_file(":memory:"),
            "an SQLite file": TimedJournal.in_file(str(folder / "bench.sqlite")),
            "PostgreSQL": open_.enter_context(journal_in_postgres()),
        }
        brokers = {name: broker_on(port, journal) for name, journal in journals.items()}
        calls: dict[str, Callable[[], float]] = {"raw": lambda: float(raw.run(raw.place()))}
        calls |= {name: functools.partial(placing, broker) for name, broker in brokers.items()}
        runs: dict[str, list[float]] = {name: [] for name in calls}
        commits: dict[str, list[float]] = {name: [] for name in brokers}
        for measured in range(-10, ROUNDS):  # the first ones only warm up
            # Nobody always comes after the same one, whose last messages may still be on their way.
            order = list(calls) if measured % 2 else list(reversed(calls))
            for name in order:
                seconds = calls[name]()
                if measured >= 0:
                    runs[name].append(seconds)
                    if name in journals:
                        commits[name].append(journals[name].entering)
        floor = runs["raw"]
        without = [all_ - commit for all_, commit in zip(runs["memory"], commits["memory"], strict=True)]
        yield line("place to first status without the journal's commit", without, floor, 1.3)
        for name in brokers:
            commit = statistics.median(commits[name]) * 1000
            yield f"  {line(f'with a journal in {name} (commit {commit:.2f} ms)', runs[name], floor, None)}"
        guarded = _guarded(journals["memory"], port)
        for name in ("first", "measured"):
            limited = [placing(guarded) for _ in range(10 if name == "first" else ROUNDS // 2)]
        yield f"  with a journal in memory and paper's limits: {statistics.median(limited) * 1000:.2f} ms"
        yield f"  the plan's sleep(1) idiom: {1000 + statistics.median(floor) * 1000:.0f} ms"
        guarded.disconnect()
        yield from connecting_late(port, journals["memory"])
        for broker in brokers.values():
            broker.disconnect()
        shown = {f"raw {library.NAME}": floor, "without the journal's commit": without}
        write_plot(PLOT, "Place to first status", shown | {f"journal in {n}": runs[n] for n in brokers})
        yield f"  the distribution is drawn in docs/{PLOT.name}"
    raw.run(raw.close())


@contextlib.contextmanager
def journal_in_postgres() -> Iterator[TimedJournal]:
    """A journal in a real PostgreSQL."""
    from sqlalchemy import create_engine

    from broker.tables import metadata

    with postgres() as server:
        engine = create_engine(sqlalchemy_url(server))
        try:
            metadata.create_all(engine)
            yield TimedJournal(engine)
        finally:
            engine.dispose()


def _connects(port: int, journal: Callable[[], Journal], times: int) -> tuple[list[float], list[float]]:
    """Seconds of our connecting and of the library's, in turns; the first of each only warms up."""
    ours, raws = [], []
    for _ in range(times + 1):
        raw = Raw(port)
        raws.append(timed(lambda raw=raw: raw.run(raw.connect())))
        raw.run(raw.close())
        broker = IBKRBroker(journal(), port=port, client_id=next(_clients), trading_mode="paper")
        ours.append(timed(broker.connect))
        broker.disconnect()
    return ours[1:], raws[1:]


def connecting(port: int) -> Iterator[str]:
    """Connect and synchronise: the same questions to the gateway, and ours compares journal and broker."""
    journal = Journal.in_file(":memory:")
    yield line("connect and synchronise", *_connects(port, lambda: journal, CONNECTS), 1.3)


def connecting_late(port: int, known: Journal) -> Iterator[str]:
    """The same after a day's orders, with a journal that knows a part of them, and with an empty one."""
    book = IBKRBroker(known, port=port, client_id=next(_clients), trading_mode="paper")
    book.connect()  # what the others placed is entered once
    count = len(book.get_orders_history(10_000))
    book.disconnect()
    name = f"connect and synchronise after {count} orders of the day"
    yield line(name, *_connects(port, lambda: known, LATE_CONNECTS), 1.3)
    ours, raws = _connects(port, lambda: Journal.in_file(":memory:"), LATE_CONNECTS)
    yield f"  {line('with an empty journal, which enters them all', ours, raws, None)}"


def positions(paper: Any, port: int) -> Iterator[str]:
    """Reading 200 positions."""
    for symbol in symbols()[:POSITIONS]:
        paper.admin("set_position", account=paper.account, symbol=symbol, quantity=10.0, average_cost=100.0)
    raw = Raw(port)
    raw.run(raw.connect())
    broker = broker_on(port, Journal.in_file(":memory:"))
    count = len(broker.get_positions())
    ours, asked, kept, bare = [], [], [], []
    for _ in range(ROUNDS):
        asked.append(timed(lambda: raw.run(raw.asked_positions())))
        kept.append(timed(lambda: bare.append(raw.run(raw.kept_positions()))))
        ours.append(timed(broker.get_positions))
    yield line(f"reading {count} positions from a thread, from what is kept", ours, kept, 1.5)
    yield f"  on the library's own loop, three fields and no thread to cross: {line_of(bare)}"
    yield f"  {line('against asking the gateway each time', ours, asked, None)}"
    broker.disconnect()
    raw.run(raw.close())


def symbols() -> list[str]:
    """Stocks in dollars, those that one contract alone goes by."""
    from collections import Counter
    from csv import DictReader
    from importlib import resources

    text = (resources.files("localcloud.exchange") / "instruments.csv").read_text("utf-8")
    rows = list(DictReader(text.splitlines()))
    times = Counter(row["symbol"] for row in rows)
    return [
        row["symbol"]
        for row in rows
        if row["currency"] == "USD" and times[row["symbol"]] == 1 and " " not in row["symbol"]
    ]


def burst(paper: Any, port: int) -> Iterator[str]:
    """1,000 orders at once: what goes over the wire in the busiest second, and how long a cancel takes."""
    spread = symbols()[:60]  # TWS takes 20 working orders per contract and side
    broker = broker_on(port, Journal.in_file(":memory:"))
    first = broker.place_limit_order("AAPL", 1, "buy", 90.0, time_in_force="gtc")
    known = len(paper.book())
    work = iter(range(BURST))
    lock = threading.Lock()
    failed: list[str] = []

    def caller() -> None:
        while True:
            with lock:
                number = next(work, None)
            if number is None:
                return
            try:
                broker.place_limit_order(spread[number % len(spread)], 1, "buy", 1.0, time_in_force="gtc")
            except Exception as failure:
                failed.append(str(failure))

    threads = [threading.Thread(target=caller) for _ in range(32)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(3)  # well into the burst
    behind = BURST - (len(paper.book()) - known)
    cancelling = timed(lambda: broker.cancel_order(first.id))
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    moments = sorted(row["created"] for row in paper.book()[known:])
    busiest = max(
        (sum(m <= n < m + 1 for n in moments[i : i + 200]) for i, m in enumerate(moments)), default=0
    )
    yield f"{BURST} orders from 32 threads: {seconds:.1f} s, {len(failed)} failed" + (
        f" ({failed[0][:80]})" if failed else ""
    )
    yield f"  orders in the busiest second: {busiest}; wanted: at most 50 messages"
    yield f"  a cancel while {behind} orders were waiting: {cancelling * 1000:.0f} ms"
    broker.disconnect()


def memory(port: int) -> Iterator[str]:
    """What a connected broker needs while it does nothing, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", IDLE_PROGRAM, str(port)], capture_output=True, text=True, check=True
    )
    before, after = map(float, done.stdout.split())
    yield f"memory of an idle connected broker: {after:.0f} MiB, of which imports {before:.0f} MiB"


def idle(port: int) -> None:
    """Print the process's memory in MiB: with everything imported, and with a connected broker."""
    process = psutil.Process()
    before = process.memory_info().rss / 2**20
    broker = broker_on(port, Journal.in_file(":memory:"))
    broker.get_account()
    print(before, process.memory_info().rss / 2**20)
    broker.disconnect()


def measure() -> Iterator[str]:
    """All figures, a line each, as they come."""
    yield f"{library.NAME} {library.VERSION}"
    # A gateway for each: the orders of the day, which every connection is told of, are part of its time.
    with gateway() as paper:
        yield from connecting(paper.port)
        yield from memory(paper.port)
    with gateway() as paper:
        yield from positions(paper, paper.port)
    with tempfile.TemporaryDirectory(prefix="ibkr-bench-") as folder, gateway() as paper:
        yield from latencies(paper.port, Path(folder))
    with gateway() as paper:
        yield from burst(paper, paper.port)
