"""`make cost STACK=...`: what a stack costs in a month, from its plan and dated prices.

With BASE (a commit), the difference to that commit's plan, as Markdown for a pull request. Nothing is asked
of a cloud, and no credentials are needed: the plan is made without an engine (`tools.cost_plan`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import cost_lines, summary
from tools.cost_lines import Line, lines_of, total
from tools.environments import CHECKOUT
from tools.local_cloud import CommandFailed

# The user's own estimate (docs/migration.md), by the component that it is about: dollars a month.
ESTIMATE = {
    "IB Gateway VM": ("GCE VM (e2-micro)", 6, 10),
    "API service": ("Cloud Run (existing)", 0, 5),
    "Database": ("Cloud SQL (existing)", 10, 15),
    "Market data": ("IBKR market data (optional)", 10, 50),
}


@dataclass(frozen=True)
class Choice:
    """Something that can be switched off, and what one gives up."""

    title: str
    gives_up: str
    overrides: Mapping[str, Any]


CHOICES = (
    Choice(
        "e2-micro, as the estimate has it",
        "1 GB: IB Gateway swaps, and may be killed",
        {"ibkr:gateway.machineType": "e2-micro", "ibkr:gateway.acceptSmallMachine": True},
    ),
    Choice("boot disk of 10 GB", "room for logs", {"ibkr:gateway.bootDiskGb": 10}),
    Choice("no backups", "orders and accounts, if the database is lost", {"ibkr:database.backups": False}),
    Choice(
        "no standby database",
        "minutes to hours, if its zone fails",
        {"ibkr:database.highAvailability": False},
    ),
    Choice("smallest database", "a processor of its own", {"ibkr:database.tier": "db-f1-micro"}),
    Choice("free quotes (yfinance)", "quotes to the second", {"ibkr:marketDataSource": "yfinance"}),
    Choice(
        "trading at Alpaca (make rollback)",
        "IBKR: no gateway, and a service that scales to zero",
        {
            "ibkr:brokerType": "alpaca",
            "ibkr:gateway.enabled": False,
            "ibkr:marketDataSource": "yfinance",
        },
    ),
)


@dataclass(frozen=True)
class Bill:
    """A stack's lines, its foundation's among them; what has no price; and what free tiers take off.

    `kept` is the foundation's part in dollars, which a `destroy` of the stack leaves.
    """

    lines: tuple[Line, ...]
    kept: float
    unpriced: tuple[str, ...]
    free: float
    settings: Mapping[str, Any]

    @property
    def usd(self) -> float:
        return total(self.lines)


def plans(stack: str, overrides: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """The plans of the program in a folder, in a process of its own. Raises CommandFailed."""
    if not (folder / f"Pulumi.{stack}.yaml").exists():
        raise CommandFailed(f"There is no stack {stack!r}: no Pulumi.{stack}.yaml.")
    if not (folder / "tools" / "cost_plan.py").exists():
        raise CommandFailed("BASE is from before `make cost` was there: choose a later commit.")
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONWARNINGS": "ignore"}
    made = subprocess.run(
        [sys.executable, "-m", "tools.cost_plan", "--stack", stack],
        cwd=folder,
        env=environment,
        input=json.dumps(list(overrides)),
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        raise CommandFailed(f"The plan of {stack} couldn't be made:\n{made.stderr.strip()[-2000:]}")
    found: list[dict[str, Any]] = json.loads(made.stdout)
    return found


def bills(stack: str, overrides: Sequence[Mapping[str, Any]], folder: Path = CHECKOUT) -> list[Bill | None]:
    """A bill for each set of overrides; None where the settings refuse one. Raises CommandFailed."""
    own = plans(stack, overrides, folder)
    if "refused" in own[0]:
        raise CommandFailed(str(own[0]["refused"]))
    name = own[0]["settings"]["foundation"]
    base: list[dict[str, Any] | None] = [None] * len(own)
    if name and (folder / f"Pulumi.{name}.yaml").exists():
        about = [{key: one[key] for key in one if key.startswith("ibkr:database")} for one in overrides]
        base = [*plans(name, about, folder)]
    return [_bill(plan, foundation) for plan, foundation in zip(own, base, strict=True)]


def _bill(plan: Mapping[str, Any], foundation: Mapping[str, Any] | None) -> Bill | None:
    if "refused" in plan:
        return None
    lines, unpriced = lines_of(plan)
    kept = 0.0
    if foundation is not None and "refused" not in foundation:
        more, unknown = lines_of(foundation)
        lines, unpriced, kept = lines + more, unpriced + unknown, total(more)
    return Bill(tuple(lines), kept, tuple(unpriced), cost_lines.free_of(plan, lines), plan["settings"])


def at_commit(commit: str, stack: str, into: Path) -> Bill | None:
    """The bill of a commit's plan; None if that commit hasn't got the stack. Raises CommandFailed."""
    archive = subprocess.run(["git", "archive", commit], cwd=CHECKOUT, capture_output=True)
    if archive.returncode != 0:
        said = archive.stderr.decode().strip()
        raise CommandFailed(f"BASE={commit} isn't a commit here ({said}). In CI, fetch it first.")
    subprocess.run(["tar", "-x", "-C", str(into)], input=archive.stdout, check=True)
    return bills(stack, [{}], into)[0] if (into / f"Pulumi.{stack}.yaml").exists() else None


def merged(lines: Sequence[Line]) -> list[Line]:
    """Equal items as one line: seven secrets' versions, say. Components in order of what they cost."""
    sums: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        sums[(line.component, line.item)].append(line)
    by_component: dict[str, float] = defaultdict(float)
    for line in lines:
        by_component[line.component] += line.usd
    ordered = sorted(sums, key=lambda key: (-by_component[key[0]], key[0], -total(sums[key])))
    return [
        Line(
            component,
            f"{len(same)} {item}" if len(same) > 1 else item,
            total(same),
            same[0].prices,
            same[0].note,
            same[0].user,
        )
        for (component, item) in ordered
        for same in [sums[(component, item)]]
    ]


