"""Once nothing breaks any more: does everything come to where it shall be, how soon, and stay there?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker.fleet.account import Wanted
from soak.fleet.team import STACK
from soak.fleet.world import CONVERGENCE, IDLE_MINUTES, MOVING, Wish, World


def settle(
    world: World, tell: Callable[[str], None] = lambda _line: None, within: float = CONVERGENCE
) -> None:
    """Heals everything, waits for rest, and has the judge count what isn't as it shall be.

    `within`: virtual seconds in which everything has to have come to rest.
    """
    world.heal()
    began = world.now
    tell("heal")
    rested: dict[str, float] = {}
    problems: dict[str, str] = {}
    while world.now - began < within:
        # What isn't there after ten minutes waits for something that takes half an hour.
        moving = MOVING if world.now - began < 600 else 6 * MOVING
        world.advance(world.interval(0, world.run_pass(0), moving))
        world.start_again()
        problems = _problems(world)
        now = world.now
        for account in world.wishes:
            if account in problems:
                rested.pop(account, None)
            else:
                rested.setdefault(account, now - began)
        if not problems:
            break
    world.advance(IDLE_MINUTES * 60 + 120)
    world.run_passes(0, 6)
    problems |= _problems(world)
    tally = world.tally
    tally.longest_recovery = max(rested.values(), default=0.0)
    for account, words in problems.items():
        tally.violated("not_converged", f"{account}: {words}")
    _orphans(world)
    _told_of(world)


def _problems(world: World) -> dict[str, str]:
    """By account what isn't as its user wants it."""
    rows, droplets = world.rows(), world.team.droplets()
    found: dict[str, str] = {}
    for account, wish in world.wishes.items():
        words = _problem(world, account, wish, rows.get(account), droplets)
        if words:
            found[account] = words
    return found


def _problem(
    world: World, account: str, wish: Wish, row: dict[str, Any] | None, droplets: dict[int, dict[str, Any]]
) -> str:
    """What is wrong with one account; empty if nothing is."""
    if row is None:
        return "the database doesn't know it"
    said = (row["status"], row["status_reason"])
    alive = sorted(d.id for d in world.judge.ours(account) if d.id in droplets)
    states = [droplets[number]["status"] for number in alive]
    shown = f"wanted {wish.wanted}, the database says {said}, droplets {alive} are {states}"
    if row["wanted"] != wish.wanted:
        return f"{shown}; the wish is lost: {row['wanted']}"
    if wish.wanted == Wanted.DELETED:
        fine = said == ("deleted", "") and not alive and row["sealed_password"] is None
    elif wish.wanted == Wanted.HIBERNATED:
        fine = said == ("stopped", "hibernated") and not alive
    elif wish.wanted == Wanted.STOPPED:
        fine = said == (("stopped", "powered_off") if alive else ("stopped", "no_droplet"))
        fine = fine and states in ([], ["off"])
    elif wish.idle and said == ("stopped", "idle"):
        fine = not alive
    else:
        return "" if _runs(world, account, wish, said, alive) else shown
    return "" if fine else shown


def _runs(world: World, account: str, wish: Wish, said: tuple[str, str], alive: list[int]) -> bool:
    """Whether a wanted gateway runs, or what keeps it from that is somebody else's doing and is said."""
    if said == ("error", "unknown_droplet"):
        return _is_blocked(world, account) and len(alive) <= 1
    machine = world.team.machine(alive[0]) if len(alive) == 1 else None
    if machine is None:
        return False
    if machine.enrolment == "none":  # rebuilt by hand: it has another key than it enrolled with
        return said == ("error", "certificate_changed") and machine.login is None
    has = (machine.login or {}).get("password")
    return said == ("running", "") and has == wish.password and machine.logged_in


def _is_blocked(world: World, account: str) -> bool:
    """Whether there is a droplet with our tags and the account's that the database doesn't know."""
    return any(
        f"account:{account}" in droplet["tags"] and f"stack:{STACK}" in droplet["tags"]
        and "manager:service" in droplet["tags"]
        for number, droplet in world.team.droplets().items()
        if number in world.judge.foreign
    )  # fmt: skip


def _orphans(world: World) -> None:
    """Droplets that the database may know and nobody wants; and those of others must still be there."""
    for droplet in world.judge.ours():
        wish = world.wishes.get(droplet.account)
        if wish is None or wish.wanted in (Wanted.DELETED, Wanted.HIBERNATED):
            world.tally.violated("orphans", f"droplet {droplet.id} of {droplet.account} is nobody's")
    for number in world.judge.foreign - world.team.droplets().keys():
        world.tally.violated("others_touched", f"droplet {number} isn't ours and is gone")


def _told_of(world: World) -> None:
    """Somebody was told of each droplet that has our tags and is unknown."""
    said = " ".join(text for kind, text in world.alarms if kind == "unknown_droplet")
    for number, droplet in world.team.droplets().items():
        forged = {f"stack:{STACK}", "manager:service"} <= set(droplet["tags"])
        if number in world.judge.foreign and forged and str(number) not in said:
            world.tally.violated("untold", f"nobody was told of droplet {number}, which is unknown")
