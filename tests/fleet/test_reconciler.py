"""Passes over a real database, with DigitalOcean and the agents in memory."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from broker.fleet.account import Wanted
from broker.fleet.decide import LogSays, Probe, Readiness
from broker.fleet.digitalocean import OutcomeUnknown, Refused, Throttled, Unavailable
from broker.fleet.enrolment import EnrolmentLater, EnrolmentRefused
from broker.fleet.repository import AlreadyConnected, Conflict, FleetLease, KeyReused
from tests.fleet.model import Effects, Fleet, LostError, World, pem_of, token_of


@pytest.fixture
def fleet(engine, vault):
    return Fleet(engine, vault)


def lost_answer() -> LostError:
    lost = LostError()
    lost.__cause__ = OutcomeUnknown("")
    return lost


@pytest.fixture
def running(fleet):
    """The id of an account that runs."""
    account = fleet.connect()
    fleet.passes(5)
    assert fleet.status(account) == ("running", "")
    return account


def test_from_connect_to_running(fleet):
    account = fleet.connect()
    seen = [fleet.status(account)]
    for _ in range(6):
        fleet.pass_()
        if fleet.status(account) != seen[-1]:
            seen.append(fleet.status(account))
    assert seen == [
        ("provisioning", ""),
        ("provisioning", "creating"),
        ("initializing", "gateway_starting"),
        ("running", ""),
    ]
    found = fleet.of(account)
    assert (found.do_droplet_id, found.do_server_status, found.do_region) == (101, "active", "nyc1")
    assert found.do_ip_address == "10.0.0.101"
    assert found.do_last_status_check is not None
    assert '"price_monthly": 6.0' in found.custom_data
    assert fleet.world.machines[101].credentials == ("ib", "secret")
    assert fleet.world.problems == []


def test_a_pass_over_what_runs_costs_one_list_and_one_probe_each(fleet, running):
    del fleet.world.calls[:]
    told = fleet.pass_()
    assert fleet.world.calls == ["list"]
    assert told.probes == {"ready": 1}
    assert told.moving == 0


def test_a_pass_asks_steady_gateways_for_a_time_and_each_in_its_turn(fleet, monkeypatch):
    accounts = [fleet.connect(user=f"user{n}", name=f"ib{n}") for n in range(5)]
    fleet.passes(5)
    assert {fleet.status(account) for account in accounts} == {("running", "")}
    asked = []
    probe = fleet.world.probe

    def slowly(endpoint):
        asked.append(endpoint.address)
        time.sleep(0.05)
        return probe(endpoint)

    monkeypatch.setattr(fleet.world, "probe", slowly)
    fleet.settings = replace(fleet.settings, probes=1, steady_seconds=0.12)
    fleet.start()
    assert 1 <= fleet.pass_().probes["ready"] < 5
    while len(asked) < 5:
        fleet.pass_()
    assert len(set(asked[:5])) == 5

    # Within as many passes as it takes, a loss is seen whosever it is.
    for account in accounts:
        fleet.world.readiness[account] = Probe(Readiness.NOT_LOGGED_IN)
    del asked[:]
    while len(set(asked)) < 5:
        fleet.pass_()
    assert {fleet.status(account)[0] for account in accounts} == {"initializing"}


def test_what_somebody_has_asked_for_waits_for_no_turn(fleet):
    accounts = [fleet.connect(user=f"user{n}", name=f"ib{n}") for n in range(3)]
    fleet.passes(5)
    fleet.settings = replace(fleet.settings, steady_seconds=-1)
    fleet.start()
    assert fleet.pass_().probes.total() == 0
    fleet.repository.want_restart(fleet.of(accounts[2]), "ada")
    assert fleet.pass_().probes == {"ready": 1}
    assert fleet.of(accounts[2]).restart_wanted_at is None


@pytest.mark.parametrize("lost", [0, 1], ids=["answered", "its answer is lost"])
def test_a_paper_gateway_that_ended_is_started_once_by_itself(fleet, running, lost):
    away = Probe(Readiness.GATEWAY_AWAY)
    fleet.world.readiness[running] = away
    fleet.pass_()
    assert fleet.status(running) == ("initializing", "gateway_lost")
    fleet.pass_()
    assert fleet.world.restarts == 0, "IBeam may start it itself"
    fleet.advance(seconds=121)
    fleet.world.lose_answers = lost
    fleet.pass_()
    fleet.pass_()
    assert fleet.world.restarts == 1
    assert fleet.status(running) == ("initializing", "gateway_starting")
    del fleet.world.readiness[running]
    fleet.passes(3)
    assert fleet.status(running) == ("running", "")

    # A second loss within the hour waits for a person, who isn't kept from it.
    fleet.world.readiness[running] = away
    fleet.pass_()
    fleet.advance(seconds=301)
    fleet.passes(3)
    assert (fleet.world.restarts, fleet.status(running)) == (1, ("error", "login_timeout"))
    del fleet.world.readiness[running]
    fleet.repository.want(fleet.of(running), Wanted.RUNNING, "ada")
    fleet.passes(3)
    assert (fleet.world.restarts, fleet.status(running)) == (2, ("running", ""))


def test_user_data_holds_no_credentials(fleet):
    fleet.repository.connect("ada", "demo", "ib-user-name", "ib-pass-word", "ada")
    fleet.pass_()
    [machine] = fleet.world.machines.values()
    assert "ib-user-name" not in machine.user_data
    assert "ib-pass-word" not in machine.user_data


def test_connecting_twice_is_one_account(fleet):
    first = fleet.connect(idempotency_key="k1")
    with pytest.raises(AlreadyConnected) as caught:
        fleet.connect()
    assert caught.value.account.id == first
    with pytest.raises(AlreadyConnected):
        fleet.connect(name="IB")
    with pytest.raises(AlreadyConnected):
        fleet.connect(idempotency_key="k1")
    with pytest.raises(KeyReused):
        fleet.connect(name="other", idempotency_key="k1")
    assert fleet.connect(user="bob", idempotency_key="k1") != first
    assert fleet.connect(environment="paper") != first


def test_connecting_at_the_same_time_is_one_account(fleet):
    def connect(number):
        try:
            return fleet.connect(name="same" if number % 2 else f"n{number}")
        except AlreadyConnected as there:
            return there.account.id

    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(connect, range(16)))
    assert len(set(ids)) == 9
    found = [fleet.of(one) for one in set(ids)]
    assert len({(a.username, a.username_index) for a in found}) == 9


def test_users_whose_names_sanitise_alike_have_droplets_of_their_own(fleet):
    first = fleet.repository.connect("ada.l", "demo", "x", "p", "ada-l").id
    second = fleet.repository.connect("ada-l", "demo", "x", "p", "ada-l").id
    fleet.passes(5)
    assert [fleet.of(a).do_droplet_name for a in (first, second)] == ["ada-l-ib-demo-1", "ada-l-ib-demo-2"]
    assert len(fleet.alive(first)) == len(fleet.alive(second)) == 1
    assert fleet.repository.of_user("ada.l")[0].id == first


@pytest.mark.parametrize(
    ("failure", "status", "reason"),
    [
        (Throttled(5), "provisioning", "digitalocean_busy"),
        (Refused("no"), "error", "digitalocean_refused"),
        (OutcomeUnknown(""), "provisioning", "create_unknown"),
    ],
)
def test_a_create_that_fails_is_said_and_tried_again_later(fleet, failure, status, reason):
    account = fleet.connect()
    fleet.world.fail["create"] = [failure]
    fleet.pass_()
    assert fleet.status(account) == (status, reason)
    fleet.pass_()
    assert fleet.world.calls.count("create") == 1
    fleet.advance(seconds=700)
    fleet.passes(5)
    assert fleet.status(account) == ("running", "")
    assert fleet.world.calls.count("create") == 2


def test_a_quota_is_said_and_nothing_is_sent(fleet):
    account = fleet.connect()
    fleet.world.limit = 0
    fleet.passes(2)
    assert fleet.status(account) == ("error", "quota_reached")
    assert "create" not in fleet.world.calls
    fleet.world.limit = 1
    second = fleet.connect(name="second")
    fleet.advance(seconds=301)
    fleet.passes(5)
    assert sorted([fleet.status(account)[0], fleet.status(second)[0]]) == ["error", "running"]


@pytest.mark.parametrize("lag", [False, True])
def test_a_create_whose_answer_was_lost_makes_no_second_droplet(fleet, lag):
    account = fleet.connect()
    fleet.world.fail["create"] = [lost_answer()]
    fleet.world.lag = lag
    fleet.reconciler.run_pass()
    assert fleet.status(account) == ("provisioning", "create_unknown")
    fleet.reconciler.run_pass()
    fleet.passes(5)
    assert fleet.status(account) == ("running", "")
    assert fleet.world.calls.count("create") == 1


def test_a_droplet_that_shows_up_after_its_successor_is_removed_within_one_pass(fleet):
    account = fleet.connect()
    fleet.world.fail["create"] = [lost_answer()]
    fleet.world.lag = True
    fleet.reconciler.run_pass()
    fleet.advance(seconds=130)
    fleet.reconciler.run_pass()
    fleet.reconciler.run_pass()
    assert len(fleet.world.machines) == 2
    fleet.world.proceed(fleet.enroller)
    fleet.pass_()
    assert len(fleet.world.machines) == 1
    fleet.passes(4)
    assert fleet.status(account) == ("running", "")
    assert fleet.world.problems == []


def test_a_list_that_fails_is_said_to_who_waits(fleet, running):
    second = fleet.connect(name="second")
    fleet.world.fail["list"] = [Unavailable("")]
    assert fleet.pass_().problem == "digitalocean_away"
    assert fleet.status(second) == ("provisioning", "digitalocean_away")
    assert fleet.status(running) == ("running", "")
    fleet.passes(5)
    assert fleet.status(second) == ("running", "")


def test_a_droplet_that_was_deleted_by_hand_comes_back(fleet, running):
    del fleet.world.machines[101]
    fleet.passes(6)
    assert fleet.status(running) == ("running", "")
    assert fleet.alive(running) == [102]


def test_stop_and_start_keep_the_droplet(fleet, running):
    fleet.repository.want(fleet.of(running), Wanted.STOPPED, "ada")
    fleet.passes(3)
    assert fleet.status(running) == ("stopped", "powered_off")
    assert "billing" in fleet.of(running).message
    fleet.repository.want(fleet.of(running), Wanted.RUNNING, "ada")
    fleet.passes(4)
    assert fleet.status(running) == ("running", "")
    assert fleet.alive(running) == [101]
    assert fleet.world.pushes == 2


def test_shutdown_that_doesnt_help_becomes_power_off(fleet, running):
    machine = fleet.world.machines[101]
    asked = []
    fleet.world.act = lambda number, kind, priority: asked.append(kind) or 5
    fleet.start()
    fleet.repository.want(fleet.of(running), Wanted.STOPPED, "ada")
    fleet.passes(2)
    assert (asked, machine.droplet.status) == (["shutdown"], "active")
    fleet.advance(seconds=61)
    fleet.pass_()
    assert asked == ["shutdown", "power_off"]


def test_an_action_that_errs_is_in_the_history_and_repeated(fleet, running):
    fleet.world.act = lambda number, kind, priority: 5
    fleet.world.action_status = lambda number, action, priority: "errored"
    fleet.start()
    fleet.repository.want(fleet.of(running), Wanted.STOPPED, "ada")
    for _ in range(3):
        fleet.pass_()
        fleet.advance(seconds=61)
    kinds = [event.kind for _number, event in fleet.repository.history(running)]
    assert "action_failed" in kinds


def test_hibernate_removes_the_droplet_and_start_makes_another(fleet, running):
    fleet.repository.want(fleet.of(running), Wanted.HIBERNATED, "ada")
    fleet.passes(3)
    assert fleet.status(running) == ("stopped", "hibernated")
    assert fleet.world.machines == {}
    fleet.repository.want(fleet.of(running), Wanted.RUNNING, "ada")
    fleet.passes(5)
    assert fleet.status(running) == ("running", "")
    assert fleet.world.problems == []


def test_delete_removes_droplet_and_credentials_and_the_name_is_free_again(fleet, running):
    fleet.repository.want(fleet.of(running), Wanted.DELETED, "ada")
    assert fleet.repository.of_user("ada") == []
    fleet.passes(3)
    assert fleet.status(running) == ("deleted", "")
    assert fleet.world.machines == {}
    with fleet.engine.connect() as db:
        row = db.execute(
            text("select sealed_data_key, sealed_password, sealed_username from broker_accounts")
        ).one()
    assert tuple(row) == (None, None, None)
    assert fleet.connect() != running


def test_other_credentials_are_pushed_and_the_droplet_stays(fleet, running):
    fleet.repository.set_credentials(fleet.of(running), "ib", "changed", "ada")
    fleet.passes(2)
    assert fleet.world.machines[101].credentials == ("ib", "changed")
    assert fleet.status(running) == ("running", "")


def test_a_reboot_is_another_push(fleet, running):
    fleet.world._empty(fleet.world.machines[101])
    fleet.passes(2)
    assert fleet.status(running) == ("running", "")
    assert fleet.world.pushes == 2


def test_a_restart_restarts_the_gateway_once(fleet, running):
    fleet.repository.want_restart(fleet.of(running), "ada")
    fleet.passes(3)
    assert fleet.world.calls.count("restart") == 1
    assert fleet.status(running) == ("running", "")


def test_a_restart_whose_answer_was_lost_is_one_restart_for_the_gateway(fleet, running):
    fleet.world.lose_answers = 2
    fleet.repository.want_restart(fleet.of(running), "ada")
    fleet.repository.want_restart(fleet.of(running), "ada")  # pressed twice
    fleet.passes(4)
    assert (fleet.world.calls.count("restart"), fleet.world.restarts) == (3, 1)
    assert fleet.status(running) == ("running", "")
    fleet.repository.want_restart(fleet.of(running), "ada")
    fleet.passes(3)
    assert fleet.world.restarts == 2, "another one is another one"


def test_a_new_restart_doesnt_go_by_the_number_of_an_old_one(fleet, running):
    numbers = []
    for _ in range(2):
        fleet.repository.want_restart(fleet.of(running), "ada")
        account, number, _now = fleet.repository.begin_push(fleet.of(running), restart=True)
        again = fleet.repository.begin_push(account, restart=True)
        assert again[1] == number, "it isn't known to be done"
        fleet.repository.change(again[0], restart_wanted_at=None)  # given up, as after a refused login
        numbers.append(number)
    assert numbers[0] < numbers[1]


def test_a_restarts_number_is_the_one_that_is_kept(fleet, running):
    account = fleet.of(running)
    for _ in range(500):  # taken from a clock that went on between two readings, it differed once in a while
        account = fleet.repository.change(account, action_kind=None, action_id=None)
        account, number, _now = fleet.repository.begin_push(account, restart=True)
        assert account.action_id == number


def test_refused_logins_pause_and_then_lock_and_nothing_logs_in_by_itself(fleet, running):
    fleet.world.readiness[running] = Probe(Readiness.NOT_LOGGED_IN, LogSays.REFUSED)
    fleet.pass_()
    for tries in (1, 2, 3):
        fleet.passes(3)
        reason = "login_failed" if tries < 3 else "login_locked"
        assert fleet.status(running) == ("error", reason)
        assert fleet.of(running).failed_logins == tries
        before = (fleet.world.pushes, fleet.world.calls.count("restart"))
        fleet.world._empty(fleet.world.machines[101])  # a reboot is no way around it
        fleet.passes(2)
        fleet.repository.want_restart(fleet.of(running), "ada")
        fleet.passes(2)
        assert (fleet.world.pushes, fleet.world.calls.count("restart")) == before, "too soon"
        fleet.advance(hours=1)
        fleet.passes(3)
    assert fleet.world.pushes == 3, "the first, and two starts after a pause"
    assert [kind for kind, _ in fleet.alarms] == ["login_failed", "login_failed", "login_locked"]
    del fleet.world.readiness[running]
    fleet.repository.set_credentials(fleet.of(running), "ib", "right", "ada")
    fleet.passes(3)
    assert fleet.status(running) == ("running", "")
    assert fleet.of(running).failed_logins == 0


def test_a_live_login_waits_for_its_second_factor_alerts_once_and_gives_up(fleet):
    account = fleet.connect(environment="live")
    fleet.passes(3)
    fleet.world.readiness[account] = Probe(Readiness.NOT_LOGGED_IN)
    fleet.passes(3)
    assert fleet.status(account) == ("initializing", "second_factor")
    assert [kind for kind, _ in fleet.alarms] == ["second_factor"]
    fleet.advance(seconds=601)
    fleet.passes(3)
    assert fleet.status(account) == ("error", "second_factor_timeout")
    assert fleet.world.pushes == 1
    assert "restart" not in fleet.world.calls
    fleet.repository.want(fleet.of(account), Wanted.RUNNING, "ada")
    fleet.pass_()
    assert fleet.world.calls.count("restart") == 1
    fleet.pass_()
    assert fleet.status(account) == ("initializing", "second_factor")
    del fleet.world.readiness[account]
    fleet.passes(2)
    assert fleet.status(account) == ("running", "")


def test_another_certificate_gets_nothing_and_alarms(fleet, running):
    fleet.world.machines[101].certificate = "0" * 64
    fleet.repository.set_credentials(fleet.of(running), "ib", "changed", "ada")
    fleet.passes(3)
    assert fleet.status(running) == ("error", "certificate_changed")
    assert fleet.world.machines[101].credentials == ("ib", "secret")
    assert [kind for kind, _ in fleet.alarms] == ["certificate_changed"]


def test_unknown_droplets_are_quarantined_and_never_touched(fleet, running):
    tags = ("stack:test", "manager:service")
    others = [
        fleet.world.add_foreign("stack:other", "manager:service"),
        fleet.world.add_foreign("stack:test", "manager:pulumi", f"account:{running}"),
    ]
    unknown = [
        fleet.world.add_foreign(*tags),
        fleet.world.add_foreign(*tags, "account:ib-demo-ffffffff"),
        fleet.world.add_foreign(*tags, "account:ib-demo-ffffffff", "enrolment:00"),
    ]
    fleet.passes(3)
    assert set(fleet.world.machines) == {101, *others, *unknown}
    assert fleet.world.problems == []
    with fleet.engine.connect() as db:
        found = set(db.execute(text("select droplet_id from fleet_quarantine")).scalars())
    assert found == set(unknown)
    assert len([kind for kind, _ in fleet.alarms if kind == "unknown_droplet"]) == 3
    fleet.repository.condemn_unknown("", unknown[0], "an operator said so")
    fleet.world.foreign.discard(unknown[0])
    fleet.pass_()
    assert unknown[0] not in fleet.world.machines


def test_an_unknown_droplet_of_an_account_keeps_a_second_one_from_being_made(fleet):
    account = fleet.connect()
    fleet.world.add_foreign("stack:test", "manager:service", f"account:{account}", "enrolment:ff")
    fleet.passes(3)
    assert fleet.status(account) == ("error", "unknown_droplet")
    assert "create" not in fleet.world.calls


def test_an_empty_database_deletes_nothing(fleet, running, engine):
    with engine.begin() as db:
        db.execute(
            text("truncate broker_accounts, broker_account_events, enrolments, fleet_tombstones cascade")
        )
    fleet.start()
    fleet.passes(3)
    assert 101 in fleet.world.machines
    assert fleet.world.deleted == []


def test_deletions_in_a_pass_are_capped(fleet):
    accounts = [fleet.connect(name=f"n{n}") for n in range(13)]
    fleet.passes(3)
    for account in accounts:
        fleet.repository.want(fleet.of(account), Wanted.DELETED, "ada")
    told = fleet.pass_()
    assert (told.deleted, told.held_back, len(fleet.world.machines)) == (10, 3, 3)
    fleet.passes(3)
    assert fleet.world.machines == {}


def test_droplets_that_never_enrol_are_replaced_some_times(fleet):
    account = fleet.connect()
    for _ in range(4):
        for _ in range(4):
            fleet.reconciler.run_pass()
            fleet.world.proceed(None)
        fleet.advance(seconds=1900)
    fleet.reconciler.run_pass()
    fleet.reconciler.run_pass()
    assert fleet.status(account) == ("error", "enrolment_timeout")
    assert fleet.world.calls.count("create") == 3
    assert fleet.world.machines == {}
    fleet.repository.want(fleet.of(account), Wanted.RUNNING, "ada")
    fleet.passes(6)
    assert fleet.status(account) == ("running", "")


def enrolling(fleet):
    account = fleet.connect()
    fleet.reconciler.run_pass()
    fleet.world.proceed(None)
    fleet.reconciler.run_pass()
    return account, token_of(fleet.world.machines[101].user_data)


def test_a_stolen_token_yields_nothing_and_alarms(fleet):
    account, token = enrolling(fleet)
    for wrong in (
        (account, token, pem_of(666)),
        (account, "guessed", pem_of(101)),
        ("ib-demo-00000000", token, pem_of(101)),
        (account, token, "no certificate"),
        (account, token, pem_of(101) + pem_of(666)),
    ):
        with pytest.raises(EnrolmentRefused):
            fleet.enroller.enrol(*wrong)
    assert [kind for kind, _ in fleet.alarms] == ["enrolment_refused"] * 5
    assert fleet.of(account).certificate_sha256 is None
    fleet.enroller.enrol(account, token, pem_of(101))
    fleet.enroller.enrol(account, token, pem_of(101))  # its first answer got lost
    with pytest.raises(EnrolmentRefused):
        fleet.enroller.enrol(account, token, pem_of(666))
    assert token not in str(fleet.alarms)


def test_an_expired_token_is_refused(fleet):
    account, token = enrolling(fleet)
    fleet.advance(seconds=1801)
    with pytest.raises(EnrolmentRefused):
        fleet.enroller.enrol(account, token, pem_of(101))


def test_a_token_of_a_double_isnt_the_adopted_droplets(fleet):
    account = fleet.connect()
    fleet.world.fail["create"] = [lost_answer()]
    fleet.world.lag = True
    fleet.reconciler.run_pass()
    fleet.advance(seconds=130)
    fleet.reconciler.run_pass()
    for machine in fleet.world.machines.values():
        machine.droplet = type(machine.droplet)(**{
            **{f: getattr(machine.droplet, f) for f in machine.droplet.__slots__},
            "status": "active", "address": f"10.0.0.{machine.droplet.id}",
        })  # fmt: skip
        machine.certificate = ""
    double = fleet.world.machines[101]
    with pytest.raises(EnrolmentRefused):
        fleet.enroller.enrol(account, token_of(double.user_data), pem_of(101))
    assert fleet.of(account).do_droplet_id == 102


def test_who_asks_too_early_is_told_to_come_back(fleet):
    account = fleet.connect()
    fleet.world.fail["create"] = [lost_answer()]
    fleet.reconciler.run_pass()
    token = token_of(fleet.world.machines[101].user_data)
    with pytest.raises(EnrolmentLater):
        fleet.enroller.enrol(account, token, pem_of(101))
    fleet.reconciler.run_pass()
    with pytest.raises(EnrolmentLater):
        fleet.enroller.enrol(account, token, pem_of(101))


def test_one_instance_at_a_time_and_the_other_after_its_lease(fleet, running):
    other = fleet.make(Effects(), FleetLease(fleet.engine, "test"))
    fleet.pass_()
    assert other.run_pass() is None
    fleet.lease.release()
    assert other.run_pass() is not None
    assert fleet.reconciler.run_pass() is None


def test_a_holder_that_froze_before_a_create_makes_at_most_a_double_without_credentials(fleet):
    account = fleet.connect()
    frozen, go_on = threading.Event(), threading.Event()
    world = fleet.world

    class Freezing(World):
        def __getattribute__(self, name):
            return object.__getattribute__(self, name) if name == "create" else getattr(world, name)

        def create(self, spec, priority):
            frozen.set()
            assert go_on.wait(30)
            return world.create(spec, priority)

    sleeper = fleet.make(Effects(), FleetLease(fleet.engine, "test"), Freezing())
    thread = threading.Thread(target=sleeper.run_pass)
    thread.start()
    assert frozen.wait(30)
    fleet.advance(seconds=130)
    fleet.start()
    fleet.passes(5)
    assert fleet.status(account) == ("running", "")
    go_on.set()
    thread.join(30)
    assert len(world.machines) == 2
    fleet.passes(1)
    assert len(world.machines) == 1
    fleet.passes(2)
    assert fleet.status(account) == ("running", "")
    assert world.problems == []


def test_who_lost_the_lease_and_wakes_up_doesnt_get_it_back_within_its_pass(fleet, running):
    first, second = FleetLease(fleet.engine, "x", seconds=60), FleetLease(fleet.engine, "x", seconds=60)
    assert first.take()
    with fleet.engine.begin() as db:
        db.execute(text("update fleet_lease set expires_at = clock_timestamp()"))
    assert first.renew(), "nobody has had it since"
    with fleet.engine.begin() as db:
        db.execute(text("update fleet_lease set expires_at = clock_timestamp()"))
    assert second.take()
    second.release()
    assert not first.renew(), "what it saw is old, free as the lease is"
    assert not first.held()
    assert first.take(), "for another pass"


def test_a_droplet_isnt_condemned_for_what_was_wanted_before(fleet, running):
    condemn = fleet.repository.condemn

    def start_meanwhile(account, droplet_id, reason):
        fleet.repository.want(fleet.of(running), Wanted.RUNNING, "ada")
        return condemn(account, droplet_id, reason)

    fleet.repository.want(fleet.of(running), Wanted.HIBERNATED, "ada")
    fleet.repository.condemn = start_meanwhile
    fleet.start()
    fleet.pass_()
    del fleet.repository.condemn
    fleet.start()
    fleet.passes(3)
    assert fleet.status(running) == ("running", "")
    assert (fleet.alive(running), fleet.world.deleted) == ([101], [])


def test_a_write_of_what_was_read_before_another_wrote_is_refused(fleet, running):
    old = fleet.of(running)
    fleet.repository.want(old, Wanted.STOPPED, "ada")
    with pytest.raises(Conflict):
        fleet.repository.change(old, status="error")
    with pytest.raises(Conflict):
        fleet.repository.begin_push(old)


def test_hours_and_idleness_hibernate_and_orders_prevent_it(fleet, running):
    account = fleet.of(running)
    fleet.repository.change(account, policy="idle:30")
    fleet.passes(2)
    assert fleet.status(running) == ("running", "")
    fleet.advance(minutes=31)
    for fleet.world.working in (True, None):
        fleet.passes(2)
        assert fleet.status(running) == ("running", ""), "orders may be working"
    fleet.world.working = False
    fleet.passes(4)
    assert fleet.status(running) == ("stopped", "idle")
    assert fleet.world.machines == {}
    fleet.repository.want(fleet.of(running), Wanted.RUNNING, "ada")
    fleet.passes(5)
    assert fleet.status(running) == ("running", "")


def test_a_use_while_a_pass_looks_keeps_the_droplet(fleet, running, monkeypatch):
    """An order that leaves right after the gateway was asked for working orders mustn't lose its gateway."""
    fleet.repository.change(fleet.of(running), policy="idle:30")
    fleet.passes(2)
    fleet.advance(minutes=31)

    def looked(_endpoint):
        fleet.repository.touch(running)
        return False

    monkeypatch.setattr(fleet.world, "working_orders", looked)
    fleet.passes(3)
    assert fleet.status(running) == ("running", "")
    assert set(fleet.world.machines) == {101}
    assert fleet.repository.tombstones() == set()


def test_the_history_tells_all_that_happened(fleet, running):
    fleet.repository.want(fleet.of(running), Wanted.STOPPED, "ada")
    fleet.passes(3)
    history = fleet.repository.history(running)
    told = [(e.kind, e.status, e.reason) for _number, e in reversed(history)]
    assert told[0] == ("connect", "provisioning", "")
    assert ("stopped", "running", "") in told
    assert told[-1] == ("status", "stopped", "powered_off")
    assert history[0][1].at.tzinfo is not None
    assert datetime.now(UTC) > history[0][1].at
    page = fleet.repository.history(running, limit=2, before=history[0][0])
    assert [number for number, _ in page] == [number for number, _ in history[1:3]]
