"""Decisions, one by one: what is wanted, recorded and seen, and the step that follows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from broker.fleet.account import Account, State, message_of
from broker.fleet.decide import NEVER_ENROLLED, Decision, Do, LogSays, Probe, Readiness, View, decide
from tests.fleet.world import NOW, account, ago, droplet, with_droplet

READY = Probe(Readiness.READY)
OUT = Probe(Readiness.NOT_LOGGED_IN)
AWAY = Probe(Readiness.GATEWAY_AWAY)

EMPTY = Probe(Readiness.NO_CREDENTIALS)
SILENT = Probe(Readiness.UNREACHABLE)
REFUSED = Probe(Readiness.NOT_LOGGED_IN, LogSays.REFUSED)


def ended(**changes: object) -> Account:
    """A gateway that was found to have ended two minutes ago."""
    values = {"status": "initializing", "status_reason": "gateway_lost", "status_since": ago(120),
              "login_since": ago(125)}  # fmt: skip
    return with_droplet(**values | changes)


def see(row, *known, **more: Any) -> Decision:
    return decide(View(row, NOW, known, **more))


def said(found: Decision) -> tuple[str, str, str]:
    return found.do, found.status, found.reason


TABLE = {
    # making one
    "nothing is there": (account(), [], {}, ("create", "provisioning", "creating")),
    "a create went unanswered a moment ago": (
        account(create_started_at=ago(10)), [], {}, ("nothing", "provisioning", "create_unknown")),
    "a create went unanswered long ago": (
        account(create_started_at=ago(121)), [], {}, ("create", "provisioning", "creating")),
    "it is too early to try again": (
        account(retry_at=ago(-5), status="error", status_reason="quota_reached"), [], {},
        ("nothing", "error", "quota_reached")),
    "it is time to try again": (
        account(retry_at=ago(1), status="error", status_reason="quota_reached"), [], {},
        ("create", "provisioning", "creating")),
    "three never enrolled": (account(create_attempts=3), [], {}, ("nothing", "error", "enrolment_timeout")),
    "the credentials were refused too often": (
        account(failed_logins=3, pushed_version=1), [], {}, ("nothing", "error", "login_locked")),
    "other credentials after that": (
        account(failed_logins=3, pushed_version=1, credentials_version=2), [], {},
        ("create", "provisioning", "creating")),
    "an unanswered create made one": (
        account(create_started_at=ago(10)), [droplet(7, "new")], {}, ("adopt", "provisioning", "creating")),
    "it isn't listed yet": (
        account(do_droplet_id=7, create_started_at=ago(5)), [], {}, ("nothing", "provisioning", "creating")),
    "it isn't listed any more": (with_droplet(), [], {}, ("confirm_gone", "provisioning", "creating")),
    "another held the credentials and isn't gone for sure": (
        account(credentials_droplet_id=6), [], {}, ("confirm_gone", "provisioning", "creating")),
    "it is being made": (
        account(do_droplet_id=7, create_started_at=ago(100)), [droplet(7, "new")], {},
        ("nothing", "provisioning", "creating")),
    "it has no address": (
        with_droplet(), [droplet(7, address="")], {}, ("nothing", "provisioning", "creating")),
    "DigitalOcean archived it": (
        with_droplet(), [droplet(7, "archive")], {}, ("nothing", "error", "droplet_archived")),
    # enrolment
    "it hasn't enrolled yet": (
        account(do_droplet_id=7, create_started_at=ago(100)), [droplet()], {},
        ("nothing", "initializing", "enrolling")),
    "it never enrolled": (
        account(do_droplet_id=7, create_started_at=ago(1801)), [droplet()], {},
        ("nothing", "provisioning", "creating")),
    "the certificate is another droplet's": (
        account(do_droplet_id=7, certificate_droplet_id=6, create_started_at=ago(9)), [droplet()], {},
        ("nothing", "initializing", "enrolling")),
    # credentials
    "it waits for its first push": (
        with_droplet(pushed_version=0, credentials_droplet_id=None, status="initializing"), [droplet()],
        {"probe": EMPTY}, ("push", "initializing", "gateway_starting")),
    "it was rebooted": (
        with_droplet(), [droplet()], {"probe": EMPTY}, ("push", "initializing", "gateway_starting")),
    "the credentials were changed": (
        with_droplet(credentials_version=2), [droplet()], {"probe": READY},
        ("push", "initializing", "gateway_starting")),
    "another droplet may hold the credentials": (
        with_droplet(credentials_droplet_id=6), [droplet()], {"probe": EMPTY},
        ("confirm_gone", "initializing", "gateway_starting")),
    "it shows another certificate": (
        with_droplet(credentials_version=2), [droplet()], {"probe": Probe(Readiness.CERTIFICATE_CHANGED)},
        ("nothing", "error", "certificate_changed")),
    "rebooted after a refused login": (
        with_droplet(failed_logins=1), [droplet()], {"probe": EMPTY}, ("nothing", "error", "login_failed")),
    "rebooted after the last refused login": (
        with_droplet(failed_logins=3), [droplet()], {"probe": EMPTY}, ("nothing", "error", "login_locked")),
    "started by its user after a refused login": (
        with_droplet(failed_logins=1, restart_wanted_at=ago(1)), [droplet()], {"probe": EMPTY},
        ("push", "initializing", "gateway_starting")),
    "started too soon after a refused login": (
        with_droplet(failed_logins=1, restart_wanted_at=ago(1), retry_at=ago(-60), status="error",
                     status_reason="login_failed"), [droplet()], {"probe": EMPTY},
        ("nothing", "error", "login_failed")),
    "started by its user although it is locked": (
        with_droplet(failed_logins=3, restart_wanted_at=ago(1)), [droplet()], {"probe": EMPTY},
        ("nothing", "error", "login_locked")),
    # readiness
    "it is ready": (with_droplet(), [droplet()], {"probe": READY}, ("nothing", "running", "")),
    "it wasn't probed": (with_droplet(), [droplet()], {}, ("nothing", "running", "")),
    "somebody else has the session": (
        with_droplet(), [droplet()], {"probe": Probe(Readiness.SESSION_TAKEN)},
        ("nothing", "error", "session_taken")),
    "a restart was asked for": (
        with_droplet(restart_wanted_at=ago(1)), [droplet()], {"probe": READY},
        ("restart", "initializing", "gateway_starting")),
    "a restart was asked for although it is locked": (
        with_droplet(restart_wanted_at=ago(1), failed_logins=3), [droplet()], {"probe": OUT},
        ("nothing", "error", "login_locked")),
    "the container starts": (
        with_droplet(status="initializing", login_since=ago(5)), [droplet()], {"probe": AWAY},
        ("nothing", "initializing", "gateway_starting")),
    "its container has ended": (
        with_droplet(), [droplet()], {"probe": AWAY}, ("nothing", "initializing", "gateway_lost")),
    "a live one's container has ended": (
        with_droplet(environment="live"), [droplet()], {"probe": AWAY},
        ("nothing", "initializing", "gateway_lost")),
    "it ended while it logged in": (
        with_droplet(status="initializing", status_reason="logging_in", login_since=ago(5)), [droplet()],
        {"probe": AWAY}, ("nothing", "initializing", "gateway_lost")),
    "it ended, and may come back by itself": (
        ended(status_since=ago(119)), [droplet()], {"probe": AWAY},
        ("nothing", "initializing", "gateway_lost")),
    "it ended, and stays away": (
        ended(), [droplet()], {"probe": AWAY}, ("restart", "initializing", "gateway_starting")),
    "it ended twice in an hour": (
        ended(action_since=ago(3599)), [droplet()], {"probe": AWAY},
        ("nothing", "initializing", "gateway_lost")),
    "it ended a second time after an hour": (
        ended(action_since=ago(3600)), [droplet()], {"probe": AWAY},
        ("restart", "initializing", "gateway_starting")),
    "a live one ended, and stays away": (
        ended(environment="live"), [droplet()], {"probe": AWAY}, ("nothing", "error", "login_timeout")),
    "it ended over a refused login": (
        ended(), [droplet()], {"probe": Probe(Readiness.GATEWAY_AWAY, LogSays.REFUSED)},
        ("nothing", "error", "login_failed")),
    "it ended after refused logins": (
        ended(failed_logins=1), [droplet()], {"probe": AWAY}, ("nothing", "initializing", "gateway_lost")),
    "it ended and nobody started it": (
        ended(action_since=ago(400), login_since=ago(301)), [droplet()], {"probe": AWAY},
        ("nothing", "error", "login_timeout")),
    "it is logging in": (
        with_droplet(status="initializing", login_since=ago(5)), [droplet()], {"probe": OUT},
        ("nothing", "initializing", "logging_in")),
    "the session isn't established": (
        with_droplet(status="initializing", login_since=ago(5)), [droplet()],
        {"probe": Probe(Readiness.NOT_ESTABLISHED)}, ("nothing", "initializing", "logging_in")),
    "a running gateway is asked too often": (
        with_droplet(status="running"), [droplet()], {"probe": Probe(Readiness.PACED)},
        ("nothing", "running", "")),
    "it never logged in": (
        with_droplet(status="initializing", login_since=ago(301)), [droplet()], {"probe": OUT},
        ("nothing", "error", "login_timeout")),
    "a live login waits for the phone": (
        with_droplet(environment="live", status="initializing", login_since=ago(301)), [droplet()],
        {"probe": OUT}, ("nothing", "initializing", "second_factor")),
    "nobody was at the phone": (
        with_droplet(environment="live", status="initializing", login_since=ago(601)), [droplet()],
        {"probe": OUT}, ("nothing", "error", "second_factor_timeout")),
    "a paper login that says it waits for the phone": (
        with_droplet(status="initializing", login_since=ago(301)), [droplet()],
        {"probe": Probe(Readiness.NOT_LOGGED_IN, LogSays.SECOND_FACTOR)},
        ("nothing", "initializing", "second_factor")),
    "the phone was found after all": (
        with_droplet(environment="live", status="error", status_reason="second_factor_timeout"), [droplet()],
        {"probe": READY}, ("nothing", "running", "")),
    "a live login was lost at midnight": (
        with_droplet(environment="live"), [droplet()], {"probe": OUT},
        ("nothing", "initializing", "second_factor")),
    "a paper login was lost": (
        with_droplet(), [droplet()], {"probe": OUT}, ("nothing", "initializing", "logging_in")),
    "IBKR refuses the login": (
        with_droplet(status="initializing", login_since=ago(5)), [droplet()], {"probe": REFUSED},
        ("nothing", "error", "login_failed")),
    "IBKR refuses it again": (
        with_droplet(status="initializing", failed_logins=2, login_since=ago(5)), [droplet()],
        {"probe": REFUSED}, ("nothing", "error", "login_locked")),
    "it still refuses": (
        with_droplet(status="error", status_reason="login_failed", failed_logins=1), [droplet()],
        {"probe": REFUSED}, ("nothing", "error", "login_failed")),
    # reachability
    "it doesn't answer": (
        with_droplet(), [droplet()], {"probe": SILENT}, ("nothing", "initializing", "unreachable")),
    "it doesn't answer for long": (
        with_droplet(status="initializing", status_reason="unreachable", status_since=ago(300)), [droplet()],
        {"probe": SILENT}, ("nothing", "error", "unreachable")),
    "it still doesn't answer": (
        with_droplet(status="error", status_reason="unreachable", status_since=ago(1)), [droplet()],
        {"probe": SILENT}, ("nothing", "error", "unreachable")),
    "it boots": (
        with_droplet(status="initializing", status_reason="powering_on", status_since=ago(30)), [droplet()],
        {"probe": SILENT}, ("nothing", "initializing", "powering_on")),
    # stop and start
    "stop": (with_droplet(wanted="stopped"), [droplet()], {}, ("shutdown", "stopped", "stopping")),
    "stop is on the way": (
        with_droplet(wanted="stopped", action_kind="shutdown", action_since=ago(30)), [droplet()], {},
        ("nothing", "stopped", "stopping")),
    "shutdown didn't help": (
        with_droplet(wanted="stopped", action_kind="shutdown", action_since=ago(61)), [droplet()], {},
        ("power_off", "stopped", "stopping")),
    "power_off didn't help": (
        with_droplet(wanted="stopped", action_kind="power_off", action_since=ago(61)), [droplet()], {},
        ("power_off", "stopped", "stopping")),
    "stop while something else runs": (
        with_droplet(wanted="stopped"), [droplet(locked=True)], {}, ("nothing", "stopped", "stopping")),
    "stop while it is made": (
        with_droplet(wanted="stopped"), [droplet(7, "new")], {}, ("nothing", "stopped", "stopping")),
    "stopped": (
        with_droplet(wanted="stopped"), [droplet(7, "off")], {}, ("nothing", "stopped", "powered_off")),
    "stopped without one": (
        account(wanted="stopped"), [], {}, ("forget", "stopped", "no_droplet")),
    "stopped and gone": (
        with_droplet(wanted="stopped"), [], {}, ("confirm_gone", "stopped", "stopping")),
    "start": (with_droplet(), [droplet(7, "off")], {}, ("power_on", "initializing", "powering_on")),
    "start is on the way": (
        with_droplet(action_kind="power_on", action_since=ago(5)), [droplet(7, "off")], {},
        ("nothing", "initializing", "powering_on")),
    "start during a stop": (
        with_droplet(action_kind="shutdown", action_since=ago(5)), [droplet(7, "off")], {},
        ("power_on", "initializing", "powering_on")),
    "start didn't help": (
        with_droplet(action_kind="power_on", action_since=ago(61)), [droplet(7, "off")], {},
        ("power_on", "initializing", "powering_on")),
    # without a droplet
    "hibernate": (with_droplet(wanted="hibernated"), [droplet()], {}, ("nothing", "stopped", "stopping")),
    "hibernated, says the list": (
        with_droplet(wanted="hibernated"), [], {"tombstones": {7}}, ("confirm_gone", "stopped", "stopping")),
    "hibernated": (account(wanted="hibernated"), [], {}, ("forget", "stopped", "hibernated")),
    "hibernate while a create is unanswered": (
        account(wanted="hibernated", create_started_at=ago(5)), [], {}, ("nothing", "stopped", "stopping")),
    "out of hours": (with_droplet(), [droplet()], {"rests": "resting"}, ("nothing", "stopped", "stopping")),
    "at rest": (account(), [], {"rests": "resting"}, ("forget", "stopped", "resting")),
    "delete": (with_droplet(wanted="deleted"), [droplet()], {}, ("nothing", "stopped", "deleting")),
    "delete what isn't listed yet": (
        account(wanted="deleted", do_droplet_id=7, create_started_at=ago(5)), [], {},
        ("nothing", "stopped", "deleting")),
    "deleted": (account(wanted="deleted"), [], {}, ("forget", "deleted", "")),
    # what nobody knows
    "an unknown one has our account's tag": (
        account(), [], {"strange": [droplet(9)]}, ("nothing", "error", "unknown_droplet")),
    "an unknown one, and ours has no credentials yet": (
        with_droplet(pushed_version=0, credentials_droplet_id=None), [droplet()],
        {"strange": [droplet(9)], "probe": EMPTY}, ("nothing", "error", "unknown_droplet")),
    "an unknown one, and ours works": (
        with_droplet(), [droplet()], {"strange": [droplet(9)], "probe": READY}, ("nothing", "running", "")),
    "an unknown one, and the account is hibernated": (
        account(wanted="hibernated"), [], {"strange": [droplet(9)]}, ("forget", "stopped", "hibernated")),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_the_step(case):
    row, known, more, expected = TABLE[case]
    assert said(see(row, *known, **more)) == expected


def test_doubles_are_removed_and_the_recorded_one_kept():
    found = see(with_droplet(8), droplet(7), droplet(8), droplet(9), probe=READY)
    assert [d for d, _why in found.remove] == [7, 9]
    assert found.status == State.RUNNING


def test_of_two_that_nobody_recorded_one_is_adopted():
    found = see(account(create_started_at=ago(5)), droplet(8), droplet(7))
    assert (found.do, found.droplet_id, [d for d, _ in found.remove]) == (Do.ADOPT, 7, [8])


def test_a_second_one_isnt_adopted_before_the_first_is_gone_for_sure():
    found = see(with_droplet(7), droplet(8))
    assert (found.do, found.droplet_id, found.remove) == (Do.CONFIRM_GONE, 7, ())


def test_what_was_condemned_stays_condemned_whatever_is_wanted_now():
    found = see(with_droplet(), droplet(), tombstones={7}, probe=READY)
    assert found.remove == ((7, ""),)
    assert found.do is Do.NOTHING


def test_deleting_takes_all_of_ours_and_nothing_else():
    found = see(with_droplet(wanted="deleted"), droplet(7), droplet(8), strange=[droplet(9)])
    assert [d for d, _why in found.remove] == [7, 8]


def test_one_that_never_enrolled_is_removed_with_that_reason():
    found = see(account(do_droplet_id=7, create_started_at=ago(1801)), droplet())
    assert found.remove == ((7, NEVER_ENROLLED),)


def test_one_that_never_enrolled_as_far_as_is_known_and_has_a_login_is_left_alone():
    late = with_droplet(certificate_droplet_id=None, create_started_at=ago(1801))
    found = decide(View(late, NOW, [droplet()], holds_login=True))
    assert (found.do, found.status, found.reason, found.remove) == ("nothing", "error", "unknown_droplet", ())


def test_one_whose_create_broke_down_isnt_waited_for_for_ever():
    found = see(account(do_droplet_id=7, create_started_at=ago(1801)), droplet(7, "new"))
    assert found.remove == ((7, NEVER_ENROLLED),)


def test_a_refused_login_is_counted_once():
    row = with_droplet(status="initializing", login_since=ago(5))
    assert see(row, droplet(), probe=REFUSED).login_failed
    told = with_droplet(status="error", status_reason="login_failed", failed_logins=1)
    assert not see(told, droplet(), probe=REFUSED).login_failed


def test_a_login_lost_later_gets_its_time():
    assert see(with_droplet(login_since=ago(90_000)), droplet(), probe=OUT).login_begins


WANTED = ("running", "stopped", "hibernated", "deleted")
PROBES = [None, *(Probe(r, log) for r in Readiness for log in LogSays)]


def every_view():
    rows = [
        (wanted, recorded, held, certified, environment, failed, status)
        for wanted, recorded, held, certified, environment, failed, status in itertools.product(
            WANTED, (None, 7), (None, 6, 7), (None, 7), ("demo", "live"), (0, 3), ("running", "error")
        )
    ]
    fleets: list[list[Any]] = [[], [droplet(7)], [droplet(7, "off")], [droplet(7), droplet(8)], [droplet(8)]]
    for wanted, recorded, held, certified, environment, failed, status in rows:
        row = account(
            wanted=wanted, do_droplet_id=recorded, credentials_droplet_id=held, environment=environment,
            certificate_droplet_id=certified, failed_logins=failed, pushed_version=1, status=status,
        )  # fmt: skip
        for known, tombs, strange, probe in itertools.product(
            fleets, ((), (7,)), ((), (droplet(9),)), PROBES
        ):
            yield View(row, NOW, known, strange, tombs, probe)


def test_whatever_is_seen_the_rules_hold():
    seen: set[str] = set()
    for view in every_view():
        found, row = decide(view), view.account
        seen.add(found.do)
        removed = {d for d, _why in found.remove}
        here = {d.id for d in view.known}
        assert removed <= here, "only what is ours and there is removed"
        assert message_of(found.status, found.reason)
        assert removed >= here & set(view.tombstones)
        if found.do is Do.CREATE:
            assert row.wanted == "running"
            assert not here - removed
            assert not view.strange
            assert row.do_droplet_id is None
            assert row.credentials_droplet_id is None
            assert row.failed_logins == 0
        if found.do in (Do.PUSH, Do.RESTART):
            assert row.wanted == "running"
            assert row.do_droplet_id == row.certificate_droplet_id == found.droplet_id
            assert row.credentials_droplet_id in (None, found.droplet_id)
            assert found.droplet_id not in removed
            assert row.failed_logins == 0
            assert not view.strange or row.credentials_droplet_id == found.droplet_id
        if found.do is Do.FORGET:
            assert not here
            assert row.do_droplet_id is None
            assert row.credentials_droplet_id is None
        if found.status is State.RUNNING and view.probe is not None:
            still = row.status == "running" and view.probe.readiness is Readiness.PACED
            assert view.probe.readiness is Readiness.READY or still
        if view.probe and view.probe.readiness is Readiness.CERTIFICATE_CHANGED:
            assert found.do not in (Do.PUSH, Do.RESTART)
    assert seen == set(Do) - {Do.RESTART, Do.POWER_OFF}, "those two are in the table"