def usd(amount: float) -> str:
    """Dollars, right-aligned."""
    return f"{amount:9.2f}"


def table(stack: str, bill: Bill, others: Sequence[tuple[Choice, Bill | None]]) -> str:
    """The whole report for a person."""
    heading = f"{stack}: {bill.usd:.2f} dollars a month at list prices"
    said = [summary.painted(heading, summary.BOLD)]
    if bill.settings["local"]:
        said.append("  It runs on this machine and costs nothing. In the clouds the same would cost:")
    rows: list[tuple[str, ...]] = [
        (line.component, line.item, usd(line.usd), line.note) for line in merged(bill.lines)
    ]
    said += [summary.table(rows), f"  {_free(bill)}", "", *_users(bill), "", *_compared(bill), ""]
    said += _choices(bill, others)
    if bill.unpriced:
        said += ["", "Not priced (tools/cost_lines.py):", *(f"  {text}" for text in bill.unpriced)]
    entries = [
        cost_lines.prices()[name] for name in sorted({name for line in bill.lines for name in line.prices})
    ]
    newest, oldest = (pick(_dates(entries)) for pick in (max, min))
    said += [
        "",
        summary.painted(
            f"Prices were read between {oldest} and {newest}; each with its source in tools/prices.json. Not "
            "in it: taxes, discounts, people.",
            summary.DIM,
        ),
    ]
    return "\n".join(said)


