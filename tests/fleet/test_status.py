"""Statuses in memory: whose they are, how old they may be, and what a change does to them."""

from __future__ import annotations

from broker.fleet.status import Statuses


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_its_owner_finds_an_account_and_only_for_a_while():
    clock = Clock()
    statuses: Statuses[str] = Statuses(oldest=2.0, clock=clock)
    statuses.keep("a", "ada", "running", statuses.changes)
    assert statuses.find("a", "ada") == "running"
    assert statuses.find("a", "eve") is None
    assert statuses.find("b", "ada") is None
    clock.now = 2.0
    assert statuses.find("a", "ada") is None


def test_a_change_is_known_at_once_and_a_read_from_before_it_isnt_kept():
    statuses: Statuses[str] = Statuses()
    statuses.keep("a", "ada", "running", statuses.changes)
    read = statuses.changes
    statuses.forget("a")
    assert statuses.find("a", "ada") is None
    statuses.keep("a", "ada", "running, as it was read before", read)
    assert statuses.find("a", "ada") is None
    read = statuses.changes
    statuses.clear()
    statuses.keep("a", "ada", "running, as it was read before", read)
    assert statuses.find("a", "ada") is None


def test_it_doesnt_grow_for_ever():
    statuses: Statuses[int] = Statuses(most=3)
    for number in range(10):
        statuses.keep(str(number), "ada", number, statuses.changes)
        assert statuses.find(str(number), "ada") == number
    assert sum(statuses.find(str(number), "ada") is not None for number in range(10)) <= 3
