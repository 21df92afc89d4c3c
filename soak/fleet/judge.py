"""What must never happen to droplets, decided by the cloud's records and by what is written at that moment.

The judge sees each request before DigitalOcean carries it out and each login when it reaches a droplet, and
looks into the database with SQL of its own. It takes nothing from the reconciler, not even what a pass told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import psycopg

from soak.fleet.clock import Clock


@dataclass
class Made:
    """A droplet that was asked for over the API."""

    id: int
    account: str
    enrolment: str
    at: float
    gone: bool = False
    #: it was given a login, however long ago
    held: bool = False


@dataclass
class Tally:
    """What one schedule came to. The first block must stay 0; `violations` says it in words."""

    two_holders: int = 0
    doubles_left: int = 0
    orphans: int = 0
    others_touched: int = 0
    not_converged: int = 0
    unwritten: int = 0
    second_accounts: int = 0
    thefts: int = 0
    untold: int = 0
    hung: int = 0

    accounts: int = 0
    droplets: int = 0
    logins: int = 0
    doubles: int = 0
    passes: int = 0
    actions: int = 0
    faults: int = 0
    kills: int = 0
    freezes: int = 0
    restores: int = 0
    strangers: int = 0
    longest_recovery: float = 0.0
    violations: list[str] = field(default_factory=list)

    def violated(self, what: str, words: str) -> None:
        """Count one."""
        setattr(self, what, getattr(self, what) + 1)
        self.violations.append(f"{what}: {words}")


MUST_BE_ZERO = (
    "two_holders",
    "doubles_left",
    "orphans",
    "others_touched",
    "not_converged",
    "unwritten",
    "second_accounts",
    "thefts",
    "untold",
    "hung",
)

_DROPLET = re.compile(r"/v2/droplets/([0-9]+)(/actions)?")


class Judge:
    """Counts while a schedule runs. `asked`, `made`, `gone` and `pushed` are called in the cloud's thread."""

    def __init__(self, database: str, clock: Clock) -> None:
        """`database`: its URL."""
        self._db = psycopg.connect(database, autocommit=True)
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """A new schedule."""
        self.tally = Tally()
        self.droplets: dict[int, Made] = {}
        #: droplets that aren't the service's, or that a restored database doesn't know
        self.foreign: set[int] = set()
        self._asked_for: set[str] = set()
        self._guilty: set[str] = set()

    def close(self) -> None:
        """Gives the connection back."""
        self._db.close()

    def is_written(self, query: str, *values: object) -> bool:
        """Whether a committed row is there."""
        return self._db.execute(query, values).fetchone() is not None

    # while it runs

    def asked(self, method: str, path: str, body: dict[str, Any]) -> None:
        """A request arrives, and isn't carried out yet."""
        if (method, path) == ("POST", "/v2/droplets"):
            self._create(dict(tag.partition(":")[::2] for tag in body["tags"]))
        match = _DROPLET.fullmatch(path)
        if method == "GET" or match is None:
            return
        number = int(match[1])
        if number in self.foreign:
            self.tally.violated("others_touched", f"{method} {path}, which isn't ours")
        written = "select 1 from fleet_tombstones where droplet_id = %s"
        if method == "DELETE" and not self.is_written(written, number):
            self.tally.violated("unwritten", f"a delete of droplet {number}, which has no tombstone")

    def _create(self, tags: dict[str, str]) -> None:
        enrolment, account = tags.get("enrolment", ""), tags.get("account", "")
        written = "select 1 from enrolments where id = %s and account_id = %s"
        if not self.is_written(written, enrolment, account):
            self.tally.violated("unwritten", f"a create for {account} that isn't written down")
        if enrolment in self._asked_for:
            self.tally.violated("unwritten", f"a create for {account} is sent again")
        self._asked_for.add(enrolment)

    def made(self, droplet: Made) -> None:
        """A droplet was asked for, and is made."""
        self.tally.droplets += 1
        self.tally.doubles += any(d.account == droplet.account for d in self.alive())
        self.droplets[droplet.id] = droplet

    def gone(self, number: int) -> None:
        """A droplet exists no more, whoever removed it."""
        if number in self.droplets:
            self.droplets[number].gone = True

    def pushed(self, number: int, account: str) -> None:
        """A droplet takes a login."""
        self.tally.logins += 1
        droplet = self.droplets.get(number)
        if droplet is None or number in self.foreign:
            self.tally.violated("others_touched", f"droplet {number} got a login and isn't ours")
            return
        written = "select 1 from broker_accounts where id = %s and credentials_droplet_id = %s"
        if not self.is_written(written, account, number):
            self.tally.violated("unwritten", f"droplet {number} got {account}'s login and isn't written down")
        droplet.held = True
        holders = [d.id for d in self.alive() if d.account == account and d.held]
        if len(holders) > 1 and account not in self._guilty:
            self._guilty.add(account)
            self.tally.violated("two_holders", f"droplets {holders} were given the login of {account}")

    # what there is

    def alive(self) -> list[Made]:
        """The service's droplets that exist."""
        return [d for d in self.droplets.values() if not d.gone]

    def ours(self, account: str = "") -> list[Made]:
        """Those that the database may know, of one account or all."""
        return [d for d in self.alive() if d.id not in self.foreign and account in ("", d.account)]

    def forgotten(self) -> None:
        """The database was restored: droplets that it doesn't know aren't ours any more."""
        known = {row[0] for row in self._db.execute("select id from enrolments")}
        self.foreign |= {d.id for d in self.alive() if d.enrolment not in known}

    def doubles_now(self, listed_before: float) -> dict[str, set[int]]:
        """Accounts with several droplets that a list shows; one of them is the account's, or none is yet."""
        doomed = {row[0] for row in self._db.execute("select droplet_id from fleet_tombstones")}
        rows = self._db.execute("select id, do_droplet_id from broker_accounts").fetchall()
        recorded: dict[str, int | None] = {row[0]: row[1] for row in rows}
        found: dict[str, set[int]] = {}
        for droplet in self.ours():
            if droplet.at <= listed_before and droplet.id not in doomed:
                found.setdefault(droplet.account, set()).add(droplet.id)
        return {
            account: ids
            for account, ids in found.items()
            if len(ids) > 1 and (recorded.get(account) is None or recorded[account] in ids)
        }

    def doubles_left(self, before: dict[str, set[int]]) -> None:
        """After a pass that nothing disturbed: of several droplets one may be left."""
        alive = {d.id for d in self.alive()}
        for account, ids in before.items():
            if len(ids & alive) > 1:
                self.tally.violated("doubles_left", f"{sorted(ids & alive)} of {account} after a whole pass")
