"""The soak of the fleet runs, and its judge finds what it is there to find.

A clean report would say nothing otherwise: each of these mutants breaks one rule of the reconciler, and has
to be reported within a few schedules.
"""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.fleet.digitalocean import OutcomeUnknown
from broker.fleet.repository import NewEnrolment
from soak.fleet.database import postgres
from soak.fleet.instance import Instance
from soak.fleet.judge import Made, Tally
from soak.fleet.schedule import Place, steps


class Mutant:
    """An object with other methods in places: `methods` get the original one first."""

    def __init__(self, target: Any, **methods: Callable[..., Any]) -> None:
        self._target, self._methods = target, methods

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._target, name)
        return functools.partial(self._methods[name], original) if name in self._methods else original


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    logging.disable(logging.CRITICAL)
    with postgres() as server:
        made = Place(server)
        yield made
        made.close()
    logging.disable(logging.NOTSET)


def test_schedules_are_clean_and_made_of_everything(place: Place) -> None:
    total = Tally()
    for number in sorted(range(40), key=lambda one: len(steps(1, one)))[:3]:
        tally = place.run(1, number)
        assert tally.violations == []
        total.droplets += tally.droplets
        total.logins += tally.logins
        total.passes += tally.passes
    assert min(total.droplets, total.logins, total.passes) > 4
    all_ = {what for number in range(200) for what, _details in steps(1, number)}
    assert {"kill", "freeze", "restore", "lose_answer", "by_hand", "stranger", "steal"} < all_
    assert steps(1, 7) == steps(1, 7)


def without_tombstone(instance: Instance) -> None:
    instance.repository = Mutant(instance.repository, condemn=lambda _original, *_of: None)


def without_intent(instance: Instance) -> None:
    def begin_create(_original: Any, account: Any, *_more: Any) -> Any:
        return account, NewEnrolment(secrets.token_hex(8), secrets.token_urlsafe(32))

    instance.repository = Mutant(instance.repository, begin_create=begin_create)


def without_number(instance: Instance) -> None:
    def begin_push(original: Any, account: Any, *more: Any) -> Any:
        written, sequence, now = original(account, *more)
        return instance.repository.change(written, credentials_droplet_id=None), sequence, now

    instance.repository = Mutant(instance.repository, begin_push=begin_push)


def repeats_creates(instance: Instance) -> None:
    def create(original: Any, *arguments: Any) -> Any:
        try:
            return original(*arguments)
        except OutcomeUnknown:
            return original(*arguments)

    instance.droplets = Mutant(instance.droplets, create=create)


def trusts_tags(instance: Instance) -> None:
    """What carries our tags and an account's counts as that account's."""
    claims: dict[str, str] = {}

    def list_by_tag(original: Any, *arguments: Any) -> Any:
        found = original(*arguments)
        claims.update({d.tag("enrolment"): d.tag("account") for d in found})
        return found

    instance.droplets = Mutant(instance.droplets, list_by_tag=list_by_tag)
    instance.repository = Mutant(instance.repository, known_enrolments=lambda _original, _ids: claims)


def never_deletes(instance: Instance) -> None:
    instance.droplets = Mutant(instance.droplets, delete=lambda *_of: None)


MUTANTS = [
    (without_tombstone, "unwritten", ("want", "deleted")),
    (without_intent, "unwritten", ("want", "running")),
    (without_number, "unwritten", ("want", "running")),
    (repeats_creates, "unwritten", ("lose_answer", "POST /v2/droplets")),
    (trusts_tags, "others_touched", ("stranger", "forged")),
    (never_deletes, "orphans", ("want", "hibernated")),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("mutate", "what", "needs"), MUTANTS, ids=[m.__name__ for m, *_more in MUTANTS])
def test_a_mutant_is_reported(
    place: Place, mutate: Callable[[Instance], None], what: str, needs: tuple[str, str]
) -> None:
    found: set[str] = set()
    for number in [n for n in range(200) if drawn(n, *needs)][:12]:
        found |= {w.partition(":")[0] for w in place.run(1, number, mutate=mutate, within=120).violations}
        if what in found:
            return
    raise AssertionError(f"reported was only {found}")


def drawn(number: int, what: str, one: str) -> bool:
    """Whether a schedule has that step, and none that takes long to recover from."""
    found = steps(1, number)
    slow = {"restore", "kill"} & {what for what, _details in found}
    return not slow and any(step == what and one in details for step, details in found)


def test_the_judge_sees_two_holders_doubles_and_strangers(place: Place) -> None:
    judge = place.judge
    judge.begin()
    for number in (1, 2):
        judge.made(Made(number, "ib-demo-1", f"e{number}", 0.0))
    doubles = judge.doubles_now(0.0)
    assert doubles == {"ib-demo-1": {1, 2}}
    judge.pushed(1, "ib-demo-1")
    judge.pushed(2, "ib-demo-1")
    judge.pushed(2, "ib-demo-1")
    judge.doubles_left(doubles)
    judge.pushed(3, "ib-demo-1")
    judge.gone(1)
    judge.doubles_left(doubles)
    assert (judge.tally.two_holders, judge.tally.doubles_left, judge.tally.others_touched) == (1, 1, 1)
    judge.foreign.add(2)
    judge.asked("DELETE", "/v2/droplets/2", {})
    assert judge.tally.others_touched == 2
