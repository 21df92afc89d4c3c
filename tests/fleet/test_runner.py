"""Passes that run by themselves."""

from __future__ import annotations

import queue
import time

import pytest
from sqlalchemy.exc import OperationalError

from broker.fleet.digitalocean import Budget, Priority
from broker.fleet.reconciler import Pass
from broker.fleet.runner import Runner
from tests.fleet.model import Fleet


class Scripted:
    """A reconciler whose passes are given."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.priorities: queue.Queue[Priority] = queue.Queue()
        self.whole: list[bool] = []
        self.kept: queue.Queue[bool] = queue.Queue()

    def keep_lease(self) -> None:
        self.kept.put(True)
        raise OperationalError("", {}, Exception())

    def run_pass(self, priority: Priority, whole: bool) -> Pass | None:
        self.whole.append(whole)
        self.priorities.put(priority)
        answer = self.answers.pop(0) if self.answers else Pass()
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]


def test_from_connect_to_running_without_anybody_asking_for_passes(engine, vault):
    fleet = Fleet(engine, vault)
    runner = Runner(
        fleet.reconciler, Budget(), moving=0.01, on_pass=lambda _told: fleet.world.proceed(fleet.enroller)
    )
    runner._budget.interval = lambda _calls, least: least  # type: ignore[method-assign]
    runner.start()
    account = fleet.connect()
    runner.wake()
    deadline = time.monotonic() + 60
    while fleet.status(account)[0] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    runner.stop()
    assert not runner._thread.is_alive()


def test_a_request_has_a_pass_run_at_once_with_a_users_priority():
    scripted = Scripted()
    runner = Runner(scripted, Budget())
    runner.start()
    assert scripted.priorities.get(timeout=10) is Priority.BACKGROUND
    runner.wake()
    assert scripted.priorities.get(timeout=10) is Priority.USER
    runner.stop()


def test_failures_end_nothing():
    broken = OperationalError("", {}, Exception())
    scripted = Scripted(broken, ValueError("odd"), None)
    runner = Runner(scripted, Budget(), moving=0.01)
    runner.start()
    for _ in range(4):
        scripted.priorities.get(timeout=10)
        runner.wake()
    runner.stop()


def test_an_instance_that_stands_by_looks_again_by_itself():
    scripted = Scripted(None, None, None)
    runner = Runner(scripted, Budget(), standby=0.01)
    runner.start()
    for _ in range(4):
        scripted.priorities.get(timeout=30)
    runner.stop()


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (Pass(droplets=10), 60),
        (Pass(droplets=10, moving=1), 2),
        (Pass(droplets=10, moving=1, problem="digitalocean_away"), 60),
        (Pass(droplets=10_000, moving=1), 90),
    ],
)
def test_the_pause(told, seconds):
    assert Runner(Scripted(), Budget()).interval(told) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (Pass(droplets=10), 60),
        (Pass(droplets=10, moving=1), 3.6),
        (Pass(droplets=10_000, moving=1), 3.6),
        (Pass(droplets=10_000, moving=400), 180),
        (Pass(whole=False, lists=5, moving=9), 18),
        (Pass(moving=1, problem="digitalocean_busy"), 60),
    ],
)
def test_the_pause_until_accounts_on_the_way_are_looked_at(told, seconds):
    assert Runner(Scripted(), Budget()).next_look(told) == pytest.approx(seconds)


def test_between_whole_passes_of_a_large_fleet_only_some_accounts_are_looked_at():
    scripted = Scripted(Pass(droplets=10_000), Pass(whole=False, lists=1))
    runner = Runner(scripted, Budget())
    runner.start()
    for _ in range(3):
        scripted.priorities.get(timeout=10)
        runner.wake()
    runner.stop()
    assert scripted.whole[:3] == [True, False, False]


def test_the_lease_is_kept_between_passes_that_are_far_apart(monkeypatch):
    monkeypatch.setattr("broker.fleet.runner._KEEP", 0.01)
    scripted = Scripted(Pass(droplets=50_000))
    runner = Runner(scripted, Budget())
    runner.start()
    scripted.priorities.get(timeout=10)
    for _ in range(3):
        assert scripted.kept.get(timeout=10)
    runner.wake()
    assert scripted.priorities.get(timeout=10) is Priority.USER
    runner.stop()
