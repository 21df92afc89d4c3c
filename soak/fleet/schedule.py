"""A random schedule of the fleet: its steps follow from seed and number alone."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Engine, create_engine

from broker.fleet.account import Wanted
from soak.fleet.clock import Clock
from soak.fleet.database import new_database, sqlalchemy_url
from soak.fleet.instance import Mutate
from soak.fleet.judge import Judge, Tally
from soak.fleet.reckoning import settle
from soak.fleet.team import Team
from soak.fleet.world import CONVERGENCE, World

STEPS = (15, 40)
_WEIGHTS = {
    "connect": 8,
    "want": 16,
    "restart": 4,
    "change_password": 6,
    "set_policy": 3,
    "run_passes": 34,
    "kill": 10,
    "freeze": 6,
    "wake": 6,
    "start_anew": 2,
    "cut_database": 2,
    "advance": 12,
    "fault": 14,
    "lose_answer": 7,
    "lag": 5,
    "limit": 2,
    "by_hand": 7,
    "mood": 5,
    "stranger": 3,
    "steal": 3,
    "back_up": 3,
    "restore": 2,
}
_CALLS = {
    "GET /v2/droplets": (429, 500, 503),
    "GET /v2/droplets/*": (429, 500),
    "GET /v2/account": (500,),
    "POST /v2/droplets": (422, 429, 500, 503),
    "DELETE /v2/droplets/*": (422, 429, 500, 503),
    "POST /v2/droplets/*/actions": (422, 500, 503),
}
_LOCKED = "Droplet already has a pending event."

Step = tuple[str, Sequence[Any]]


def steps(seed: int, number: int) -> list[Step]:
    """The schedule of that number."""
    drawn = random.Random(f"{seed}/fleet/{number}")
    begin: list[Step] = [("connect", (user, "demo", True)) for user in range(drawn.randint(1, 4))]
    # Begun in the middle of life, mostly: what can go wrong needs droplets.
    begin.append(("run_passes", (0, drawn.choice([0, 1, 3, 20, 20]))))
    return begin + [_step(drawn) for _ in range(drawn.randint(*STEPS))]


def _step(drawn: random.Random) -> Step:
    what = drawn.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    share, which = drawn.random(), drawn.randint(0, 1)
    chosen = {
        "lose_answer": ["POST /v2/droplets", "POST /v2/droplets", "DELETE /v2/droplets/", "GET /v2/droplets"],
        "by_hand": ["delete", "delete", "power_off", "reboot", "rebuild"],
        "mood": ["reachable", "second_factor", "competing"],
        "stranger": ["none", "another stack", "declared", "forged"],
        "want": [*Wanted, Wanted.RUNNING, Wanted.RUNNING],
        "connect": ["demo", "paper", "live"],
    }
    one = drawn.choice(chosen.get(what, [""]))
    details: dict[str, Callable[[], Sequence[Any]]] = {
        "connect": lambda: (drawn.randint(0, 5), one, drawn.random() < 0.8),
        "want": lambda: (share, one),
        "restart": lambda: (share,),
        "change_password": lambda: (share, drawn.random() < 0.6),
        "set_policy": lambda: (share, drawn.random() < 0.6),
        "run_passes": lambda: (which, drawn.choice([1, 1, 2, 4, 8])),
        "kill": lambda: (which, *_point(drawn)),
        "freeze": lambda: (which, *_point(drawn)),
        "start_anew": lambda: (which,),
        "advance": lambda: (drawn.choice([1, 20, 61, 130, 400, 2000, 4000]),),
        "fault": lambda: (_fault(drawn),),
        "lose_answer": lambda: (one,),
        "lag": lambda: (drawn.choice([0, 5, 20]), drawn.choice([0, 20, 60])),
        "limit": lambda: (drawn.randint(0, 1),),
        "by_hand": lambda: (share, one),
        "mood": lambda: (share, one, drawn.random() < 0.7),
        "stranger": lambda: (share, one),
        "steal": lambda: (share,),
    }
    return what, details[what]() if what in details else ()


def _point(drawn: random.Random) -> tuple[int, str]:
    """Where a process ends or freezes: anywhere, or before or after a call that can't be taken back."""
    only = drawn.choice(["", "create", "create", "push", "delete", "act", "adopt"])
    return drawn.randint(1, 2 if only else 16), only


def _fault(drawn: random.Random) -> dict[str, Any]:
    if drawn.random() < 0.15:
        return {"on": f"action {drawn.choice(['power_on', 'shutdown', 'power_off', 'create'])}"}
    call = drawn.choice(list(_CALLS))
    status = drawn.choice(_CALLS[call])
    fault: dict[str, Any] = {"on": call, "status": status, "times": drawn.choice([1, 1, 2, 6])}
    if status == 422:
        fault["message"] = "invalid" if call == "POST /v2/droplets" else _LOCKED
    if status >= 500 and drawn.random() < 0.5:
        fault["after"] = True
    return fault


def perform(world: World, step: Step) -> None:
    """Carry out one step."""
    what, details = step
    acts: dict[str, Callable[..., object]] = {
        "kill": lambda which, point, only: world.run_pass(which, kill=point, only=only),
        "freeze": lambda which, point, only: world.run_pass(which, freeze=point, only=only),
        "fault": lambda fault: world.fault(**fault),
    }
    act = acts.get(what) or getattr(world, what)
    act(*details)


class Place:
    """Where schedules are carried out, one after the other: a database, a team, a clock."""

    def __init__(self, server: str) -> None:
        """`server`: the URL of a PostgreSQL."""
        name = f"soak_{os.getpid()}_{id(self)}"
        self._url = new_database(server, name)
        self._clock = Clock(self._url)
        self._team = Team(self._clock, f"127.{100 + os.getpid() % 100}")
        self.judge = Judge(self._url, self._clock)
        self._engines = [_engine(self._url) for _ in range(2)]

    def run(
        self,
        seed: int,
        number: int,
        tell: Callable[[str], None] = lambda _line: None,
        mutate: Mutate = lambda _instance: None,
        within: float = CONVERGENCE,
    ) -> Tally:
        """One schedule from an empty team to the reckoning; see `settle` for `within`."""
        drawn = random.Random(f"{seed}/fleet/{number}/team")
        world = World(self._engines, self._url, self._clock, self._team, self.judge, drawn, mutate)
        try:
            for step in steps(seed, number):
                tell(f"{step[0]} {' '.join(map(str, step[1]))}")
                perform(world, step)
            settle(world, tell, within)
        except TimeoutError as hang:
            self.judge.tally.violated("hung", str(hang))
        finally:
            world.close()
        return self.judge.tally

    def close(self) -> None:
        """Gives everything back."""
        for engine in self._engines:
            engine.dispose()
        self.judge.close()
        self._team.close()
        self._clock.close()


def _engine(url: str) -> Engine:
    return create_engine(
        sqlalchemy_url(url), pool_pre_ping=True, connect_args={"application_name": "service"}
    )
