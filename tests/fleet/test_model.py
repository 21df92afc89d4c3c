"""Whatever users do and whatever breaks, in any order: nothing is doubled, lost, or taken from others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

from broker.fleet.account import Wanted
from broker.fleet.digitalocean import OutcomeUnknown, Throttled, Unavailable
from broker.fleet.repository import AlreadyConnected, Conflict
from broker.fleet.vault import LocalKeyWrapper, Vault
from tests.fleet.conftest import clear
from tests.fleet.model import Fleet, Killed, LostError

TABLES = ("broker_accounts", "broker_account_events", "enrolments", "fleet_tombstones", "fleet_quarantine")
TAGS = ("stack:test", "manager:service")
WHICH = st.integers(0, 3)


class Schedule(RuleBasedStateMachine):
    """Four accounts' lives, with faults, deaths, intruders and a restored database."""

    engine: Engine

    @initialize()
    def begin(self) -> None:
        clear(self.engine)
        self.fleet = Fleet(self.engine, Vault(LocalKeyWrapper({"k1": b"1" * 32})))
        # Begun in the middle of life: most of what can go wrong needs droplets.
        self.accounts = [self.fleet.connect(name=f"n{which}") for which in range(3)]
        self.fleet.passes(4)
        self.backup: dict[str, list[Any]] | None = None

    def account(self, which: int) -> Any:
        return self.fleet.repository.get(self.accounts[which % len(self.accounts)])

    @rule(which=WHICH)
    def connect(self, which: int) -> None:
        try:
            self.accounts.append(self.fleet.connect(name=f"n{which}"))
        except AlreadyConnected:
            return

    @precondition(lambda self: self.accounts)
    @rule(which=WHICH, wanted=st.sampled_from(Wanted))
    def want(self, which: int, wanted: Wanted) -> None:
        account = self.account(which)
        if account is not None and account.wanted != Wanted.DELETED:
            self.fleet.repository.want(account, wanted, "ada")

    @precondition(lambda self: self.accounts)
    @rule(which=WHICH, restart=st.booleans())
    def restart_or_change(self, which: int, restart: bool) -> None:
        account = self.account(which)
        if account is None or account.wanted == Wanted.DELETED:
            return
        if restart:
            self.fleet.repository.want_restart(account, "ada")
        else:
            self.fleet.repository.set_credentials(account, account.id, "changed", "ada")

    @rule()
    def run_pass(self) -> None:
        self.fleet.reconciler.run_pass()

    @rule()
    def whole_pass(self) -> None:
        self.fleet.pass_()

    @rule(kill_at=st.integers(1, 25))
    def die_in_a_pass(self, kill_at: int) -> None:
        self.fleet.start()
        self.fleet.effects.kill_at = kill_at
        try:
            self.fleet.pass_()
        except Killed:
            pass
        self.fleet.start()

    @rule()
    def droplets_come_up(self) -> None:
        self.fleet.world.proceed(self.fleet.enroller)

    @rule(fault=st.sampled_from(["lost", "throttled", "away", "list", "delete", "push"]))
    def break_something(self, fault: str) -> None:
        lost = LostError()
        lost.__cause__ = OutcomeUnknown("")
        where, what = {
            "lost": ("create", lost),
            "throttled": ("create", Throttled(5)),
            "away": ("create", OutcomeUnknown("")),
            "list": ("list", Unavailable("")),
            "delete": ("delete", OutcomeUnknown("")),
            "push": ("get", Unavailable("")),
        }[fault]
        self.fleet.world.fail.setdefault(where, []).append(what)

    @rule(lag=st.booleans())
    def lists_lag(self, lag: bool) -> None:
        self.fleet.world.lag = lag

    @rule(seconds=st.sampled_from([1, 61, 130, 4000]))
    def time_passes(self, seconds: int) -> None:
        # A list lags by seconds, and what runs for long has come up.
        if seconds > 100:
            self.fleet.world.proceed(self.fleet.enroller)
        self.fleet.advance(seconds=seconds)

    @precondition(lambda self: self.fleet.world.machines)
    @rule(which=WHICH, reboot=st.booleans())
    def somebody_touches_a_droplet(self, which: int, reboot: bool) -> None:
        machines = self.fleet.world.machines
        number = sorted(machines)[which % len(machines)]
        if reboot:
            self.fleet.world._empty(machines[number])
        elif number not in self.fleet.world.foreign:
            del machines[number]

    @rule(which=WHICH, known=st.booleans())
    def an_intruder_appears(self, which: int, known: bool) -> None:
        if len(self.fleet.world.foreign) < 3:
            of = [f"account:{self.accounts[which % len(self.accounts)]}"] if known and self.accounts else []
            self.fleet.world.add_foreign(*TAGS, *of, "enrolment:ffff")
            self.fleet.world.add_foreign("stack:other", "manager:service", *of)

    @rule()
    def back_up(self) -> None:
        with self.engine.connect() as db:
            self.backup = {
                table: [dict(row._mapping) for row in db.execute(text(f"select * from {table}"))]  # noqa: S608
                for table in TABLES
            }

    @precondition(lambda self: self.backup)
    @rule()
    def restore(self) -> None:
        assert self.backup is not None
        self.fleet.world.proceed(self.fleet.enroller)  # what is seconds old is listed by then
        with self.engine.begin() as db:
            db.execute(text(f"truncate {', '.join(TABLES)} cascade"))
            for table, rows in self.backup.items():
                for row in rows:
                    names = ", ".join(row)
                    db.execute(
                        text(f"insert into {table} ({names}) values ({', '.join(':' + n for n in row)})"),  # noqa: S608
                        row,
                    )
            known = set(db.execute(text("select id from enrolments")).scalars())
        self.fleet.start()
        for number, machine in self.fleet.world.machines.items():
            if machine.droplet.tag("enrolment") not in known:
                self.fleet.world.foreign.add(number)

    @invariant()
    def nothing_bad_happened(self) -> None:
        assert getattr(self, "fleet", None) is None or self.fleet.world.problems == []

    def teardown(self) -> None:
        """Once nothing breaks any more, everything comes to where it shall be."""
        if getattr(self, "fleet", None) is None:
            return
        fleet, world = self.fleet, self.fleet.world
        world.fail.clear()
        world.lag = False
        fleet.start()
        for hour in (130, 4000, 130, 130):
            for _ in range(5):
                fleet.pass_()
            fleet.advance(seconds=hour)
            self.start_what_gave_up()
        fleet.passes(5)
        assert world.problems == []
        for account in filter(None, map(fleet.repository.get, set(self.accounts))):
            alive = fleet.alive(account.id)
            strange = [m for n, m in world.machines.items() if m.account == account.id and n in world.foreign]
            blocked = any("stack:test" in m.droplet.tags for m in strange)
            said = (account.status, account.status_reason)
            if account.wanted == Wanted.RUNNING and blocked:
                assert said in (("running", ""), ("error", "unknown_droplet"))
                assert len(alive) <= 1
            elif account.wanted == Wanted.RUNNING:
                assert (said, len(alive)) == (("running", ""), 1)
            elif account.wanted == Wanted.STOPPED:
                assert said in (("stopped", "powered_off"), ("stopped", "no_droplet"))
                assert len(alive) == (account.status_reason == "powered_off")
            else:
                rest = ("deleted", "") if account.wanted == Wanted.DELETED else ("stopped", "hibernated")
                assert (said, alive) == (rest, [])
        assert set(world.machines) >= world.foreign

    def start_what_gave_up(self) -> None:
        for account in filter(None, map(self.fleet.repository.get, set(self.accounts))):
            if account.wanted == Wanted.RUNNING and account.status_reason == "enrolment_timeout":
                try:
                    self.fleet.repository.want(account, Wanted.RUNNING, "ada")
                except Conflict:
                    continue


@pytest.mark.timeout(900)
def test_any_schedule_ends_well(engine: Engine) -> None:
    Schedule.engine = engine
    run_state_machine_as_test(
        Schedule,
        settings=settings(
            max_examples=20, stateful_step_count=25, deadline=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
