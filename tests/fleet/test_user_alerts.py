"""Users' alert channels in the database: sealed, wrapped anew with the rest, gone with their account."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from broker.fleet.account import Wanted
from broker.fleet.decide import LogSays, Probe, Readiness
from broker.fleet.keys import rewrap
from broker.fleet.user_alerts import UserAlerts
from broker.fleet.vault import LocalKeyWrapper, Vault
from tests.fleet.model import Fleet

URL = "tgram://123456789:AbcdefghijklmnopqrstuvwxyzAbcdefghi/12345678"


@pytest.fixture
def fleet(engine, vault):
    return Fleet(engine, vault)


@pytest.fixture
def told(monkeypatch):
    """What is said to users, before it would leave."""
    found = []
    said = lambda _self, url, whose, kind, text: found.append((url, whose, kind, text))  # noqa: E731
    monkeypatch.setattr("broker.alerts.Alerts.tell", said)
    return found


def channels(engine):
    with engine.connect() as db:
        return db.execute(text("select * from account_alerts")).all()


def with_users(fleet, vault):
    """The fleet as the service builds it, with its users' channels."""
    users = UserAlerts(fleet.engine, vault, "test")
    fleet.reconciler._parts = replace(fleet.reconciler._parts, tell=users.tell)
    return users


def test_a_user_is_told_of_their_matters_and_operators_of_what_concerns_them_too(fleet, vault, told):
    users = with_users(fleet, vault)
    account = fleet.connect(environment="live")
    fleet.until(account, "running")
    assert users.set(fleet.of(account), URL) == "tgram"
    fleet.world.readiness[account] = Probe(Readiness.NOT_LOGGED_IN, LogSays.SECOND_FACTOR)
    fleet.passes(2)
    assert fleet.alarms == []
    fleet.world.readiness[account] = Probe(Readiness.CERTIFICATE_CHANGED)
    fleet.passes(2)
    assert [kind for kind, _ in fleet.alarms] == ["certificate_changed"]
    assert [(url, whose, kind) for url, whose, kind, _ in told] == [
        (URL, account, "alerts_here"),
        (URL, account, "second_factor"),
        (URL, account, "certificate_changed"),
    ]
    assert "approve the login" in told[1][3]


def test_operators_are_told_when_a_users_channel_does_not_open(fleet, vault, told):
    account = fleet.connect(environment="live")
    fleet.until(account, "running")
    with_users(fleet, Vault(LocalKeyWrapper({"other": b"9" * 32})))
    UserAlerts(fleet.engine, vault, "test").set(fleet.of(account), URL)
    fleet.world.readiness[account] = Probe(Readiness.NOT_LOGGED_IN, LogSays.SECOND_FACTOR)
    fleet.passes(2)
    assert [kind for kind, _ in fleet.alarms] == ["second_factor"]


def test_a_channel_is_sealed_wrapped_anew_and_wiped_with_its_account(fleet, engine, vault, told):
    account = fleet.connect()
    fleet.until(account, "running")
    UserAlerts(engine, vault, "test").set(fleet.of(account), URL)
    assert URL.encode() not in b"".join(bytes(v) for v in channels(engine)[0] if isinstance(v, bytes))
    both = Vault(LocalKeyWrapper({"k2": b"2" * 32, "k1": b"1" * 32}))
    assert rewrap(engine, both) == 4, "an account, its channel, and the fleet's two keys"
    later = UserAlerts(engine, Vault(LocalKeyWrapper({"k2": b"2" * 32})), "test")
    assert later.tell(fleet.of(account))
    assert told[-1][0] == URL
    fleet.repository.want(fleet.of(account), Wanted.DELETED, "ada")
    fleet.until(account, "deleted")
    assert channels(engine) == []
    assert not later.tell(fleet.of(account))
