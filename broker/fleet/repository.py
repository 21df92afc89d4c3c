"""The fleet in PostgreSQL: accounts, their history, enrolments, tombstones, quarantine and the lease.

Whoever changes an account says which version of the row it has read; if somebody else has written since,
`Conflict` is raised and nothing is written. So a process that froze and woke up can't overwrite anything.
Times are the database's clock: the clocks of several instances may differ.
"""

from __future__ import annotations

from broker.fleet.account_rows import AccountRows, AlreadyConnected, Event, KeyReused
from broker.fleet.bills import BillRows
from broker.fleet.enrolment_rows import EnrolmentRows
from broker.fleet.lease import FleetLease
from broker.fleet.limits import LimitRows
from broker.fleet.overview_rows import OverviewRows
from broker.fleet.pass_rows import NewEnrolment, PassRows
from broker.fleet.rows import Conflict

__all__ = ["AlreadyConnected", "Conflict", "Event", "FleetLease", "KeyReused", "NewEnrolment", "Repository"]


class Repository(AccountRows, LimitRows, PassRows, EnrolmentRows, OverviewRows, BillRows):
    """Blocking; usable from several threads. All raise SQLAlchemyError when the database is away."""
