"""The brokerage session at a gateway: opened, kept alive with tickle, noticed when lost, opened again."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from broker.brokers.client_portal.answers import Json, asks_for_accounts, is_no_session
from broker.brokers.client_portal.pacing import QUESTION, Limits, Pacer, SharedRead
from broker.brokers.client_portal.wire import Answered, OrderWire, Silence, Unreachable, Wire
from broker.brokers.link import Link, State, unconnected
from broker.errors import BrokerError, BrokerFailure, ConfigurationError, NotConnected

log = logging.getLogger(__name__)

#: seconds: the first pause before connecting again, and the longest
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
#: how often a question is asked, and the seconds before it is asked again
READ_ATTEMPTS, READ_PAUSE = 3, 0.3
_UPSTREAM = frozenset({502, 503, 504})

Ask = Callable[[Wire], Any]


class Refused(BrokerFailure):
    """A question that the gateway answered with an error. Not for orders."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the gateway answered {status}: {text}")
        self.status = status
        self.text = text


class Session:
    """One gateway. `read` may be called from any thread; `run` is the thread that keeps it connected."""

    def __init__(
        self,
        wire: Wire,
        orders: OrderWire,
        *,
        account: str,
        trading_mode: str,
        limits: Limits,
        heartbeat: float,
        take_over: bool,
        choose: str = "IBEAM_ACCOUNT_ID",
    ) -> None:
        """`take_over`: take the session from another login of the same user. `heartbeat`: seconds.

        `choose` is what names the account to a login that manages several.
        """
        self.wire, self.orders = wire, orders
        self.pacer, self._limits = Pacer(limits), limits
        self.link: Link = unconnected()
        #: counts openings: what a session must be asked first is asked once in each
        self.epoch = 0
        self.accounts: list[str] = []
        self.session_id = ""
        self.round_trip = 0.0
        self.attempted = threading.Event()
        self.tickle = SharedRead(self._tickle, limits.tickle)
        self._wanted, self._mode, self._choose = account, trading_mode, choose
        self._take_over, self._heartbeat = take_over, heartbeat
        self._opening = threading.Lock()
        self._portfolio = SharedRead(
            lambda: self.read(lambda w: w.portfolio_accounts(), spacing=limits.lists), limits.lists
        )
        self._portfolio_epoch = -1
        self._stopped = threading.Event()
        self._wake = threading.Event()

    @property
    def account(self) -> str:
        """The connection's own account. Raises `NotConnected` before it is known."""
        if not self.accounts:
            raise self.link.error()
        return self.accounts[0]

    # Asking

    def require(self) -> None:
        """Raises `NotConnected` while the link isn't up."""
        if not self.link.ok:
            raise self.link.error()

    def read(self, ask: Ask, urgency: int = QUESTION, *, absent: int = 0, spacing: float = READ_PAUSE) -> Any:
        """The answer to a question, asked again where that may help: a question changes nothing.

        `absent`: a status that may also mean that what is asked for isn't there; `spacing`: the
        seconds that IBKR wants between two of these questions.
        Raises `NotConnected`, `RateLimited`, `Refused`. Never for an order.
        """
        for left in reversed(range(READ_ATTEMPTS)):
            self.require()
            epoch = self.epoch
            try:
                return self._plain(ask, urgency)
            except Unreachable as away:
                raise self.lost(str(away), away.state) from None
            except Silence as silence:
                if not left:
                    raise self.lost(str(silence)) from None
            except Answered as answer:
                if answer.status == absent and not left:
                    raise Refused(answer.status, answer.text) from None
                self._mend(answer, epoch, left)
            self._stopped.wait(spacing * random.uniform(1.0, 1.5) * (READ_ATTEMPTS - left))
        raise self.lost("no brokerage session could be kept")

    def _mend(self, answer: Answered, epoch: int, left: int) -> None:
        """Do what lets the next attempt succeed, or raise."""
        if answer.status == 401:
            raise self.not_logged_in()
        if is_no_session(answer.text):
            self.reopen(epoch)
        elif asks_for_accounts(answer.text):
            self.prepare()
        elif answer.status in _UPSTREAM:
            if not left:
                raise self.lost("IBKR's servers don't answer (503)", State.LINK_LOST)
        else:
            raise Refused(answer.status, answer.text)

    def portfolio(self, ask: Ask) -> Any:
        """`read` for /portfolio paths, which want /portfolio/accounts to have been asked in the session."""

        def asked(wire: Wire) -> Any:
            epoch = self.epoch
            if self._portfolio_epoch != epoch:
                self._portfolio.get()
                self._portfolio_epoch = epoch
            return ask(wire)

        return self.read(asked)

    def prepare(self) -> None:
        """Ask again what other calls want to have been asked before: the session was opened elsewhere."""
        with self._opening:
            self._open_or_fail()

    def _plain(self, ask: Ask, urgency: int = QUESTION) -> Any:
        """One request in its turn. Raises `Answered`, `Silence`, `Unreachable`, `RateLimited`."""
        self.pacer.turn(urgency)
        try:
            data = ask(self.wire).data
        except Answered as answer:
            if answer.status == 429:
                raise self.pacer.block(answer.retry_after) from None
            raise
        said = data.get("error") if isinstance(data, dict) else None
        if isinstance(said, str) and is_no_session(said):
            raise Answered(400, said)  # IBKR says `{"error": "no session"}` with a 200, too
        return data

    # Losing

    def lost(self, reason: str, state: str = State.DISCONNECTED) -> NotConnected:
        """The link is gone: connecting begins at once. The error to raise."""
        self._set(state, reason, "connecting again")
        self._wake.set()
        return self.link.error()

    def not_logged_in(self) -> NotConnected:
        """401. The error to raise."""
        if self._mode == "live" or (self.accounts and not self.accounts[0].startswith("D")):
            # IBKR asks for the second factor at every live login, and the gateway says nothing about it.
            return self.lost(
                "the gateway isn't logged in: a live login waits for its second factor", State.SECOND_FACTOR
            )
        return self.lost("the gateway isn't logged in", State.NOT_LOGGED_IN)

    # Opening

    def reopen(self, epoch: int) -> None:
        """Open the session again, unless another thread has done so since `epoch`. Raises `NotConnected`."""
        with self._opening:
            if self.epoch == epoch or not self.link.ok:
                self._open_or_fail()

    def _open_or_fail(self) -> None:
        try:
            self._open()
        except Unreachable as away:
            raise self.lost(str(away), away.state) from None
        except Silence as silence:
            raise self.lost(str(silence)) from None
        except Answered as answer:
            if answer.status == 401:
                raise self.not_logged_in() from None
            if answer.status in _UPSTREAM:
                raise self.lost("IBKR's servers don't answer (503)", State.LINK_LOST) from None
            raise self.lost(f"the gateway answered {answer.status}: {answer.text}") from None

    def _open(self) -> None:
        status = self._plain(lambda w: w.authentication_status())
        if not _ready(status):
            status = self._initialise()
        if not _ready(status):
            if status.get("competing"):
                doing = "waiting for the other login to end"
                self._set(State.COMPETING, "another login has taken the session", doing)
                raise self.link.error()
            raise self.lost(f"the brokerage session isn't there: {_described(status)}", State.LINK_LOST)
        found = self._plain(lambda w: w.receive_brokerage_accounts())
        self.accounts = self._check_accounts(found)
        self.epoch += 1
        self._set(State.CONNECTED)

    def _initialise(self) -> Json:
        wanted = {"publish": True, "compete": self._take_over}
        try:
            status = self._plain(lambda w: w.post("iserver/auth/ssodh/init", params=wanted))
        except Answered as answer:
            if answer.status != 500:
                raise
            status = self._plain(lambda w: w.authentication_status())
        for _ in range(4):
            if _ready(status) or status.get("competing"):
                break
            self._stopped.wait(0.5)  # `established` may come a moment later
            status = self._plain(lambda w: w.authentication_status())
        return dict(status)

    def _check_accounts(self, found: Json) -> list[str]:
        accounts = [str(a) for a in found.get("accounts") or []]
        if not accounts:
            raise self.lost("IBKR names no account yet")
        if self._wanted and self._wanted not in accounts:
            self._set(State.WRONG_ACCOUNT, f"this login has no account {self._wanted}", "trying again")
            raise self.link.error()
        if not self._wanted and len(accounts) > 1:
            # IBKR selects one of them; which is trading's business isn't for it, or chance, to say.
            said = f"the login manages {len(accounts)} accounts: {self._choose} must name one of them"
            self._set(State.WRONG_ACCOUNT, f"{said} ({', '.join(accounts)})", "trying again")
            raise self.link.error()
        own = self._wanted or accounts[0]
        # IBKR's paper accounts begin with D (DU, DF).
        is_paper = own.startswith("D")
        declared = bool(found.get("isPaper", is_paper))
        if self._mode and (is_paper, declared) != (self._mode == "paper",) * 2:
            kind = "a paper" if is_paper else "a live"
            said = f"{self._mode} trading is configured, and the gateway is logged in to {kind} account"
            self._set(State.WRONG_ACCOUNT, said, "trying again")
            raise self.link.error()
        return [own, *(a for a in accounts if a != own)]

    # Keeping

    def run(self) -> None:
        """Until `stop`: connect, prove, lose, wait a little longer each time, connect again."""
        pause = FIRST_PAUSE
        while not self._stopped.is_set():
            self._wake.clear()
            try:
                if self.link.ok:
                    self.tickle.get()
                else:
                    if not self.link.reason or self.link.reason.startswith("connect()"):
                        self._set(State.CONNECTING, "not connected yet", "connecting")
                    with self._opening:
                        self._open_or_fail()
                pause = FIRST_PAUSE
            except BrokerError as failure:
                if self.link.ok or self.link.state == State.CONNECTING:
                    self._set(State.DISCONNECTED, failure.message, "connecting again")
            except Exception as failure:
                # Whatever it was, a thread that ends would leave the service silent for ever.
                log.exception("the connection failed unexpectedly")
                self._set(State.DISCONNECTED, f"unexpected: {type(failure).__name__}", "connecting again")
            self.attempted.set()
            if self.link.ok:
                self._wake.wait(self._heartbeat)
            else:
                self._stopped.wait(pause * random.uniform(0.5, 1.0))  # so that many don't knock at once
                pause = min(pause * 2, LONGEST_PAUSE)

    def stop(self, reason: str) -> None:
        """End `run`, and every wait. The login at the gateway stays."""
        self._stopped.set()
        self._wake.set()
        self.link = unconnected(reason)
        self.attempted.set()
        self.wire.close()

    def _tickle(self) -> Json:
        """Keep the login alive, and see how it is. Raises `NotConnected`."""
        began = time.monotonic()
        answer = dict(self.read(lambda w: w.tickle(), spacing=self._limits.tickle))
        self.round_trip = time.monotonic() - began
        epoch, before = self.epoch, self.session_id
        self.session_id = str(answer.get("session") or "")
        status = (answer.get("iserver") or {}).get("authStatus") or {}
        if not _ready(status):
            log.info("the brokerage session is gone: %s", _described(status))
            self.reopen(epoch)
        elif before and self.session_id != before:
            # IBeam logged in anew between two of our requests: what happened meanwhile was told to nobody.
            log.info("the gateway has a new login")
            self.reopen(epoch)
        return answer

    def _set(self, state: str, reason: str = "", doing: str = "") -> None:
        if self._stopped.is_set():
            return
        before, self.link = self.link, self.link.changed(state, reason, doing)
        if (before.state, before.reason) != (state, reason):
            log.info("the link to IBKR: %s %s", state, reason)


def _ready(status: Json) -> bool:
    """`{"authenticated": true, "competing": false, "connected": true, "established": true}`.

    `authenticated` alone says too little (ibeam 281: true while `established` is false).
    """
    wanted = bool(status.get("authenticated")) and bool(status.get("connected"))
    return wanted and not status.get("competing") and status.get("established") is not False


def _described(status: Json) -> str:
    names = ("authenticated", "connected", "competing", "established")
    return ", ".join(f"{name} {status.get(name)}" for name in names)


def check_mode(trading_mode: str) -> None:
    """Raises `ConfigurationError` for a mode that there isn't."""
    if trading_mode not in ("", "paper", "live"):
        raise ConfigurationError(f"the trading mode must be paper or live, not {trading_mode[:40]!a}")