def _dates(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every day or month that the entries' sources name."""
    return [
        date for entry in entries for date in re.findall(r"20\d\d-\d\d(?:-\d\d)?", entry["source_date"])
    ] or ["undated"]


def _free(bill: Bill) -> str:
    rest = bill.usd - bill.free
    return (
        f"Free tiers take off {bill.free:.2f} where the billing account has no other use of them: {rest:.2f} "
        "remain."
    )


def _users(bill: Bill) -> list[str]:
    """Per user: what is shared, and a droplet of their own, kept or hibernated."""
    shared = bill.usd - sum(line.usd for line in bill.lines if line.user)
    rows: list[tuple[str, ...]] = []
    for size, what in ((bill.settings["size"], "live or paper"), (bill.settings["demo_size"], "demo")):
        kept = cost_lines.price(f"droplet-{size}")
        hibernated = cost_lines.droplet_month(size, cost_lines.TRADING_HOURS)
        rows.append(
            (
                f"{what}, {size}",
                f"kept {kept:.2f}",
                f"hibernated outside trading hours {hibernated:.2f}",
                f"saves {kept - hibernated:.2f} ({1 - hibernated / kept:.0%})",
            )
        )
    size = bill.settings["size"]
    droplet = cost_lines.price(f"droplet-{size}")
    hibernated = cost_lines.droplet_month(size, cost_lines.TRADING_HOURS)
    spread: list[tuple[str, ...]] = [
        (
            f"{users} user{'s' if users > 1 else ''}",
            f"{shared / users + droplet:.2f} each",
            f"{shared / users + hibernated:.2f} each, hibernated",
        )
        for users in (1, 10, 100)
    ]
    return [
        summary.painted("Per user: an IBeam droplet each", summary.BOLD),
        summary.table(rows),
        f"  Powered off is billed like running. The shared {shared:.2f} spread over all, and a droplet each:",
        summary.table(spread),
    ]


def _compared(bill: Bill) -> list[str]:
    """The user's estimate beside this bill, component by component."""
    by_component: dict[str, float] = defaultdict(float)
    for line in bill.lines:
        by_component[line.component] += line.usd
    rows: list[tuple[str, ...]] = [("", "estimated", "here")]
    for component, (title, low, high) in ESTIMATE.items():
        rows.append((title, f"{low}-{high}", usd(by_component.pop(component, 0.0))))
    rows += [(component, "-", usd(amount)) for component, amount in sorted(by_component.items())]
    low, high = (sum(entry[side] for entry in ESTIMATE.values()) for side in (1, 2))  # type: ignore[misc]
    rows.append(("Total", f"{low}-{high}", usd(bill.usd)))
    why = (
        "  The estimate takes Cloud Run as good as free; a TWS connection needs the processor all month.\n"
        "  It has no connector and no NAT, which keep the gateway off the internet. Without a market data\n"
        "  subscription it is 16-30."
    )
    return [
        summary.painted("The migration plan's estimate beside it", summary.BOLD),
        summary.table(rows),
        why,
    ]


def _choices(bill: Bill, others: Sequence[tuple[Choice, Bill | None]]) -> list[str]:
    rows: list[tuple[str, ...]] = [
        (choice.title, f"{other.usd - bill.usd:+9.2f}", f"gives up: {choice.gives_up}")
        for choice, other in others
        if other is not None and other.usd < bill.usd - 0.005
    ]
    rows.append(
        (
            "make destroy while nobody uses it",
            f"{bill.kept - bill.usd:+9.2f}",
            "gives up: everything but the foundation",
        )
    )
    return [summary.painted("What can be switched off", summary.BOLD), summary.table(rows)]


def difference(stack: str, before: Bill | None, after: Bill) -> str:
    """What changes between two bills, as Markdown."""
    was = before.usd if before else 0.0
    title = f"### Cost of `{stack}`: {after.usd:.2f} dollars a month"
    if before is None:
        title += ", a new stack"
    old = {(line.component, line.item): line.usd for line in merged(before.lines if before else ())}
    new = {(line.component, line.item): line.usd for line in merged(after.lines)}
    changed = [key for key in {**old, **new} if abs(old.get(key, 0.0) - new.get(key, 0.0)) > 0.004]
    if not changed:
        return f"{title}, unchanged"
    rows = [
        f"| {key[0]} | {key[1]} | {old.get(key, 0.0):.2f} | {new.get(key, 0.0):.2f} | "
        f"{new.get(key, 0.0) - old.get(key, 0.0):+.2f} |"
        for key in changed
    ]
    return "\n".join(
        [
            f"{title} ({after.usd - was:+.2f})",
            "",
            "| component | item | before | after | difference |",
            "|---|---|---:|---:|---:|",
            *rows,
            f"| **total** | | **{was:.2f}** | **{after.usd:.2f}** | **{after.usd - was:+.2f}** |",
            *(["", "Not priced: " + "; ".join(after.unpriced)] if after.unpriced else []),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.cost", description=__doc__)
    parser.add_argument("--stack", default="staging", help="which stack (default: staging)")
    parser.add_argument("--base", default="", help="a commit to compare with; the answer is Markdown then")
    options = parser.parse_args(arguments)
    try:
        if options.base:
            after = bills(options.stack, [{}])[0]
            assert after is not None  # a refused plan has raised
            with tempfile.TemporaryDirectory() as folder:
                before = at_commit(options.base, options.stack, Path(folder))
            print(difference(options.stack, before, after))
            return 0
        bill, *others = bills(options.stack, [{}, *(choice.overrides for choice in CHOICES)])
        assert bill is not None
        print(table(options.stack, bill, list(zip(CHOICES, others, strict=True))))
    except CommandFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
