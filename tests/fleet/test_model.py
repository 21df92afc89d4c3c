"""Whatever users do and whatever breaks, in any order: nothing is doubled, lost, or taken from others."""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

from broker.fleet import account_rows, decide, reconciler
from broker.fleet.account import Account, Wanted
from broker.fleet.digitalocean import Droplet, OutcomeUnknown, Throttled, Unavailable
from broker.fleet.pass_rows import NewEnrolment, PassRows
from broker.fleet.repository import AlreadyConnected, Conflict
from broker.fleet.steps import Steps
from broker.fleet.vault import LocalKeyWrapper, Vault
from tests.fleet.conftest import clear
from tests.fleet.model import Fleet, Killed, LostError

TABLES = ("broker_accounts", "broker_account_events", "enrolments", "fleet_tombstones", "fleet_quarantine")
TAGS = ("stack:test", "manager:service")
WHICH = st.integers(0, 3)


class Schedule(RuleBasedStateMachine):
    """Four accounts' lives, with faults, deaths, intruders and a restored database."""

    engine: Engine
    #: what was found wrong since the run began; hypothesis may fail to repeat it, as threads take turns
    violations: ClassVar[list[str]] = []

    @initialize()
    def begin(self) -> None:
        clear(self.engine)
        self.fleet = Fleet(self.engine, Vault(LocalKeyWrapper({"k1": b"1" * 32})))
        # One account after another, always in the same order: what is found once is found in every run.
        self.fleet.settings = replace(self.fleet.settings, probes=1, steps=1)
        self.fleet.start()
        in_order = random.Random(1)
        account_rows.secrets = SimpleNamespace(  # type: ignore[attr-defined]
            token_hex=lambda size: in_order.randbytes(size).hex(), token_urlsafe=secrets.token_urlsafe
        )
        # Begun in the middle of life: most of what can go wrong needs droplets.
        self.accounts = [self.fleet.connect(name=f"n{which}") for which in range(3)]
        self.fleet.passes(4)
        self.backup: dict[str, list[Any]] | None = None
        #: accounts whose droplets may have later credentials than a restored database
        self.older: set[str] = set()

    def account(self, which: int) -> Any:
        return self.fleet.repository.get(self.accounts[which % len(self.accounts)])

    @rule(which=WHICH)
    def connect(self, which: int) -> None:
        try:
            self.accounts.append(self.fleet.connect(name=f"n{which}"))
        except AlreadyConnected:
            return

    def want(self, which: int, wanted: Wanted) -> None:
        account = self.account(which)
        if account is not None and account.wanted != Wanted.DELETED:
            self.fleet.repository.want(account, wanted, "ada")

    @precondition(lambda self: self.accounts)
    @rule(which=WHICH, wanted=st.sampled_from([Wanted.RUNNING, Wanted.RUNNING, Wanted.STOPPED]))
    def start_or_stop(self, which: int, wanted: Wanted) -> None:
        self.want(which, wanted)

    @precondition(lambda self: self.accounts)
    @rule(which=WHICH, wanted=st.sampled_from([Wanted.HIBERNATED, Wanted.DELETED]), passes=st.integers(0, 3))
    def end(self, which: int, wanted: Wanted, passes: int) -> None:
        self.want(which, wanted)
        self.fleet.passes(passes)

    @precondition(lambda self: self.accounts)
    @rule(which=WHICH)
    def restart(self, which: int) -> None:
        account = self.account(which)
        if account is not None and account.wanted != Wanted.DELETED:
            self.fleet.repository.want_restart(account, "ada")

    @precondition(lambda self: self.accounts)
    @rule(which=WHICH, passes=st.integers(0, 2))
    def change_credentials(self, which: int, passes: int) -> None:
        account = self.account(which)
        if account is not None and account.wanted != Wanted.DELETED:
            self.fleet.repository.set_credentials(account, account.id, f"p{account.version}", "ada")
            self.older.discard(account.id)
            self.fleet.passes(passes)

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
            self.lists_catch_up()
            self.fleet.world.proceed(self.fleet.enroller)
        self.fleet.advance(seconds=seconds)

    def lists_catch_up(self) -> None:
        for machine in self.fleet.world.machines.values():
            machine.hidden = False

    @precondition(lambda self: self.fleet.world.machines)
    @rule(which=WHICH, reboot=st.booleans())
    def somebody_touches_a_droplet(self, which: int, reboot: bool) -> None:
        machines = self.fleet.world.machines
        number = sorted(machines)[which % len(machines)]
        if reboot:
            self.fleet.world._empty(machines[number])
        elif number not in self.fleet.world.foreign:
            del machines[number]

    @precondition(lambda self: self.fleet.world.machines)
    @rule(which=WHICH)
    def a_list_leaves_one_out(self, which: int) -> None:
        machines = self.fleet.world.machines
        machines[sorted(machines)[which % len(machines)]].hidden = True
        self.fleet.passes(2)

    @rule(which=WHICH, known=st.booleans())
    def an_intruder_appears(self, which: int, known: bool) -> None:
        if len(self.fleet.world.foreign) < 3:
            account = self.account(which)
            of = [f"account:{account.id}"] if known and account is not None else []
            name = f"ada-ib-demo-{account.username_index}" if account is not None else "x"
            self.fleet.world.add_foreign(*TAGS, *of, "enrolment:ffff", name=name)
            self.fleet.world.add_foreign("stack:other", "manager:service", *of, name=name)

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
        self.older = set(self.accounts)
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
        if getattr(self, "fleet", None) is not None and self.fleet.world.problems:
            self.violations += self.fleet.world.problems
            raise AssertionError(self.fleet.world.problems)

    def teardown(self) -> None:
        """Once nothing breaks any more, everything comes to where it shall be."""
        if getattr(self, "fleet", None) is not None:
            try:
                self.come_to_rest()
            except AssertionError as wrong:
                self.violations.append(str(wrong))
                raise

    def come_to_rest(self) -> None:
        fleet, world = self.fleet, self.fleet.world
        world.fail.clear()
        world.lag = False
        self.lists_catch_up()
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
                pushed = world.machines[alive[0]].credentials
                assert account.id in self.older or pushed == self.login_of(account)
            elif account.wanted == Wanted.STOPPED:
                assert said in (("stopped", "powered_off"), ("stopped", "no_droplet"))
                assert len(alive) == (account.status_reason == "powered_off")
            else:
                rest = ("deleted", "") if account.wanted == Wanted.DELETED else ("stopped", "hibernated")
                assert (said, alive) == (rest, [])
        assert set(world.machines) >= world.foreign

    def login_of(self, account: Account) -> tuple[str, str]:
        login, _version = self.fleet.repository.login(account)
        return login.username, login.password

    def start_what_gave_up(self) -> None:
        for account in filter(None, map(self.fleet.repository.get, set(self.accounts))):
            if account.wanted == Wanted.RUNNING and account.status_reason == "enrolment_timeout":
                try:
                    self.fleet.repository.want(account, Wanted.RUNNING, "ada")
                except Conflict:
                    continue


