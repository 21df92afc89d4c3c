"""`make bench`, or `python -m benchmarks [NAME ...]`: prints each figure beside what it is compared with."""

import sys
from collections.abc import Callable, Iterator

from benchmarks import broker, dashboard, fleet, machine, up

MEASUREMENTS: dict[str, Callable[[], Iterator[str]]] = {
    "broker": broker.measure,
    "dashboard": dashboard.measure,
    "fleet": fleet.measure,
    "up": up.measure,
}


def main(names: list[str]) -> int:
    """Run the named measurements, or all; returns the exit code."""
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        print(f"no measurement {', '.join(unknown)}; there are: {', '.join(MEASUREMENTS)}", file=sys.stderr)
        return 2
    print(machine.describe(), flush=True)
    for name in names or MEASUREMENTS:
        for line in MEASUREMENTS[name]():
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
