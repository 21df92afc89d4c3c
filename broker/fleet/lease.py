"""Who may run passes: a lease in the database, on the database's clock, and what the last pass found."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

_TAKE = text("""
    with former as (select expires_at from fleet_lease where name = :name)
    insert into fleet_lease as held (name, holder, expires_at)
    values (:name, :holder, clock_timestamp() + :ttl * interval '1 second')
    on conflict (name) do update
       set holder = excluded.holder, expires_at = clock_timestamp() + :ttl * interval '1 second'
     where held.holder = excluded.holder or held.expires_at <= clock_timestamp()
    returning (select extract(epoch from clock_timestamp() - expires_at) from former)
""")

_RENEW = text("""
    update fleet_lease set expires_at = clock_timestamp() + :ttl * interval '1 second'
     where name = :name and holder = :holder
    returning 1
""")


_PASSED = text("""
    update fleet_lease set passed_at = clock_timestamp(), passed = :figures
     where name = :name and holder = :holder
""")

_LOOK = text("""
    select holder, expires_at, expires_at > clock_timestamp(), passed_at,
           extract(epoch from clock_timestamp() - passed_at), passed
      from fleet_lease where name = :name
""")


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """Who runs the passes, as any instance sees it. `held`: the lease hasn't run out.

    `pass_age` in seconds, by the database's clock; `passed` is what `note_pass` got.
    """

    held: bool
    ours: bool
    until: datetime
    passed_at: datetime | None
    pass_age: float | None
    passed: Mapping[str, Any]


class FleetLease:
    """Who may run passes. On the database's clock; a holder stops using it before it runs out there."""

    def __init__(self, engine: Engine, name: str, seconds: float = 60.0) -> None:
        """`name`: one for a stack."""
        self._engine = engine
        self._values = {"name": name, "holder": secrets.token_hex(8), "ttl": seconds}
        self._seconds = seconds
        self._until = 0.0
        #: how long nobody had had it when it was taken last, in seconds
        self.unattended = 0.0

    def take(self, clock: Callable[[], float] = time.monotonic) -> bool:
        """Takes a free lease or renews ours."""
        began = clock()
        with self._engine.begin() as db:
            row = db.execute(_TAKE, self._values).first()
        self.unattended = max(0.0, float(row[0])) if row is not None and row[0] is not None else 0.0
        self._until = began + 0.8 * self._seconds if row is not None else 0.0
        return row is not None

    def renew(self, clock: Callable[[], float] = time.monotonic) -> bool:
        """Goes on with it, also after its time, unless somebody else has had it since. False: it is lost."""
        began = clock()
        with self._engine.begin() as db:
            row = db.execute(_RENEW, self._values).first()
        self._until = began + 0.8 * self._seconds if row is not None else 0.0
        return row is not None

    def held(self, clock: Callable[[], float] = time.monotonic) -> bool:
        """Whether it may still be used."""
        return clock() < self._until

    def release(self) -> None:
        """Frees it, if it is ours."""
        self._until = 0.0
        with self._engine.begin() as db:
            db.execute(
                text(
                    "update fleet_lease set holder = '', expires_at = clock_timestamp()"
                    " where name = :name and holder = :holder"
                ),
                self._values,
            )

    def note_pass(self, figures: Mapping[str, object]) -> None:
        """What a whole pass of ours found, for the other instances; `figures` as JSON can say it."""
        with self._engine.begin() as db:
            db.execute(_PASSED, {**self._values, "figures": json.dumps(figures)})

    def look(self) -> LeaseSeen | None:
        """Who has it now; None if nobody ever had."""
        with self._engine.connect() as db:
            row = db.execute(_LOOK, self._values).first()
        if row is None:
            return None
        held = bool(row[0]) and bool(row[2])
        age = None if row[4] is None else float(row[4])
        passed = json.loads(row[5]) if row[5] else {}
        return LeaseSeen(held, held and row[0] == self._values["holder"], row[1], row[3], age, passed)