def run(engine: Engine, monkeypatch: pytest.MonkeyPatch, examples: int, *phases: Phase) -> None:
    Schedule.engine, Schedule.violations = engine, []
    monkeypatch.setattr(account_rows, "secrets", secrets)  # changed by each schedule
    run_state_machine_as_test(
        Schedule,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, derandomize=True, phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_any_schedule_ends_well(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run(engine, monkeypatch, 16, Phase.generate, Phase.shrink)


def condemns_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PassRows, "condemn", lambda _self, account, *_of: account)


def creates_without_intent(patch: pytest.MonkeyPatch) -> None:
    def begin_create(_self: PassRows, account: Account, *_of: Any) -> tuple[Account, NewEnrolment]:
        return account, NewEnrolment(secrets.token_hex(8), secrets.token_urlsafe(32))

    patch.setattr(PassRows, "begin_create", begin_create)


def adopts_by_name(patch: pytest.MonkeyPatch) -> None:
    sort = reconciler._OnePass._sort

    def by_name(self: Any, ours: list[Droplet]) -> Any:
        known, strange = sort(self, ours)
        names = {
            f"{a.username}-ib-{a.environment}-{a.username_index}": a.id
            for a in self._repository.to_reconcile()
        }
        for droplet in [d for ds in strange.values() for d in ds if d.name in names]:
            strange[droplet.tag("account")].remove(droplet)
            known[names[droplet.name]].append(droplet)
        return known, strange

    patch.setattr(reconciler._OnePass, "_sort", by_name)


def adopts_by_account_tag(patch: pytest.MonkeyPatch) -> None:
    sort = reconciler._OnePass._sort

    def by_tag(self: Any, ours: list[Droplet]) -> Any:
        known, strange = sort(self, ours)
        for account in filter(None, list(strange)):
            known[account] += strange.pop(account)
        return known, strange

    patch.setattr(reconciler._OnePass, "_sort", by_tag)


def pushes_the_first_login_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "_is_pushed", lambda account: account.pushed_version > 0)


def believes_a_list(patch: pytest.MonkeyPatch) -> None:
    def confirm_gone(self: Any, account: Account, _decision: Any, droplet_id: int) -> None:
        self._repository.gone(account, droplet_id)

    patch.setattr(Steps, "_confirm_gone", confirm_gone)


MUTANTS = [
    condemns_nothing, creates_without_intent, adopts_by_name, adopts_by_account_tag,
    pushes_the_first_login_only, believes_a_list,
]  # fmt: skip


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_schedules_find_what_breaks_a_rule(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Or `test_any_schedule_ends_well` would show nothing."""
    mutant(monkeypatch)
    with contextlib.suppress(AssertionError, ExceptionGroup, Flaky):
        run(engine, monkeypatch, 12, Phase.generate)
    assert Schedule.violations
