"""How many accounts and logins are allowed, counted in the database."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from broker.fleet.account import Account, Wanted
from broker.fleet.keys import FleetKeys
from broker.fleet.limits import Limits, TooManyAccounts, TooOften
from broker.fleet.repository import Repository

Connect = Callable[..., Account]


@pytest.fixture
def repository(engine: Engine, vault) -> Repository:
    return Repository(engine, vault, FleetKeys(engine, vault))


@pytest.fixture
def connect(repository: Repository) -> Connect:
    def make(name: str, limits: Limits, user: str = "ada") -> Account:
        return repository.connect(user, "demo", name, "secret", user, limits=limits)

    return make


def an_hour_passes(engine: Engine) -> None:
    with engine.begin() as db:
        db.execute(text("update broker_accounts set created_at = created_at - interval '1 hour'"))
        db.execute(text("update broker_account_events set at = at - interval '1 hour'"))


def test_a_user_has_so_many_accounts_and_a_deleted_one_makes_room(
    repository: Repository, connect: Connect
) -> None:
    limits = Limits(accounts=2, per_hour=100)
    first, _second = connect("a", limits), connect("b", limits)
    with pytest.raises(TooManyAccounts, match="you have 2 accounts"):
        connect("c", limits)
    connect("c", limits, "eve")
    repository.want(first, Wanted.DELETED, "ada")
    connect("c", limits)


def test_connects_at_the_same_moment_count_each_other(connect: Connect) -> None:
    def attempt(number: int) -> bool:
        try:
            connect(f"n{number}", Limits(accounts=2, per_hour=100))
        except TooManyAccounts:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(attempt, range(6))) == 2


def test_connects_of_an_hour_are_counted_deleted_accounts_too(
    engine: Engine, repository: Repository, connect: Connect
) -> None:
    limits = Limits(accounts=9, per_hour=2)
    for name in ("a", "b"):
        repository.want(connect(name, limits), Wanted.DELETED, "ada")
    with pytest.raises(TooOften) as often:
        connect("c", limits)
    assert 3500 < often.value.wait <= 3600
    connect("c", limits, "eve")
    an_hour_passes(engine)
    connect("c", limits)


def test_passwords_for_one_ibkr_user_name_are_counted_over_all_users(
    engine: Engine, repository: Repository, connect: Connect
) -> None:
    limits = Limits(accounts=9, per_hour=4)
    for number in range(3):
        connect("Victim", limits, f"user{number}")
    mine = connect("mine", limits, "user9")
    repository.check_credentials(mine, "victim", limits)
    mine = repository.set_credentials(mine, "victim", "guess", "user9")
    with pytest.raises(TooOften, match="IBKR would lock it"):
        connect("VICTIM", limits, "user7")
    with pytest.raises(TooOften, match="IBKR would lock it"):
        repository.check_credentials(mine, "victim", limits)
    repository.check_credentials(mine, "another", limits)
    an_hour_passes(engine)
    connect("VICTIM", limits, "user7")


def test_changes_of_credentials_and_logins_of_an_hour_are_counted(
    engine: Engine, repository: Repository, connect: Connect
) -> None:
    limits = Limits(accounts=9, per_hour=2)
    account = connect("a", limits)
    for _ in range(2):
        repository.check_credentials(account, "a", limits)
        account = repository.set_credentials(account, "a", "x", "ada")
        repository.check_logins(account, limits)
        account = repository.want_restart(account, "ada")
    with pytest.raises(TooOften, match="changed credentials 2 times"):
        repository.check_credentials(account, "b", limits)
    with pytest.raises(TooOften, match="started 2 times"):
        repository.check_logins(account, limits)
    an_hour_passes(engine)
    repository.check_credentials(account, "b", limits)
    repository.check_logins(account, limits)
