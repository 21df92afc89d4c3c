"""What a schedule acts on: users and their wishes, two processes of the service, a team and its droplets."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import Engine

from broker.fleet.account import Account, Wanted
from broker.fleet.enrolment import EnrolmentLater, EnrolmentRefused
from broker.fleet.reconciler import Pass
from broker.fleet.repository import AlreadyConnected, Conflict
from broker.fleet.runner import Runner
from broker.fleet.vault import LocalKeyWrapper, Vault
from soak.fleet.clock import Clock
from soak.fleet.database import TABLES
from soak.fleet.instance import Instance, Mutate
from soak.fleet.judge import Judge
from soak.fleet.machine import GOOD
from soak.fleet.team import STACK, Team

#: virtual seconds between passes while something moves
MOVING = 5.0
#: until then everything has to be where it shall be once nothing breaks any more
CONVERGENCE = 3 * 3600.0
IDLE_MINUTES = 30
#: what a person is told to start again after
_START_AGAIN = (
    "enrolment_timeout",
    "login_timeout",
    "second_factor_timeout",
    "session_taken",
    "login_failed",
)
_OURS = (f"stack:{STACK}", "manager:service")


@dataclass(frozen=True)
class Wish:
    """What a user has asked for, as the user knows it."""

    user: str
    environment: str
    name: str
    password: str
    wanted: Wanted = Wanted.RUNNING
    idle: bool = False


class World:
    """Acts are methods; those that aren't possible just now do nothing."""

    def __init__(
        self, engines: list[Engine], database: str, clock: Clock, team: Team, judge: Judge,
        drawn: random.Random, mutate: Mutate = lambda _instance: None,
    ) -> None:  # fmt: skip
        self._engines, self._clock, self._mutate = engines, clock, mutate
        self.team, self.judge, self.tally = team, judge, judge.tally
        self._db: psycopg.Connection[dict[str, Any]] = psycopg.connect(
            database, autocommit=True, row_factory=dict_row
        )
        self._vault = Vault(LocalKeyWrapper({"k1": b"1" * 32}))
        self._db.execute(f"truncate {', '.join(TABLES)}, fleet_lease")
        clock.begin()
        judge.begin()
        self.tally = judge.tally
        team.begin(judge, drawn)
        self.wishes: dict[str, Wish] = {}
        self.alarms: list[tuple[str, str]] = []
        self._backup: tuple[dict[str, Wish], dict[str, list[dict[str, Any]]]] | None = None
        self._numbers, self._lag = 0, 0.0
        self.instances = [self._process(0), self._process(1)]

    def _process(self, which: int) -> Instance:
        return Instance(self._engines[which], self._vault, self.team, self.alarms, self._mutate)

    def close(self) -> None:
        """Gives everything back."""
        for instance in self.instances:
            instance.end()
        self.team.end()
        self._db.close()

    # users

    def connect(self, user: int, environment: str, good: bool) -> None:
        """A user connects, perhaps for the second time."""
        wish = Wish(f"user{user}", environment, f"ib{user}", self._password(good))
        same = [a for a, w in self.wishes.items() if self._is_same(w, wish)]
        repository = self.instances[0].repository
        try:
            account = repository.connect(wish.user, environment, wish.name, wish.password, wish.user).id
        except AlreadyConnected as there:
            account = there.account.id
        else:
            self.wishes[account] = wish
            self.tally.accounts += 1
            if same:
                self.tally.violated("second_accounts", f"{account} beside {same} of {wish.user}")
        if same and account not in same:
            self.tally.violated("second_accounts", f"{account} instead of {same} of {wish.user}")
        self.tally.actions += 1

    @staticmethod
    def _is_same(wish: Wish, other: Wish) -> bool:
        key = (wish.user, wish.environment, wish.name)
        return wish.wanted != Wanted.DELETED and key == (other.user, other.environment, other.name)

    def _password(self, good: bool) -> str:
        self._numbers += 1
        return f"{GOOD if good else 'wrong-'}{self._numbers}"

    def _act(self, share: float, act: Callable[[Account], object], **wish: Any) -> None:
        """Carries out a user's request, again when somebody else has just written."""
        account = self._one(share)
        while account is not None and account.wanted != Wanted.DELETED:
            try:
                act(account)
            except Conflict:
                account = self.instances[0].repository.get(account.id)
                continue
            self.tally.actions += 1
            self.wishes[account.id] = replace(self.wishes[account.id], **wish)
            return

    def _one(self, share: float) -> Account | None:
        ids = sorted(self.wishes)
        if not ids:
            return None
        found: Account | None = self.instances[0].repository.get(ids[int(share * len(ids))])
        return found

    def want(self, share: float, wanted: Wanted) -> None:
        """Start, stop, hibernate or delete."""
        repository = self.instances[0].repository
        self._act(share, lambda account: repository.want(account, wanted, "user"), wanted=wanted)

    def restart(self, share: float) -> None:
        """The gateway's restart."""
        repository = self.instances[0].repository
        self._act(share, lambda account: repository.want_restart(account, "user"), wanted=Wanted.RUNNING)

    def change_password(self, share: float, good: bool) -> None:
        """Other credentials."""
        repository, password = self.instances[0].repository, self._password(good)

        def change(account: Account) -> None:
            repository.set_credentials(account, self.wishes[account.id].name, password, "user")

        self._act(share, change, password=password)

    def set_policy(self, share: float, idle: bool) -> None:
        """Idle for half an hour, or always on."""
        policy, repository = f"idle:{IDLE_MINUTES}" if idle else "always", self.instances[0].repository

        def change(account: Account) -> None:
            repository.change(account, policy=policy, unattended_live=True)

        self._act(share, change, idle=idle)

    # the service

    def run_passes(self, which: int, count: int) -> None:
        """Passes of one process, as often as it would run them."""
        for _ in range(count):
            told = self.run_pass(which)
            self.advance(self.interval(which, told))

    def interval(self, which: int, told: Pass | None, moving: float = MOVING) -> float:
        """Seconds until the process would run another pass."""
        instance = self.instances[which]
        runner = Runner(instance.reconciler, instance.budget, moving=moving)
        return runner.interval(told) if told is not None else moving

    def run_pass(self, which: int, kill: int = 0, freeze: int = 0, only: str = "") -> Pass | None:
        """One pass; a process that died is started anew."""
        instance = self.instances[which]
        if instance.frozen():
            return None
        listed, refusals = self._clock.now - self._lag, self.team.refusals
        doubles = self.judge.doubles_now(listed)
        told = instance.run_pass(kill, freeze, only)
        self.team.settle()
        self.tally.passes += told is not None
        if instance.frozen():
            self.tally.freezes += 1
        elif instance.boundary.killed:
            self.tally.kills += 1
            self.start_anew(which)
        elif told is not None and not told.problem and refusals == self.team.refusals:
            self.judge.doubles_left(doubles)
        return told

    def wake(self) -> None:
        """Frozen processes go on where they were."""
        for instance in self.instances:
            if instance.frozen():
                instance.go_on()
        self.team.settle()

    def start_anew(self, which: int) -> None:
        """A process is killed, and another one started in its place."""
        self.instances[which].end()
        self.instances[which] = self._process(which)

    def cut_database(self) -> None:
        """All connections break, as when PostgreSQL is restarted."""
        self._db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name = 'service'"
        )
        self.tally.faults += 1

    def back_up(self) -> None:
        """What a restore will bring back."""
        rows = {table: self._db.execute(f"select * from {table}").fetchall() for table in TABLES}  # noqa: S608
        self._backup = (dict(self.wishes), rows)

    def restore(self) -> None:
        """The database of some time ago comes back, and the service is started anew."""
        if self._backup is None:
            return
        self._let_lists_catch_up()
        for which in range(len(self.instances)):
            self.start_anew(which)
        wishes, rows = self._backup
        self._db.execute(f"truncate {', '.join(TABLES)}")
        for table in TABLES:
            for row in rows[table]:
                names = ", ".join(row)
                values = ", ".join(["%s"] * len(row))
                self._db.execute(f"insert into {table} ({names}) values ({values})", list(row.values()))  # noqa: S608
        self.wishes = dict(wishes)
        self.judge.forgotten()
        self.tally.restores += 1

    def _let_lists_catch_up(self) -> None:
        # What a restored database doesn't know is seen in lists: a restore takes longer than they lag.
        self.advance(self._lag + 1)

    # time

    def advance(self, seconds: float) -> None:
        """Time passes; droplets come up, and their agents enrol."""
        self._clock.advance(seconds)
        self.team.settle()
        self._enrol()

    def _enrol(self) -> None:
        service = next((i for i in self.instances if not i.frozen()), None)
        for machine in list(self.team.machines.by_name.values()):
            if service is None or not machine.up or machine.enrolment != "asking" or not machine.settings:
                continue
            settings = machine.settings
            try:
                service.enroller.enrol(
                    settings["account_id"], settings["enrolment_token"], machine.certificate.pem
                )
            except EnrolmentLater:
                continue
            except EnrolmentRefused:
                machine.enrolment = "refused"
            else:
                machine.enrolment = "accepted"

    # what breaks

    def fault(self, **fault: Any) -> None:
        """DigitalOcean's API answers wrongly once, or some times."""
        self.team.fault(**fault)
        self.tally.faults += 1

    def lose_answer(self, request: str) -> None:
        """A request is carried out, and its answer never arrives."""
        self.team.lost_answers.append(request)
        self.tally.faults += 1

    def lag(self, visible: float, listed: float) -> None:
        """New droplets are left out of reads and lists for so long."""
        self.team.lag(visible=visible, listed=listed)
        self._lag = max(self._lag, listed)
        self.tally.faults += 1

    def limit(self, more: int) -> None:
        """The team may have only so many droplets more."""
        self.team.note("droplet_limit", len(self.team.droplets()) + more)
        self.tally.faults += 1

    def by_hand(self, share: float, what: str) -> None:
        """Somebody does something to one of the service's droplets in the console."""
        number = self._droplet(share)
        if number is not None:
            self.team.by_hand(number, what)
            self.tally.faults += 1

    def mood(self, share: float, mood: str, on: bool) -> None:
        """A droplet can't be reached; its login waits for a second factor, or is taken by another."""
        number = self._droplet(share)
        machine = self.team.machine(number) if number is not None else None
        if number is None or machine is None:
            return
        if mood == "reachable":
            self.team.reach(number, not on)
        else:
            setattr(machine, mood, on)
        self.tally.faults += 1

    def _droplet(self, share: float) -> int | None:
        ids = sorted(d.id for d in self.judge.ours())
        return ids[int(share * len(ids))] if ids else None

    def stranger(self, share: float, tags: str) -> None:
        """A droplet of somebody else, perhaps with tags like ours."""
        account = self._one(share)
        ours = [f"account:{account.id}"] if account else []
        given = {
            "none": ["web"],
            "another stack": ["stack:other", "manager:service", *ours],
            "declared": [f"stack:{STACK}", "manager:pulumi", *ours],
            "forged": [*_OURS, *ours, "enrolment:ffffffffffffffff"],
        }[tags]
        number = self.team.add_foreign(*given)
        if number is not None:
            self.judge.foreign.add(number)
            self.tally.strangers += 1

    def steal(self, share: float) -> None:
        """Somebody with a droplet's token enrols a certificate of their own."""
        number = self._droplet(share)
        machine = self.team.machine(number) if number is not None else None
        service = next((i for i in self.instances if not i.frozen()), None)
        if machine is None or service is None:
            return
        settings, thief = machine.settings, self.team.machines.free[-1]
        alarms = len(self.alarms)
        try:
            service.enroller.enrol(settings["account_id"], settings["enrolment_token"], thief.pem)
            self.tally.violated("thefts", f"the token of {settings['account_id']} enrolled a stranger")
        except EnrolmentLater:
            return
        except EnrolmentRefused:
            if len(self.alarms) == alarms:
                self.tally.violated("untold", "a stolen token was refused without an alarm")
        self.tally.faults += 1

    # the end

    @property
    def now(self) -> float:
        """In the soak's time."""
        return self._clock.now

    def rows(self) -> dict[str, dict[str, Any]]:
        """What the database says of all accounts."""
        query = "select id, wanted, status, status_reason, sealed_password from broker_accounts"
        return {row["id"]: row for row in self._db.execute(query)}

    def heal(self) -> None:
        """Nothing breaks any more, and users correct their passwords."""
        self.wake()
        self.team.heal()
        for machine in list(self.team.machines.by_name.values()):
            machine.second_factor = machine.competing = False
            self.team.reach(machine.id, True)
        ids = sorted(self.wishes)
        for index, account in enumerate(ids):
            if not self.wishes[account].password.startswith(GOOD):
                self.change_password((index + 0.5) / len(ids), True)

    def start_again(self) -> None:
        """Users do what the reason of an error tells them to do."""
        for account, row in self.rows().items():
            if row["status"] == "error" and row["status_reason"] in _START_AGAIN:
                ids = sorted(self.wishes)
                if self.wishes[account].wanted == Wanted.RUNNING:
                    self.want((ids.index(account) + 0.5) / len(ids), Wanted.RUNNING)
