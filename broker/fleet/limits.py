"""How many accounts a user may have, and how often logins may be begun: counted in the database.

So several instances share the counts, and a restart doesn't forget them. IBKR locks a login after some wrong
passwords, whoever typed them, so passwords given for one IBKR user name are counted over all users.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Select, func, select, text

from broker.fleet.account import Account, Wanted
from broker.fleet.keys import FleetKeys
from broker.fleet.models import broker_account_events, broker_accounts
from broker.fleet.rows import NOW, Rows

HOUR = 3600.0
_LOCK = text("select pg_advisory_xact_lock(hashtextextended('fleet ' || :of, 0))")


class TooManyAccounts(Exception):
    """The user has as many accounts as allowed; nothing was done."""

    def __init__(self, most: int) -> None:
        super().__init__(f"you have {most} accounts, and no more are allowed: delete one first")


class TooOften(Exception):
    """Allowed again after `wait` seconds; nothing was done."""

    def __init__(self, what: str, wait: float) -> None:
        super().__init__(f"{what}: try again in {wait / 60:.0f} minutes")
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Limits:
    """`accounts` that a user may have; `per_hour` new ones, changes of credentials, and logins of each."""

    accounts: int
    per_hour: int

    @property
    def passwords_per_hour(self) -> int:
        """Passwords that may be given for one IBKR user name, by all users together."""
        return max(5, self.per_hour // 2)

    def lock(self, db: Connection, user_id: str, name_hash: str) -> None:
        """Until the transaction ends, nobody else counts for this user or this IBKR user name."""
        for of in (f"user {user_id}", f"name {name_hash}"):
            db.execute(_LOCK, {"of": of})

    def check_connect(self, db: Connection, user_id: str, name_hash: str) -> None:
        """Raises TooManyAccounts and TooOften."""
        mine = broker_accounts.c.user_id == user_id
        kept = select(func.count()).where(mine, broker_accounts.c.wanted != Wanted.DELETED)
        if db.execute(kept).scalar_one() >= self.accounts:
            raise TooManyAccounts(self.accounts)
        made = select(broker_accounts.c.created_at).where(mine)
        self._check(db, made, self.per_hour, f"you have connected {self.per_hour} accounts within an hour")
        self.check_name(db, name_hash)

    def check_credentials(self, db: Connection, user_id: str, name_hash: str) -> None:
        """Raises TooOften."""
        mine = broker_accounts.c.user_id == user_id
        said = f"you have changed credentials {self.per_hour} times within an hour"
        self._check(db, _events("credentials").where(mine), self.per_hour, said)
        self.check_name(db, name_hash)

    def check_name(self, db: Connection, name_hash: str) -> None:
        """Raises TooOften when one IBKR user name was given too many passwords, whoever did."""
        of_name = broker_accounts.c.ib_username_hash == name_hash
        said = "this IBKR user name was given too many passwords within an hour, and IBKR would lock it"
        self._check(db, _events("connect", "credentials").where(of_name), self.passwords_per_hour, said)

    def check_logins(self, db: Connection, account_id: str) -> None:
        """Raises TooOften when an account was started or restarted too often."""
        of_account = broker_account_events.c.account_id == account_id
        said = f"this account was started {self.per_hour} times within an hour"
        self._check(db, _events("running", "restart").where(of_account), self.per_hour, said)

    def _check(self, db: Connection, times: Select[tuple[object]], most: int, said: str) -> None:
        """`times` selects one column. The one that makes it too many decides when it is allowed again."""
        [column] = times.selected_columns
        last = times.order_by(column.desc()).offset(most - 1).limit(1).subquery()
        age = select(func.extract("epoch", NOW - last.c[0]))
        found = db.execute(age).scalar()
        if found is not None and float(found) < HOUR:
            raise TooOften(said, max(1.0, HOUR - float(found)))


def _events(*kinds: str) -> Select[tuple[object]]:
    event = broker_account_events.c
    joined = broker_account_events.join(broker_accounts, event.account_id == broker_accounts.c.id)
    return select(event.at).select_from(joined).where(event.kind.in_(kinds))


class LimitRows(Rows):
    """Checks before a change. Blocking; usable from several threads."""

    _keys: FleetKeys

    def check_credentials(self, account: Account, ib_username: str, limits: Limits) -> None:
        """Raises TooOften."""
        with self._engine.connect() as db:
            limits.check_credentials(db, account.user_id, self._keys.username_hash(ib_username))

    def check_logins(self, account: Account, limits: Limits) -> None:
        """Raises TooOften."""
        with self._engine.connect() as db:
            limits.check_logins(db, account.id)
