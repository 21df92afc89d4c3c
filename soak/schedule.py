"""A random schedule: its steps follow from seed, broker and number alone; their timing is the machine's."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from broker.validation import STOP_LOSS, TAKE_PROFIT
from soak.faults import faults_of
from soak.in_process import venue_for
from soak.judge import Tally
from soak.process import let_the_dead_rest
from soak.venue import PRICE
from soak.world import SYMBOLS, World, by_money, request, trailing

STEPS = (12, 28)
_WEIGHTS = {
    "place": 30,
    "by_money": 4,
    "bracket": 10,
    "trail": 4,
    "leg": 6,
    "close": 6,
    "repeat": 8,
    "cancel": 10,
    "replace": 5,
    "cancel_all": 2,
    "read": 10,
    "price": 8,
    "fault": 18,
    "heal": 14,
    "kill": 3,
    "kill_within": 7,
    "wait": 6,
}

Step = tuple[str, Sequence[Any]]


def steps(kind: str, seed: int, number: int) -> list[Step]:
    """The schedule of that number."""
    drawn = random.Random(f"{seed}/{kind}/{number}")
    return [_step(kind, drawn, index, number) for index in range(drawn.randint(*STEPS))]


def _step(kind: str, drawn: random.Random, index: int, number: int) -> Step:
    faults = faults_of(kind)
    what = drawn.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    if what == "fault" and not faults:
        what = "price"
    match what:
        case "place":
            near = drawn.choice([None, True, True, False])
            side, symbol = drawn.choice(["buy", "buy", "sell"]), drawn.choice(SYMBOLS)
            return what, (f"s{number}-{index}", side, drawn.randint(1, 5), near, symbol)
        case "bracket":
            near = drawn.choice([None, True, True, False])
            side, symbol = drawn.choice(["buy", "buy", "sell"]), drawn.choice(SYMBOLS)
            return what, (f"s{number}-{index}", side, drawn.randint(1, 5), near, symbol)
        case "trail":
            distance = drawn.choice([("trail_amount", 2.0), ("trail_percent", 1.0)])
            side, symbol = drawn.choice(["buy", "sell"]), drawn.choice(SYMBOLS)
            return what, (f"s{number}-{index}", side, drawn.randint(1, 5), symbol, *distance)
        case "leg":
            price = drawn.choice([None, round(PRICE * drawn.uniform(0.97, 1.03), 2)])
            return what, (drawn.random(), drawn.choice([TAKE_PROFIT, STOP_LOSS]), price)
        case "by_money":
            return what, (f"s{number}-{index}", round(drawn.uniform(50, 900), 2), drawn.choice(SYMBOLS))
        case "close":
            return what, (f"s{number}-{index}", drawn.choice(SYMBOLS))
        case "repeat" | "cancel":
            return what, (drawn.random(),)
        case "replace":
            price, qty = round(PRICE * drawn.uniform(0.9, 1.1), 2), drawn.choice([None, drawn.randint(1, 8)])
            return what, (drawn.random(), price, qty)
        case "price":
            return what, (drawn.choice(SYMBOLS), round(PRICE * drawn.uniform(0.97, 1.03), 2))
        case "fault":
            return what, (drawn.choice(faults),)
        case "kill_within":
            return what, (drawn.randint(0, 4),)
        case "wait":
            return what, (round(drawn.uniform(0.05, 0.5), 2),)
    return what, ()


def perform(world: World, step: Step) -> None:
    """Carry out one step; those that choose an earlier order do nothing while there is none."""
    what, details = step
    if what in ("repeat", "cancel", "replace", "leg"):
        among = list(world.brackets if what == "leg" else world.asked)
        if not among:
            return
        share, *details = details
        details = [among[int(share * len(among))], *details]
    acts: dict[str, Callable[..., None]] = {
        "place": lambda reference, side, qty, near, symbol: world.place(
            request(reference, side=side, qty=qty, near=near, symbol=symbol)
        ),
        "by_money": lambda reference, dollars, symbol: world.place(
            by_money(reference, dollars=dollars, symbol=symbol)
        ),
        "bracket": lambda reference, side, qty, near, symbol: world.place_bracket(
            request(reference, side=side, qty=qty, near=near, symbol=symbol)
        ),
        "trail": lambda reference, side, qty, symbol, name, distance: world.place(
            trailing(reference, side=side, qty=qty, symbol=symbol, **{name: distance})
        ),
        "leg": world.leg,
        "close": world.close_position,
        "repeat": world.repeat,
        "cancel": world.cancel,
        "replace": world.replace,
        "cancel_all": world.cancel_all,
        "read": world.read,
        "price": world.move_price,
        "fault": world.begin,
        "heal": world.heal,
        "kill": world.restart,
        "kill_within": world.kill_after,
        "wait": world.wait,
    }
    acts[what](*details)


def run(kind: str, seed: int, number: int, tell: Callable[[str], None] = lambda _line: None) -> Tally:
    """One schedule from an empty account to the reckoning."""
    let_the_dead_rest()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, venue_for(kind) as venue:
        world = World(kind, venue, Path(folder) / "orders.sqlite")
        try:
            for step in steps(kind, seed, number):
                tell(f"{step[0]} {' '.join(map(str, step[1]))}")
                perform(world, step)
            return world.settle()
        finally:
            world.close()
