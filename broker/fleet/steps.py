"""Carries out what `decide` says for one account after another. Every step may be repeated."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from broker.fleet.account import Account, State, Wanted
from broker.fleet.agents import AgentUnreachable, PushRefused
from broker.fleet.creates import Creates
from broker.fleet.decide import Decision, Do, View, decide
from broker.fleet.digitalocean import (
    DigitalOceanError,
    Locked,
    NotFound,
    OutcomeUnknown,
    Refused,
    Unauthorized,
)
from broker.fleet.passes import LeaseLost, Work
from broker.fleet.pinned import CertificateChanged
from broker.fleet.repository import Conflict
from broker.fleet.vault import VaultError

log = logging.getLogger(__name__)

_FIRST_LOGIN_PAUSE = 300
"""Seconds after a refused login in which a start doesn't log in again; doubled each time."""

_ON_THE_WAY = (State.PROVISIONING, State.INITIALIZING)


class Steps:
    """Steps of one pass. Usable from several threads, each with another account."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._repository = work.repository
        self._droplets = work.droplets
        self._agents = work.agents
        self._creates = Creates(work)

    def move(self, view: View) -> None:
        """One step of an account. Raises SQLAlchemyError; any other error stays the account's."""
        decision = decide(view)
        said = (decision.status, decision.reason)
        rests = decision.do in (Do.NOTHING, Do.FORGET) and said == (
            view.account.status,
            view.account.status_reason,
        )
        with self._work.lock:
            self._work.told.steps[decision.do] += 1
            self._work.told.moving += not rests or bool(decision.remove) or decision.status in _ON_THE_WAY
            self._work.told.moving += rests and decision.reason in ("stopping", "deleting")
        try:
            account = view.account
            if view.rests and decision.remove and account.status == State.RUNNING:
                # A use writes a new version, and from here on there are none: one since this pass began is
                # a Conflict here, before the droplet is lost.
                account = self._work.change(
                    account, status=decision.status, status_reason=decision.reason, status_detail=""
                )
            account = self._remove(account, decision)
            self._carry_out(account, view, decision)
        except (Conflict, LeaseLost, Locked):
            return  # the next pass sees what has become of it
        except NotFound:
            return
        except DigitalOceanError as error:
            self._say_problem(view, decision, error)
        except VaultError as error:
            log.error("credentials of %s can't be opened: %s", view.account.id, error)
            self._say_again(view.account, decision, State.ERROR, "vault")
        except SQLAlchemyError:
            raise
        except Exception:
            log.exception("account %s can't be moved", view.account.id)

    def _say_problem(self, view: View, decision: Decision, error: DigitalOceanError) -> None:
        reason = "digitalocean_away" if isinstance(error, OutcomeUnknown) else error.reason
        self._say_again(view.account, decision, decision.status, reason)

    def _say_again(self, account: Account, decision: Decision, status: State, reason: str) -> None:
        found = self._repository.get(account.id)
        if found is not None and (found.status, found.status_reason) != (status, reason):
            try:
                self._work.change(found, status=status, status_reason=reason, status_detail="")
            except Conflict:
                return

    def _remove(self, account: Account, decision: Decision) -> Account:
        for droplet_id, reason in decision.remove:
            if droplet_id not in self._work.tombstones:
                if not self._work.may_delete():
                    continue
                account = self._repository.condemn(account, droplet_id, reason)
                self._work.tombstones = self._work.tombstones | {droplet_id}
                self.delete(droplet_id, counted=True)
            else:
                self.delete(droplet_id)
        return account

    def delete(self, droplet_id: int, counted: bool = False) -> None:
        """Deletes what is condemned, within the pass's limit."""
        if counted or self._work.may_delete():
            self._work.check_lease()
            try:
                self._droplets.delete(droplet_id, self._work.priority)
            except Locked:
                return

    def _carry_out(self, account: Account, view: View, decision: Decision) -> None:
        match decision.do:
            case Do.CREATE:
                self._creates.create(account)
            case Do.ADOPT:
                droplet = next(d for d in view.known if d.id == decision.droplet_id)
                self._work.moved(account, self._repository.adopt(account, droplet))
            case Do.CONFIRM_GONE:
                assert decision.droplet_id is not None
                self._confirm_gone(account, decision, decision.droplet_id)
            case Do.POWER_ON | Do.SHUT_DOWN | Do.POWER_OFF:
                assert decision.droplet_id is not None
                self._act(account, decision, decision.droplet_id)
            case Do.PUSH | Do.RESTART:
                self._push(account, decision)
            case Do.FORGET if account.wanted == Wanted.DELETED:
                self._work.moved(account, self._repository.forget(account))
            case Do.FORGET | Do.NOTHING:
                self._say(account, decision)

    def _say(self, account: Account, decision: Decision) -> None:
        values: dict[str, Any] = {}
        if (decision.status, decision.reason) != (account.status, account.status_reason):
            values |= {"status": decision.status, "status_reason": decision.reason, "status_detail": ""}
        if decision.do is Do.FORGET and account.create_started_at is not None:
            values |= {"create_started_at": None}
        if decision.login_begins:
            values |= {"login_since": self._work.now}
        if decision.login_failed:
            pause = _FIRST_LOGIN_PAUSE * 2**account.failed_logins
            values |= {
                "failed_logins": account.failed_logins + 1,
                "retry_at": self._work.now + timedelta(seconds=pause),
                "restart_wanted_at": None,
            }
        if decision.status is State.RUNNING and (account.failed_logins or account.retry_at):
            values |= {"failed_logins": 0, "retry_at": None}
        if values:
            self._work.change(account, **values)

    def _confirm_gone(self, account: Account, decision: Decision, droplet_id: int) -> None:
        try:
            self._droplets.get(droplet_id, self._work.priority)
        except NotFound:
            self._repository.gone(account, droplet_id)
            return
        if droplet_id in self._work.tombstones:
            self.delete(droplet_id)
        self._say(account, decision)

    def _act(self, account: Account, decision: Decision, droplet_id: int) -> None:
        failed = ""
        if account.action_kind == decision.do and account.action_id is not None:
            outcome = self._outcome(droplet_id, account.action_id)
            if outcome == "in-progress":
                self._repository.change(account, action_since=self._work.now)
                return
            if outcome == "errored":
                failed = f"{decision.do} of droplet {droplet_id} failed"
        self._work.check_lease()
        action: int | None = None
        try:
            action = self._droplets.act(droplet_id, decision.do, self._work.priority)
        except Locked:
            self._say(account, replace(decision, do=Do.NOTHING))
            return
        except Unauthorized:
            raise
        except Refused as error:  # also when the droplet is already as it shall be: the next list shows it
            failed = f"{decision.do} of droplet {droplet_id}: {error.message}"
        event = {"kind": "action_failed", "detail": failed} if failed else {}
        self._work.change(
            account,
            status=decision.status,
            status_reason="action_failed" if failed else decision.reason,
            status_detail="",
            action_kind=decision.do,
            action_id=action,
            action_since=self._work.now,
            **event,
        )

    def _outcome(self, droplet_id: int, action_id: int) -> str:
        try:
            return self._droplets.action_status(droplet_id, action_id, self._work.priority)
        except NotFound:
            return ""

    def _push(self, account: Account, decision: Decision) -> None:
        """Credentials, or a restart. Either begins a login."""
        login, version = self._repository.login(account)
        restart = decision.do is Do.RESTART
        revived = {"action_since": self._work.now} if restart and account.restart_wanted_at is None else {}
        account, sequence, now = self._repository.begin_push(account, restart)
        endpoint = self._work.endpoint(account)
        self._work.check_lease()
        try:
            if restart:
                self._agents.restart(endpoint, account.id, sequence, int(now.timestamp()))
            else:
                self._agents.push(endpoint, account.id, login, sequence, int(now.timestamp()))
        except AgentUnreachable:
            if not revived:  # that the gateway was lost is why it is started: the next pass tries again
                self._say(account, replace(decision, do=Do.NOTHING))
            return
        except CertificateChanged:
            self._work.change(
                account, status=State.ERROR, status_reason="certificate_changed", status_detail=""
            )
            return
        except PushRefused:
            self._work.change(
                account,
                status=State.ERROR,
                status_reason="push_refused",
                status_detail="",
                retry_at=self._work.now + timedelta(seconds=60),
                **_no_action(restart),
            )
            return
        pushed = {} if restart else {"pushed_version": version}
        self._work.change(
            account,
            status=decision.status,
            status_reason=decision.reason,
            status_detail="",
            login_since=now,
            restart_wanted_at=None,
            **pushed,
            **revived,
            **_no_action(restart),
        )


def _no_action(restart: bool) -> dict[str, None]:
    """A restart is over: the next one is another."""
    return {"action_kind": None, "action_id": None} if restart else {}
