"""`python -m soak`: prints progress and a table, writes JSON; exit code 1 if what mustn't happen did."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from soak import campaign, schedule
from soak.brokers import BUILD

#: between two lines of progress where nobody watches a terminal, in seconds
_QUIET = 10.0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--broker", choices=["all", *BUILD, campaign.FLEET], default="all")
    parser.add_argument("--schedules", type=int, default=1000, help="for each broker (default 1000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first schedule")
    parser.add_argument("--only", type=int, metavar="N", help="one schedule, step by step")
    parser.add_argument("--workers", type=int, default=(os.cpu_count() or 1) * campaign.WORKERS_PER_PROCESSOR)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")
    return parser


class Progress:
    """One line that is overwritten on a terminal, else a line now and then; violations at once."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._said = 0.0
        self._told: set[int] = set()

    def __call__(self, report: campaign.Report) -> None:
        for number in report.violations.keys() - self._told:
            self._told.add(number)
            print("\n".join(report.words_of(number)), file=sys.stderr, flush=True)
        done = report.schedules == self._total
        watched = sys.stderr.isatty()
        if not done and time.monotonic() - self._said < (0.2 if watched else _QUIET):
            return
        self._said = time.monotonic()
        left = report.seconds / report.schedules * (self._total - report.schedules)
        line = (
            f"{report.broker}: {report.schedules} of {self._total} schedules, "
            f"{len(report.violations)} not clean, about {left:.0f} s left"
        )
        end = "\n" if done or not watched else "\r"
        print(f"{line:<78}", end=end, file=sys.stderr, flush=True)


def main() -> int:
    """Run the campaign."""
    options = arguments().parse_args()
    kinds = [*BUILD, campaign.FLEET] if options.broker == "all" else [options.broker]
    if options.only is not None:
        return _only(kinds, options.seed, options.only)
    numbers = list(range(options.first, options.first + options.schedules))
    reports = []
    for kind in kinds:
        report = campaign.run(kind, options.seed, numbers, options.workers, Progress(len(numbers)))
        print("\n".join(report.table()), flush=True)
        reports.append(report)
    if options.json is not None:
        options.json.write_text(campaign.as_text(reports) + "\n")
    return 0 if all(report.clean for report in reports) else 1


def _only(kinds: list[str], seed: int, number: int) -> int:
    clean = True
    for kind in kinds:
        print(f"{kind}, schedule {number} of seed {seed}")
        violations = _step_by_step(kind, seed, number)
        print("\n".join(violations) or "clean")
        clean = clean and not violations
    return 0 if clean else 1


def _step_by_step(kind: str, seed: int, number: int) -> list[str]:
    def tell(line: str) -> None:
        print(f"  {line}", flush=True)

    if kind != campaign.FLEET:
        return schedule.run(kind, seed, number, tell).violations
    from soak.fleet.database import postgres
    from soak.fleet.schedule import Place

    with postgres() as server:
        return Place(server).run(seed, number, tell).violations


if __name__ == "__main__":
    sys.exit(main())
