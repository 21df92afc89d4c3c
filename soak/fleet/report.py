"""What many schedules of the fleet came to together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from soak.campaign import Report
from soak.fleet.judge import MUST_BE_ZERO, Tally
from soak.fleet.schedule import Place


@dataclass
class FleetReport(Report):
    """The sums of a campaign over the fleet."""

    must_be_zero = MUST_BE_ZERO
    counted = (
        "accounts",
        "droplets",
        "logins",
        "doubles",
        "passes",
        "actions",
        "faults",
        "kills",
        "freezes",
        "restores",
        "strangers",
    )

    def rows(self) -> list[tuple[str, str]]:
        """See Report."""
        sums = self.sums
        none = "(must be 0)"
        return [
            ("schedules", f"{self.schedules} in {self.seconds:.0f} s, seed {self.seed}"),
            ("accounts, requests", f"{sums['accounts']}, {sums['actions']} by their users"),
            ("droplets made", f"{sums['droplets']}, {sums['doubles']} beside another of their account"),
            ("logins given", str(sums["logins"])),
            (
                "passes",
                f"{sums['passes']}, {sums['kills']} killed and {sums['freezes']} frozen in the middle",
            ),
            ("faults, restores", f"{sums['faults']}, {sums['restores']} of the database"),
            ("two held a login", f"{sums['two_holders']} accounts  {none}"),
            ("doubles left", f"{sums['doubles_left']} after a whole pass  {none}"),
            ("orphans", f"{sums['orphans']}  {none}"),
            ("others' touched", f"{sums['others_touched']}, there were {sums['strangers']}  {none}"),
            ("not converged", f"{sums['not_converged']} accounts  {none}"),
            ("not written before", f"{sums['unwritten']}  {none}"),
            ("second accounts", f"{sums['second_accounts']}  {none}"),
            ("tokens that worked", f"{sums['thefts']} of those stolen  {none}"),
            ("nobody told, hung", f"{sums['untold']}, {sums['hung']}  {none}"),
            ("longest convergence", f"{self.longest_recovery:.0f} s of virtual time"),
        ]


@cache
def _place(server: str) -> Place:
    return Place(server)


def run(server: str, seed: int, number: int) -> Tally:
    """One schedule, in a place that this process keeps for the next ones."""
    return _place(server).run(seed, number)
