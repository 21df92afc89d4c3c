"""Orders on their way out. Each is sent once; what can't be told afterwards is looked up, never guessed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from broker.brokers.client_portal.answers import (
    Json,
    Refusal,
    Taken,
    asks_for_accounts,
    is_no_session,
    order_answer,
    status_of,
)
from broker.brokers.client_portal.book import OrderBook
from broker.brokers.client_portal.pacing import CANCEL, ORDER
from broker.brokers.client_portal.questions import Policy, Question
from broker.brokers.client_portal.session import Session
from broker.brokers.client_portal.wire import Answered, Silence, Unreachable
from broker.errors import (
    BrokerError,
    NotConnected,
    OrderNotCancellable,
    OrderNotReplaceable,
    OrderRejected,
    RateLimited,
)
from broker.journal import Journal
from broker.models import FINAL_STATUSES, Order, OrderReport, Status
from broker.placement import NothingKnown, rejection

log = logging.getLogger(__name__)

#: a conversation with more questions than this goes round in circles
MOST_QUESTIONS = 10
#: "reply id not found" right after the question: it isn't there yet; seconds between the attempts
REPLY_ATTEMPTS, REPLY_PAUSE = 3, 0.3
#: seconds to wait for a cancel's confirmation
CANCEL_WAIT = 3.0
#: statuses by which a 4xx says that nothing was placed, whatever the text
_REFUSED = frozenset({400, 403, 404, 405, 413, 415, 422})
_TYPES = {
    "market": "MKT",
    "limit": "LMT",
    "stop": "STP",
    "stop_limit": "STOP_LIMIT",
    "trailing_stop": "TRAIL",
}
#: words of a 500 that only a request which went nowhere gets
_BAD_REQUEST = ("invalid account id", "bad request", "is not known", "is not supported")


class OrderEntry:
    """Places, changes and cancels. One conversation at a time: another makes IBKR forget a question."""

    def __init__(self, session: Session, book: OrderBook, policy: Policy, journal: Journal) -> None:
        self._session, self._book, self._policy, self._journal = session, book, policy, journal
        self._conversation = threading.Lock()
        self._pause = threading.Event()

    def send(self, order: Order, conid: int, legs: Sequence[Order] = ()) -> OrderReport:
        """Send an order once, a bracket with its legs, answer what is asked, and return its state.

        Raises `OrderRejected`, `NothingKnown` (it left), `NotConnected` and `RateLimited` (it didn't).
        """
        self._book.sending.add(order.id)
        try:
            return self._send(order, conid, legs)
        finally:
            self._book.sending.discard(order.id)

    def _send(self, order: Order, conid: int, legs: Sequence[Order]) -> OrderReport:
        path = f"iserver/account/{order.account_id}/orders"
        attached = {"parentId": order.client_order_id}
        bodies = [order_body(order, conid), *(order_body(leg, conid) | attached for leg in legs)]
        try:
            taken = self._converse(path, {"orders": bodies})
        except OrderRejected as refusal:
            if "already registered" not in refusal.reason:
                raise
            # If a proxy on the way repeated the request, the order that is registered is this very one.
            known = self._look_up(order)
            if known is None:
                raise
            return known
        except NothingKnown as silence:
            known = self._look_up(order)
            if known is None:
                raise silence
            return known
        if not legs:
            return self._report(taken)
        taken = self._book.take_bracket(taken, order, legs)
        if taken.refused:
            self._withdraw(order, taken)
        return self._report(taken)

    def _withdraw(self, order: Order, taken: Taken) -> None:
        """Cancel the entry of a bracket that wasn't taken whole. Raises `OrderRejected` once that is done."""
        said = f"IBKR didn't take all of the bracket: {taken.refused}"
        try:
            self.cancel(self._book.note(order, self._report(taken)))
        except BrokerError as failure:
            log.error("order %s works without all of its bracket: %s", order.id, failure.message)
            self._book.note(order, replace(self._report(taken), warnings=(f"{said}: {failure.message}",)))
            return
        raise rejection(said)

    def _look_up(self, order: Order) -> OrderReport | None:
        """The order at IBKR, by the id that we gave it; None proves nothing."""
        try:
            return self._book.look_for(order)
        except BrokerError as failure:
            log.warning("order %s can't be looked up now: %s", order.id, failure.message)
            return None

    def _report(self, taken: Taken) -> OrderReport:
        try:
            return replace(self._book.status_report(taken.order_id), warnings=taken.remarks)
        except BrokerError as failure:
            log.warning("order at IBKR %s: its status can't be read: %s", taken.order_id, failure.message)
            status = status_of(taken.status, 0.0)
            # Without quantity and price a fill would be misread: the book reads them later.
            if status in (Status.FILLED, Status.UNKNOWN):
                status = Status.PENDING
            return OrderReport(
                status,
                taken.status,
                broker_order_id=taken.order_id,
                permanent_id=taken.order_id,
                warnings=taken.remarks,
            )

    def replace(self, order: Order, wanted: Order, conid: int) -> OrderReport:
        """Send a change of a working order, and return its state.

        Raises `OrderNotReplaceable`, `NothingKnown` (it left), `NotConnected`, `RateLimited` (it didn't).
        """
        path = f"iserver/account/{order.account_id}/order/{order.permanent_id}"
        body = order_body(wanted, conid)
        try:
            taken = self._converse(path, body)
        except OrderRejected as refusal:
            raise OrderNotReplaceable(refusal.reason, order) from None
        return self._report(taken)

    # The conversation

    def _converse(self, path: str, body: Json) -> Taken:
        remarks: list[str] = []
        with self._conversation:
            answer = self._post(path, body)
            for _ in range(MOST_QUESTIONS):
                if isinstance(answer, Taken):
                    return replace(answer, remarks=tuple(remarks))
                if isinstance(answer, Refusal):
                    raise rejection(answer.text)
                if answer is None:
                    raise NothingKnown("the gateway's answer tells neither that it took the order nor not")
                if not self._policy.confirms(answer):
                    self._decline(answer)
                    said = f"IBKR asks what isn't confirmed automatically: {answer.text}"
                    raise OrderRejected(said, code=answer.code)
                log.info("confirmed for an order: %s", answer.code)
                remarks.append(f"{answer.code}: {answer.text}")
                answer = self._reply(answer)
            self._decline_any(answer)
            raise OrderRejected(f"IBKR asked more than {MOST_QUESTIONS} questions", code="questions")

    def _post(self, path: str, body: Json) -> Taken | Question | Refusal | None:
        """One request that may place an order. Raises as `send` does."""
        self._session.require()
        self._session.pacer.turn(ORDER)
        epoch = self._session.epoch
        try:
            data = self._session.orders.post(path, params=body).data
        except Unreachable as away:
            raise self._session.lost(str(away), away.state) from None
        except Silence as silence:
            raise NothingKnown(str(silence)) from None
        except Answered as answer:
            raise self._meaning(answer, epoch) from None
        said = order_answer(data)
        if isinstance(said, Refusal) and is_no_session(said.text):
            self._session.reopen(epoch)
            raise _no_session("there was no brokerage session")
        return said

    def _meaning(self, answer: Answered, epoch: int) -> Exception:
        """What an error says about the order that it answers."""
        if answer.status == 429:
            return self._session.pacer.block(answer.retry_after)
        if answer.status == 401:
            return self._session.not_logged_in()
        if is_no_session(answer.text):
            self._session.reopen(epoch)
            return _no_session("there was no brokerage session")
        if asks_for_accounts(answer.text):
            self._session.prepare()
            return _no_session("the brokerage session was a new one")
        refused = any(words in answer.text.lower() for words in _BAD_REQUEST)
        if answer.status in _REFUSED or (answer.status == 500 and refused):
            return rejection(answer.text, answer.status)
        # 503 comes after 10 s upstream, 500 for much: the order may be there all the same.
        return NothingKnown(f"the gateway answered {answer.status}: {answer.text}")

    def _reply(self, question: Question) -> Taken | Question | Refusal | None:
        for attempt in range(REPLY_ATTEMPTS):
            try:
                return self._post(f"iserver/reply/{question.id}", {"confirmed": True})
            except OrderRejected as refusal:
                if "reply id not found" not in refusal.reason:
                    raise
                # Nothing was confirmed by this answer, so the same reply may go again.
                if attempt < REPLY_ATTEMPTS - 1:
                    self._pause.wait(REPLY_PAUSE)
            except (NotConnected, RateLimited) as failure:
                # An unanswered question places nothing; it is forgotten with the next order.
                raise failure
        said = "IBKR forgot its question before it was answered (reply id not found): nothing was placed"
        raise OrderRejected(said, code="reply-id-not-found")

    def _decline(self, question: Question) -> None:
        """Say no, so that the question isn't left open; not saying it places nothing either."""
        try:
            self._session.pacer.turn(ORDER)
            self._session.orders.post(f"iserver/reply/{question.id}", params={"confirmed": False})
        except (Answered, Silence, Unreachable, BrokerError) as failure:
            log.info("a question couldn't be declined: %s", failure)

    def _decline_any(self, answer: Any) -> None:
        if isinstance(answer, Question):
            self._decline(answer)

    # Cancelling

    def cancel(self, order: Order) -> None:
        """Cancel an order, and wait a moment for the confirmation. Never waits behind orders.

        Raises `OrderNotCancellable`, `NotConnected` (the request may not have arrived: repeat it).
        """
        path = f"iserver/account/{order.account_id}/order/{order.permanent_id}"
        self._session.require()
        self._session.pacer.turn(CANCEL)
        epoch = self._session.epoch
        said = ""
        self._journal.cancel_asked(order.id)
        try:
            data = self._session.orders.delete(path).data
            said = str(data.get("error") or "") if isinstance(data, dict) else ""
            if is_no_session(said):
                raise Answered(400, said)
        except Unreachable as away:
            self._journal.cancel_not_sent(order.id)
            raise self._session.lost(str(away), away.state) from None
        except Silence as silence:
            raise NotConnected(
                f"the cancel may not have arrived: {silence}", doing="nothing: cancel again", retry_after=1
            ) from None
        except Answered as answer:
            meaning = self._meaning(answer, epoch)
            if isinstance(meaning, NothingKnown):
                raise NotConnected(
                    f"the cancel may not have arrived: {meaning}",
                    doing="nothing: cancel again",
                    retry_after=1,
                ) from None
            self._journal.cancel_not_sent(order.id)
            if not isinstance(meaning, OrderRejected):
                raise meaning from None
            said = answer.text
        if said:
            self._journal.cancel_not_sent(order.id)
            self._refused(order, said)
        self._book.note(
            order, OrderReport(Status.PENDING_CANCEL, filled_qty=order.filled_qty), may_reopen=False
        )
        ended = self._book.wait_until_final(order, CANCEL_WAIT)
        if ended.status == Status.FILLED:
            raise OrderNotCancellable("the order was filled before the cancel arrived", ended)

    def _refused(self, order: Order, said: str) -> None:
        """IBKR says that it can't be cancelled; how it stands decides what to raise."""
        now = self._book.refresh(order)
        if now.status in (Status.CANCELLED, Status.PENDING_CANCEL):
            return
        if now.status in FINAL_STATUSES:
            raise OrderNotCancellable(f"the order is {now.status}", now)
        raise OrderNotCancellable(said, now)


def order_body(order: Order, conid: int) -> Json:
    """An order as the API takes it. `cOID` is our client order id: IBKR refuses a second one with it.

    Children of a bracket "will not have its own cOID", so a leg's id stays ours.
    """
    body: Json = {
        "acctId": order.account_id,
        "conid": conid,
        "side": order.side.upper(),
        "orderType": _TYPES[order.order_type],
        "quantity": int(order.qty) if order.qty == int(order.qty) else order.qty,
        "tif": order.time_in_force.upper(),
        "outsideRTH": order.extended_hours,
    }
    if order.parent_id is None:
        body["cOID"] = order.client_order_id
    if order.order_type == "trailing_stop":
        by_amount = order.trail_amount is not None
        body["trailingType"] = "amt" if by_amount else "%"
        body["trailingAmt"] = order.trail_amount if by_amount else order.trail_percent
    if order.order_type == "stop":
        body["price"] = order.stop_price
    elif order.limit_price is not None:
        body["price"] = order.limit_price
    if order.order_type == "stop_limit":
        body["auxPrice"] = order.stop_price
    return body


def _no_session(why: str) -> NotConnected:
    return NotConnected(f"{why}, and nothing was placed", doing="opening a brokerage session", retry_after=1)
