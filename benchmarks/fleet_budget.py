"""A day of the request budget, with virtual time: whole passes, passes in between, and users who act.

Real are the budget, the client that reads a list's pages, and the runner's pauses; made up is what
DigitalOcean answers, which is counted in windows of its own.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from broker.fleet.digitalocean import Budget, Priority, PydoDroplets, Throttled
from broker.fleet.reconciler import Pass
from broker.fleet.runner import Runner

DAY, HOUR, MINUTE = 86_400.0, 3600.0, 60.0
PER_HOUR, PER_MINUTE = 5000, 250
SIZES = (100, 1_000, 10_000, 50_000)
#: users' requests in a day, and how many of them come within one minute
ACTIONS, BURST = 1_000, 30
#: calls of a start beside its lists: the check before a create takes two, then the create
START_CALLS = 3
#: how long an account is on the way after a request, in seconds
WAY = 150.0


@dataclass
class Day:
    """What came of a day."""

    droplets: int
    passes: int = 0
    short: int = 0
    broken: int = 0
    most_in_hour: int = 0
    most_in_minute: int = 0
    waits: list[float] = field(default_factory=list)


class _Counting:
    """DigitalOcean's own count of calls."""

    def __init__(self, day: Day) -> None:
        self.now = 0.0
        self._day = day
        self._windows = {HOUR: deque[float](), MINUTE: deque[float]()}

    def call(self, *_arguments: Any, cls: Any = None, page: int = 1, tag_name: str = "", **_more: Any) -> Any:
        """One call; a list of the stack has its pages."""
        for length, times in self._windows.items():
            times.append(self.now)
            while times[0] <= self.now - length:
                times.popleft()
        self._day.most_in_hour = max(self._day.most_in_hour, len(self._windows[HOUR]))
        self._day.most_in_minute = max(self._day.most_in_minute, len(self._windows[MINUTE]))
        last = -(-self._day.droplets // 200) if tag_name.startswith("stack:") else 1
        following = {"next": f"https://api/v2/droplets?page={page + 1}"} if page < last else {}
        return 200, {"droplets": [], "links": {"pages": following}}, {}

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds + 0.001


def day_of(droplets: int, actions: int = ACTIONS, burst: int = BURST, seconds: float = DAY) -> Day:
    """Simulates a day over so many running accounts."""
    day = Day(droplets)
    cloud = _Counting(day)
    budget = Budget(PER_HOUR, PER_MINUTE, clock=lambda: cloud.now)
    client = PydoDroplets("token", budget=budget, clock=lambda: cloud.now, sleep=cloud.sleep)
    client._client.droplets.list = cloud.call
    runner = Runner(None, budget)  # type: ignore[arg-type]  # only its pauses
    drawn = random.Random(droplets)
    asked = [drawn.uniform(0, seconds) for _ in range(actions)]
    asked += [seconds / 2 + drawn.uniform(0, MINUTE) for _ in range(burst)]
    heapq.heapify(asked)
    waiting: list[float] = []  # requests whose droplet hasn't been asked for
    until: list[float] = []  # accounts on the way, and how long they are
    due = 0.0
    while cloud.now < seconds:
        began = cloud.now
        while asked and asked[0] <= began:
            waiting.append(heapq.heappop(asked))
        until = [moment for moment in until if moment > began]
        moving = len(waiting) + len(until)
        pages = max(1, -(-droplets // 200))
        whole = began >= due or moving >= pages
        told = Pass(droplets=droplets, moving=moving, whole=whole, lists=pages if whole else moving)
        priority = Priority.USER if waiting else Priority.BACKGROUND
        try:
            for number in range(1 if whole else moving):
                client.list_by_tag("stack:bench" if whole else f"account:{number}", priority)
            while waiting:
                for _ in range(START_CALLS):
                    budget.take(priority)
                    cloud.call()
                day.waits.append(cloud.now - waiting.pop(0))
                until.append(cloud.now + WAY)
        except Throttled as busy:
            told.problem = busy.reason
            day.broken += 1
        day.passes += whole
        day.short += not whole
        if whole:
            due = cloud.now + runner.interval(told)
        pause = min(max(0.0, due - cloud.now), runner.next_look(told))
        woken = asked[0] - cloud.now if asked else pause  # a request wakes it
        cloud.now += max(0.05, min(pause, max(0.0, woken)))
    return day


def days(sizes: tuple[int, ...] = SIZES) -> Iterator[str]:
    """A line for each size."""
    yield f"a day of virtual time, {ACTIONS} starts by users and {BURST} more within a minute:"
    for droplets in sizes:
        day = day_of(droplets)
        waits = sorted(day.waits)
        yield (
            f"  {droplets} accounts: at most {day.most_in_hour} calls an hour and {day.most_in_minute} a "
            f"minute, wanted {PER_HOUR} and {PER_MINUTE}; {day.passes} whole passes, {day.short} in between, "
            f"{day.broken} without room; a start is sent after {statistics.median(waits):.1f} s, 99 of 100 "
            f"within {waits[len(waits) * 99 // 100]:.0f} s, {len(waits)} of {ACTIONS + BURST} sent"
        )
