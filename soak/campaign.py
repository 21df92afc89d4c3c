"""Many schedules, several at once, and what came of them together."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

from soak import schedule
from soak.judge import MUST_BE_ZERO

#: schedules wait more than they compute: this many at once for each processor
WORKERS_PER_PROCESSOR = 4
#: a worker is replaced after so many, which gives back what killed brokers left behind
SCHEDULES_PER_WORKER = 50
#: the fleet's name among the brokers
FLEET = "fleet"


class Verdict(Protocol):
    """What a schedule came to: numbers by the names that its report sums, and these."""

    longest_recovery: float
    violations: list[str]


@dataclass
class Report:
    """The sums of a campaign over one broker."""

    #: what is summed, and what of it must stay 0
    counted: ClassVar[tuple[str, ...]] = (
        "orders",
        "in_book",
        "fills",
        "crashes",
        "faults",
        "unknown",
        "unknown_in_book",
        "unknown_settled",
    )
    must_be_zero: ClassVar[tuple[str, ...]] = MUST_BE_ZERO

    broker: str
    seed: int
    schedules: int = 0
    seconds: float = 0.0
    longest_recovery: float = 0.0
    sums: dict[str, int] = field(default_factory=dict)
    #: by schedule number: what was violated, or how the schedule itself failed
    violations: dict[int, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing is counted yet."""
        self.sums = dict.fromkeys((*self.counted, *self.must_be_zero), 0)

    def add(self, number: int, tally: Verdict | str) -> None:
        """Take one schedule in; a text is how it failed."""
        self.schedules += 1
        if isinstance(tally, str):
            self.violations[number] = [f"the schedule failed: {tally}"]
            return
        for name in self.sums:
            self.sums[name] += getattr(tally, name)
        self.longest_recovery = max(self.longest_recovery, tally.longest_recovery)
        if tally.violations:
            self.violations[number] = tally.violations

    @property
    def clean(self) -> bool:
        """Whether nothing happened that must never happen."""
        return not self.violations

    def rows(self) -> list[tuple[str, str]]:
        """The lines of the table."""
        sums = self.sums
        return [
            ("schedules", f"{self.schedules} in {self.seconds:.0f} s, seed {self.seed}"),
            ("orders sent", f"{sums['orders']}, of which {sums['in_book']} reached the book"),
            ("fills", str(sums["fills"])),
            ("crashes, faults", f"{sums['crashes']}, {sums['faults']}"),
            ("duplicates", f"{sums['duplicates']}  (must be 0)"),
            ("lost fills", f"{sums['lost_fills']}  (must be 0)"),
            ("phantoms", f"{sums['phantoms']}  (must be 0)"),
            ("false rejections", f"{sums['false_rejections']}  (must be 0)"),
            ("false empties", f"{sums['false_empties']}  (must be 0)"),
            ("sent though said not", f"{sums['false_unsent']}  (must be 0)"),
            ("not in the journal", f"{sums['unjournalled']}  (must be 0)"),
            ("never settled, hung", f"{sums['unsettled']}, {sums['hung']}  (must be 0)"),
            ("unknown outcomes", f"{sums['unknown']}, of which {sums['unknown_settled']} settled"),
            ("of them in the book", str(sums["unknown_in_book"])),
            ("longest recovery", f"{self.longest_recovery:.1f} s"),
        ]

    def table(self) -> Iterator[str]:
        """For people."""
        yield f"{self.broker}: {'clean' if self.clean else 'NOT CLEAN'}"
        for name, value in self.rows():
            yield f"  {name:<22}{value}"
        for number in sorted(self.violations):
            yield from self.words_of(number)

    def words_of(self, number: int) -> Iterator[str]:
        """What was violated in one schedule."""
        for words in self.violations[number]:
            yield f"  schedule {number}: {words}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "clean": self.clean}


def _one(task: tuple[str, int, int, str]) -> tuple[int, Verdict | str]:
    logging.disable(logging.CRITICAL)  # faults are what the brokers' logs are full of here
    kind, seed, number, server = task
    try:
        if server:
            from soak.fleet import report

            return number, report.run(server, seed, number)
        return number, schedule.run(kind, seed, number)
    except Exception:
        return number, traceback.format_exc()


def run(kind: str, seed: int, numbers: list[int], workers: int, tell: Callable[[Report], None]) -> Report:
    """All schedules of `numbers` over a broker, or over the fleet; `tell` hears after each."""
    with contextlib.ExitStack() as open_:
        report, server = Report(kind, seed), ""
        if kind == FLEET:
            from soak.fleet.database import postgres
            from soak.fleet.report import FleetReport

            report, server = FleetReport(kind, seed), open_.enter_context(postgres())
        began = time.monotonic()
        spawning = multiprocessing.get_context("spawn")  # brokers have threads, which don't survive a fork
        tasks = [(kind, seed, number, server) for number in numbers]
        with spawning.Pool(min(workers, len(tasks)), maxtasksperchild=SCHEDULES_PER_WORKER) as pool:
            for number, tally in pool.imap_unordered(_one, tasks):
                report.add(number, tally)
                report.seconds = time.monotonic() - began
                tell(report)
    return report


def as_text(reports: list[Report]) -> str:
    """The reports as JSON."""
    return json.dumps([report.as_json() for report in reports], indent=2)
