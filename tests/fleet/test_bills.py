"""What accounts cost so far: DigitalOcean's rules on paper, and droplets' lives as passes write them down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from broker.fleet.account import Wanted
from broker.fleet.bills import BilledDroplet, Cost, cost
from broker.fleet.overview_rows import Sought
from broker.fleet.repository import FleetLease
from tests.fleet.model import Fleet

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def had(began: datetime, ended: datetime | None = None, price: float | None = 6.0, size: str = "s"):
    return BilledDroplet("ib-demo-1", size, price, began, ended)


@pytest.mark.parametrize(
    ("droplets", "month", "total"),
    [
        ([], 0.0, 0.0),
        # A second costs a cent, and no more than its share afterwards.
        ([had(NOW - timedelta(seconds=1))], 0.01, 0.01),
        ([had(NOW - 112 * HOUR)], 1.0, 1.0),
        ([had(NOW - 200 * HOUR, NOW - 88 * HOUR)], 1.0, 1.0),
        # November began 492 hours ago; October is full after 672 of its 744 hours.
        ([had(datetime(2026, 10, 1, tzinfo=UTC))], 4.39, 10.39),
        ([had(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))], 0.0, 6.0),
        # Over the turn of a year.
        ([had(datetime(2025, 12, 31, 12, tzinfo=UTC), datetime(2026, 1, 1, 12, tzinfo=UTC))], 0.0, 0.21),
        # Two after each other are each billed, and at their own price.
        ([had(NOW - 300 * HOUR, NOW - 188 * HOUR, 12.0), had(NOW - 112 * HOUR)], 3.0, 3.0),
        # A price that isn't known is the size's of now, or nothing is said.
        ([had(NOW - 112 * HOUR, price=None, size="known")], 2.0, 2.0),
        ([had(NOW - 112 * HOUR, price=None)], None, None),
        ([had(datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 9, 2, tzinfo=UTC), None)], 0.0, None),
        # DigitalOcean's clock may be ahead of ours.
        ([had(NOW + timedelta(seconds=3))], 0.01, 0.01),
    ],
)
def test_the_cost_is_what_digitalocean_bills(droplets, month, total):
    assert cost(droplets, {"known": 12.0}, NOW) == Cost(month, total)


def test_a_month_is_utcs():
    # 23:30 on October 31 in New York is November in UTC.
    began = datetime.fromisoformat("2026-10-31T23:30:00-04:00")
    assert cost([had(began)], {}, began + 112 * HOUR) == Cost(1.0, 1.0)


@pytest.fixture
def fleet(engine, vault):
    return Fleet(engine, vault)


def bills(fleet, account):
    return fleet.repository.billed([account]).get(account, [])


def want(fleet, account, wanted):
    fleet.repository.want(fleet.of(account), wanted, "ada")
    fleet.passes(8)


def test_a_stopped_droplet_is_billed_and_a_hibernated_one_is_not(fleet):
    account = fleet.connect()
    assert bills(fleet, account) == []
    fleet.passes(5)
    [first] = bills(fleet, account)
    assert (first.size, first.price_monthly, first.ended_at) == ("s-1vcpu-512mb-10gb", 6.0, None)
    want(fleet, account, Wanted.STOPPED)
    assert fleet.status(account) == ("stopped", "powered_off")
    assert [b.ended_at for b in bills(fleet, account)] == [None]
    want(fleet, account, Wanted.HIBERNATED)
    assert fleet.status(account) == ("stopped", "hibernated")
    [ended] = bills(fleet, account)
    assert ended.ended_at is not None
    want(fleet, account, Wanted.RUNNING)
    assert [b.ended_at is None for b in bills(fleet, account)] == [False, True]
    want(fleet, account, Wanted.DELETED)
    assert [b.ended_at is None for b in bills(fleet, account)] == [False, False]
    assert bills(fleet, account)[0] == ended, "what is over doesn't change"


def test_a_droplet_that_was_destroyed_by_hand_is_replaced_and_billed_until_that_was_seen(fleet):
    account = fleet.connect()
    fleet.passes(5)
    del fleet.world.machines[fleet.of(account).do_droplet_id]
    fleet.advance(seconds=300)
    fleet.passes(10)
    assert [b.ended_at is None for b in bills(fleet, account)] == [False, True]


def test_an_older_revisions_tombstone_ends_the_bill_too(fleet, engine):
    account = fleet.connect()
    fleet.passes(5)
    number = fleet.of(account).do_droplet_id
    with engine.begin() as db:
        db.execute(
            text(
                "insert into fleet_tombstones (droplet_id, account_id, reason, created_at, gone_at)"
                " values (:n, :a, '', now(), now())"
            ),
            {"n": number, "a": account},
        )
    assert [b.ended_at is None for b in bills(fleet, account)] == [False]


def test_operators_seek_by_everything_at_once_and_literally(fleet):
    names = ["ada_1", "adax1", "eve%"]
    ids = [fleet.repository.connect(name, "demo", name, "s", f"u{n}").id for n, name in enumerate(names)]
    fleet.connect(user="ada_1", environment="paper", name="other")
    fleet.passes(5)

    def found(**sought):
        return [a.id for a in fleet.repository.all_accounts(Sought(**sought))]

    assert found(search="ADA_1", environment="demo") == [ids[0]]
    assert found(search="%") == [ids[2]]
    assert found(search=ids[1][-6:]) == [ids[1]]
    assert len(found(status="running", region="nyc1")) == 4
    assert found(status="running", region="fra1") == []
    [count] = fleet.repository.counts(Sought(search="ada_1"))
    assert (count.status, count.reason, count.accounts) == ("running", "", 2)
    assert count.since == min(fleet.of(a.id).status_since for a in fleet.repository.of_user("ada_1"))
    assert fleet.repository.regions() == ["nyc1"]


def test_troubles_are_told_once_as_they_begin_and_to_their_user_only(fleet):
    account = fleet.connect(user="ada")
    fleet.connect(user="eve", name="other")
    fleet.passes(5)
    for reason in ("second_factor", "second_factor", "", "second_factor"):
        row = fleet.of(account)
        fleet.repository.change(row, status_reason=reason)
        fleet.repository.note(fleet.of(account), "logs", "somebody looked")
    told = fleet.repository.troubles("ada", ["second_factor"], 10)
    assert [(t.account_id, t.reason) for t in told] == [(account, "second_factor")] * 2
    assert fleet.repository.troubles("eve", ["second_factor"], 10) == []


def test_any_instance_sees_who_runs_the_passes_and_what_the_last_one_found(engine):
    ours, other = FleetLease(engine, "test"), FleetLease(engine, "test")
    assert ours.look() is None
    assert ours.take()
    ours.note_pass({"accounts": 3})
    other.note_pass({"accounts": 99})
    seen, theirs = ours.look(), other.look()
    assert seen is not None
    assert theirs is not None
    assert (seen.held, seen.ours, theirs.held, theirs.ours) == (True, True, True, False)
    assert theirs.passed == {"accounts": 3}
    assert theirs.pass_age is not None
    assert 0 <= theirs.pass_age < 60
    ours.release()
    assert (after := other.look()) is not None
    assert (after.held, after.passed) == (False, {"accounts": 3})
